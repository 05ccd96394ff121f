from __future__ import annotations

import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.exceptions import CodeNotAllowed
from airflow_mlops.ml.code import resolve


@pytest.fixture(scope="module", autouse=True)
def packages(tmp_path_factory):
    root = tmp_path_factory.mktemp("code")
    (root / "mlops_ok").mkdir()
    (root / "mlops_ok" / "__init__.py").write_text("")
    (root / "mlops_ok" / "data.py").write_text(
        textwrap.dedent(
            """
            import os
            from os import system
            from mlops_okevil import steal
            from mlops_ok.other import helper
            number = 3
            def load(): return 1
            class Net: pass
            lazy = lambda: 1
            """
        )
    )
    (root / "mlops_ok" / "other.py").write_text("def helper(): return 2")
    (root / "mlops_ok" / "broken.py").write_text("1 / 0")
    (root / "mlops_ok" / "needs.py").write_text("import mlops_not_installed")
    (root / "mlops_okevil.py").write_text("def steal(): return 'stolen'")
    sys.path.insert(0, str(root))
    yield
    sys.path.remove(str(root))
    for name in [m for m in sys.modules if m.startswith("mlops_ok")]:
        del sys.modules[name]


def test_allowed_code_is_found():
    assert resolve("mlops_ok.data:load", ["mlops_ok"])() == 1
    assert resolve("mlops_ok.data.Net", [" mlops_ok.data "]).__name__ == "Net"
    assert resolve("mlops_ok.data:helper", ["mlops_ok"])() == 2
    assert resolve("mlops_ok.data:load", ["mlops_ok.data.load"])() == 1


def test_scikit_learn_is_always_allowed():
    assert resolve("sklearn.linear_model.LogisticRegression", []).__name__ == "LogisticRegression"
    assert resolve("sklearn.ensemble:HistGradientBoostingClassifier", ["mlops_ok"]).__name__.startswith("Hist")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("mlops_okevil:steal", "not in"),
        ("mlops_ok.data:steal", "was defined in mlops_okevil"),
        ("mlops_ok.data:system", "was defined in"),
        ("mlops_ok.data:os", "is a module"),
        ("mlops_ok.data:number", "is a int"),
        ("mlops_ok.data:lod", "did you mean 'load'"),
        ("mlops_ok.dat:load", "no module"),
        ("mlops_ok.broken:x", "ZeroDivisionError"),
        ("mlops_ok.needs:x", "mlops_not_installed"),
        ("mlops_ok.data:__import__", "double underscore"),
        ("mlops_ok.__init__:load", "double underscore"),
        ("mlops_ok.data:load.__globals__", "not a path"),
        ("mlops_ok.data:load()", "not a path"),
        ("mlops_ok.data:load\n", "not a path"),
        ("mlops_ok..data:load", "not a path"),
        ("load", "not a path"),
        ("", "not a path"),
        ("os:system", "not in"),
        ("sklearnevil.x:y", "not in"),
        ("sklearn.externals.array_api_compat:is_array_api_obj", "private"),
        ("sklearn.ensemble._forest:ForestClassifier", "private"),
        ("sklearn.base:clone_", "has no"),
        ("sklearn.ensemble.RandomForestClasifier", "did you mean 'RandomForestClassifier'"),
    ],
)
def test_everything_else_is_refused(path, said):
    with pytest.raises(CodeNotAllowed, match=said):
        resolve(path, ["mlops_ok"])


def test_refused_code_is_not_even_imported():
    sys.modules.pop("this", None)
    with pytest.raises(CodeNotAllowed):
        resolve("this:s", ["mlops_ok", ""])
    assert "this" not in sys.modules


piece = st.sampled_from(
    ["mlops_ok", "mlops_okevil", "data", "other", "os", "system", "load", "steal", "__import__", "Net", ""]
)


@given(
    st.lists(st.tuples(piece, st.sampled_from([".", ":", "", "\n", " ", "/", "\x00", "．"])), min_size=1, max_size=5)
)
@settings(max_examples=300, deadline=None)
def test_no_combination_reaches_foreign_code(parts):
    path = "".join(a + b for a, b in parts)
    try:
        found = resolve(path, ["mlops_ok"])
    except CodeNotAllowed:
        return
    assert found.__module__.split(".")[0] == "mlops_ok"


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_text_never_escapes_as_another_error(path):
    with pytest.raises(CodeNotAllowed):
        resolve(path, [])

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import skops.io
from sklearn.base import is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge, SGDClassifier, TweedieRegressor
from sklearn.model_selection import RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

from airflow_mlops.exceptions import CorruptObject, TrainingError, UntrustedArtifact
from airflow_mlops.registry.artifacts import (
    dump_model,
    environment,
    fetch_model,
    load_model,
    open_model,
    store_foreign,
    store_model,
)
from airflow_mlops.registry.lineage import thread_counts
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore

RNG = np.random.default_rng(0)
X = pd.DataFrame(
    {
        "a": RNG.normal(size=90),
        "b": RNG.normal(size=90),
        "c": RNG.choice(list("xyz"), 90),
        "d": pd.Categorical(RNG.choice(list("uv"), 90)),
    }
)
X.loc[3, "a"] = np.nan
LABELS = np.where(X["b"] > 0, "late", "on time")
NUMBERS = np.abs(X["b"].to_numpy()) + 0.1


def pipeline(model: object) -> object:
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    few = OneHotEncoder(handle_unknown="infrequent_if_exist", sparse_output=False, min_frequency=5)
    many = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    select = make_column_selector(dtype_include="category")
    columns = ColumnTransformer([("n", numbers, ["a", "b"]), ("o", few, ["c"]), ("m", many, select)])
    return make_pipeline(columns, model)


MODELS = [
    LogisticRegression(),
    RandomForestClassifier(4),
    HistGradientBoostingClassifier(max_iter=4),
    HistGradientBoostingClassifier(max_iter=4, early_stopping=True),
    GradientBoostingClassifier(n_estimators=4),
    AdaBoostClassifier(n_estimators=3),
    DecisionTreeClassifier(),
    SVC(),
    KNeighborsClassifier(algorithm="kd_tree"),
    KNeighborsClassifier(algorithm="ball_tree", p=1),
    KNeighborsRegressor(metric="manhattan"),
    MLPClassifier(max_iter=4),
    MLPClassifier(max_iter=4, solver="sgd", early_stopping=True),
    GaussianNB(),
    SGDClassifier(loss="log_loss", early_stopping=True),
    CalibratedClassifierCV(LogisticRegression()),
    CalibratedClassifierCV(LogisticRegression(), method="isotonic"),
    VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())]),
    StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())]),
    DummyClassifier(),
    make_pipeline(SelectKBest(k=2), LogisticRegression()),
    RandomizedSearchCV(HistGradientBoostingClassifier(max_iter=3), {"learning_rate": [0.1, 0.2]}, n_iter=2, cv=2),
    RandomForestRegressor(4),
    ExtraTreesRegressor(4),
    *(HistGradientBoostingRegressor(max_iter=3, loss=loss) for loss in ("squared_error", "poisson", "absolute_error")),
    *(GradientBoostingRegressor(n_estimators=3, loss=loss) for loss in ("squared_error", "huber", "quantile")),
    Ridge(),
    PoissonRegressor(),
    TweedieRegressor(),
    SVR(),
    GaussianProcessRegressor(),
    TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
@pytest.mark.filterwarnings("ignore")
def test_common_estimators_round_trip(model: object, tmp_path: Path) -> None:
    target = NUMBERS if is_regressor(model) else LABELS
    fitted = pipeline(model).fit(X, target)
    store = LocalStore(tmp_path)
    info = store_model(store, fitted)
    json.dumps(info, allow_nan=False)
    assert info["format"] == "skops"
    assert info["bytes"] == len(store.get(f"blobs/{info['digest'][:2]}/{info['digest']}"))
    loaded = fetch_model(store, info)
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    if hasattr(fitted, "predict_proba"):
        np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_the_best_estimator_of_a_search(tmp_path: Path) -> None:
    search = RandomizedSearchCV(pipeline(SVC()), {"svc__C": [0.1, 1.0]}, n_iter=2, cv=2).fit(X, LABELS)
    dump_model(search.best_estimator_, tmp_path / "m")
    np.testing.assert_array_equal(load_model(tmp_path / "m").predict(X), search.predict(X))


def shout(frame: object) -> object:
    raise RuntimeError("this function must never be reached by an untrusted file")


def test_types_that_are_not_trusted_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    dump_model(make_pipeline(FunctionTransformer(shout), Ridge()), path)
    (name,) = set(skops.io.get_untrusted_types(file=path))
    with pytest.raises(UntrustedArtifact) as e:
        load_model(path)
    assert name in e.value.message
    assert "[mlops] trusted_types" in e.value.hint
    assert name in e.value.hint


def test_an_edited_file_cannot_name_a_function_to_call(tmp_path: Path) -> None:
    path, evil = tmp_path / "m", tmp_path / "evil"
    dump_model(FunctionTransformer(shout), path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as target:
        schema = (
            source.read("schema.json").decode().replace(f'"{shout.__module__}"', '"os"').replace('"shout"', '"system"')
        )
        target.writestr("schema.json", schema)
    with pytest.raises(UntrustedArtifact, match=r"os\.system"):
        load_model(evil)


def test_a_trusted_type_of_ones_own_that_is_not_importable(tmp_path: Path) -> None:
    path, other = tmp_path / "m", tmp_path / "other"
    dump_model(FunctionTransformer(shout), path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        target.writestr("schema.json", source.read("schema.json").decode().replace(shout.__module__, "no_such_module"))
    with pytest.raises(UntrustedArtifact, match="no_such_module"):
        load_model(other, trusted=["no_such_module.shout"])


def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "m"
    dump_model(Ridge(), path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", bytes(5_000_000))
    assert path.stat().st_size < 50_000
    with pytest.raises(UntrustedArtifact, match=r"would unpack to 5,\d+,\d+ bytes; the limit is 1,000,000"):
        load_model(path, max_bytes=1_000_000)


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "m"
    dump_model(Ridge(), path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UntrustedArtifact, match="cannot be read"):
        load_model(path)


@pytest.mark.parametrize("schema", ["", "[]", "{}", '{"__class__": "x"}', "[" * 100_000])
def test_a_zip_that_is_no_model_is_refused(tmp_path: Path, schema: str) -> None:
    with zipfile.ZipFile(tmp_path / "m", "w") as archive:
        archive.writestr("schema.json", schema)
    with pytest.raises(UntrustedArtifact, match="cannot be"):
        load_model(tmp_path / "m")


def test_changed_bytes_are_found_before_loading(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    info = store_model(store, Ridge())
    key = f"blobs/{info['digest'][:2]}/{info['digest']}"
    store.put(key, store.get(key)[:-1] + b"x")
    with pytest.raises(CorruptObject, match=info["digest"]):
        fetch_model(store, info)


def test_another_format_is_refused(tmp_path: Path) -> None:
    for format in ("pickle", "onnx", None):
        with pytest.raises(UntrustedArtifact, match=repr(format)):
            fetch_model(LocalStore(tmp_path), {"format": format, "digest": "0" * 64})


@pytest.mark.parametrize("name", ["../m.npy", "a/b.npy", "schema.json", "/x.npy"])
def test_entries_that_skops_does_not_write_are_refused(tmp_path: Path, name: str) -> None:
    dump_model(Ridge(), tmp_path / "m")
    with (
        pytest.warns(UserWarning, match="Duplicate name") if name == "schema.json" else nullcontext(),
        zipfile.ZipFile(tmp_path / "m", "a") as archive,
    ):
        archive.writestr(name, b"{}")
    with pytest.raises(UntrustedArtifact, match=r"cannot be read: (it has the entry|an entry is there twice)"):
        load_model(tmp_path / "m")


SAME = """
import sys, tempfile, pathlib, hashlib, warnings
import numpy as np, pandas as pd
import sklearn
warnings.simplefilter("ignore")
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from airflow_mlops.registry.artifacts import dump_model
junk = [bytes([i % 251]) * (i % 3000) for i in range(int(sys.argv[1]))]
del junk
rng = np.random.default_rng(0)
X = rng.normal(size=(80, 3)); y = X[:, 0] > 0
path = pathlib.Path(tempfile.mkdtemp(), "m")
for model, rows in (
    (LogisticRegression(), X), (DecisionTreeClassifier(random_state=0), X), (SVC(), X),
    (RandomForestClassifier(5, random_state=0), X), (GradientBoostingRegressor(n_estimators=3, random_state=0), X),
    (HistGradientBoostingClassifier(max_iter=3, random_state=0), X),
    (make_pipeline(OneHotEncoder(), KNeighborsClassifier()), X.round()),
    (make_pipeline(OneHotEncoder(), LogisticRegression()), X.round()),
    (FunctionTransformer(kw_args={"words": {"a", "bb", "ccc", "dd", 5}}), X),
):
    dump_model(model.fit(rows, y), path)
    print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_the_same_training_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    found = [
        subprocess.Popen(
            [sys.executable, "-c", SAME, junk],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TMPDIR": str(tmp_path)},
        )
        for seed, junk in (("1", "0"), ("2", "20000"))
    ]
    one, two = (process.communicate()[0].split() for process in found)
    assert len(set(one)) == 9
    assert one == two


def test_the_same_model_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pipeline(RandomForestClassifier(3, random_state=0)).fit(X, LABELS)
    dump_model(model, tmp_path / "a")
    real = zipfile.time.localtime
    monkeypatch.setattr(zipfile.time, "localtime", lambda *_: real(2_000_000_000))
    dump_model(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    # What was loaded is the same model again.
    dump_model(load_model(tmp_path / "a"), tmp_path / "c")
    assert load_model(tmp_path / "c").predict(X).tolist() == model.predict(X).tolist()
    model[-1].estimators_[0].tree_.value[0] += 1e-9
    dump_model(model, tmp_path / "d")
    assert (tmp_path / "d").read_bytes() != (tmp_path / "a").read_bytes()


def test_what_is_shared_stays_shared_and_arrays_stay_as_they_are(tmp_path: Path) -> None:
    shared, records = [1.5], np.zeros(3, np.dtype([("a", "i1"), ("b", "f8")], align=True))
    records["b"] = [1, 2, 3]
    arrays = [records, records.reshape(3, 1), records[0:0], np.asfortranarray(np.eye(3)), np.array(["x", None], object)]
    model = FunctionTransformer(
        kw_args={
            "one": shared, "two": shared, "three": [1.5], "file": "a", "__id__": 3, "sets": {"b", "a", 3},
            "bytes": b"x", "arrays": arrays, "sparse": scipy.sparse.eye(3, format="csr"),
        }
    )  # fmt: skip
    dump_model(model, tmp_path / "m")
    found = load_model(tmp_path / "m", trusted=["scipy.sparse._csr.csr_matrix"]).kw_args
    assert found["one"] is found["two"]
    assert found["one"] is not found["three"]
    assert {k: found[k] for k in ("three", "file", "__id__", "sets", "bytes")} == {
        "three": [1.5], "file": "a", "__id__": 3, "sets": {"b", "a", 3}, "bytes": b"x"
    }  # fmt: skip
    for before, after in zip(arrays, found["arrays"], strict=True):
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
        np.testing.assert_array_equal(before, after)
    assert (found["sparse"] != model.kw_args["sparse"]).nnz == 0


def test_a_model_file_from_elsewhere(tmp_path: Path) -> None:
    store, signer, model = LocalStore(tmp_path / "s"), Signer.generate(), Ridge(alpha=3).fit(X[["b"]], NUMBERS)
    verifier = Verifier((signer.public,), allow_pickle=True)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(model))
    with pytest.raises(UntrustedArtifact, match="not stored without a signature"):
        store_foreign(store, path, "pickle", None, pipeline="churn")
    with pytest.raises(UntrustedArtifact, match="'onnx'"):
        store_foreign(store, path, "onnx", signer, pipeline="churn")
    info = store_foreign(store, path, "pickle", signer, pipeline="churn", key="LGA")
    assert json.loads(json.dumps(info)) == info
    assert info["digest"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert fetch_model(store, info, verifier=verifier, pipeline="churn", key="LGA").alpha == 3
    assert open_model(path, info, verifier=verifier, pipeline="churn", key="LGA").alpha == 3
    for refusing in (Verifier((signer.public,)), Verifier(allow_pickle=True), None):
        with pytest.raises(UntrustedArtifact, match="can run code"):
            fetch_model(store, info, verifier=refusing, pipeline="churn", key="LGA")
    path.write_bytes(b"something else")
    with pytest.raises(CorruptObject, match="is not the one that was registered"):
        open_model(path, info, verifier=verifier, pipeline="churn", key="LGA")
    dump_model(model, tmp_path / "m")
    assert fetch_model(store, store_foreign(store, tmp_path / "m", "skops", None, pipeline="churn")).alpha == 3


def test_a_model_is_signed_as_that_of_a_pipeline(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass its name"):
        store_model(LocalStore(tmp_path), Ridge(), signer=Signer.generate())


def test_a_model_that_cannot_be_saved(tmp_path: Path) -> None:
    def inner(x: object) -> object:
        return x

    for what in (
        FunctionTransformer(lambda x: x),
        FunctionTransformer(inner),
        FunctionTransformer(kw_args=(i for i in ())),
    ):
        with pytest.raises(TrainingError, match="FunctionTransformer cannot be saved"):
            dump_model(what, tmp_path / "m")
        assert list(tmp_path.iterdir()) == []


def test_environment() -> None:
    found = environment()
    assert found["packages"]["scikit-learn"]
    assert found["packages"]["apache-airflow"]
    assert found["python"].startswith("3.")
    assert found["threads"] == thread_counts()
    assert json.loads(json.dumps(found)) == found

from __future__ import annotations

import hashlib
import json
import os
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.config.models import Data, Train
from airflow_mlops.exceptions import PredictionError
from airflow_mlops.ml.bundle import write_bundle
from airflow_mlops.ml.features import infer_schema
from airflow_mlops.ml.training import Trained, train
from airflow_mlops.registry.artifacts import dump_model, environment, fetch_model_file, foreign_types, store_model
from airflow_mlops.registry.signing import Signer, Verifier, statement
from airflow_mlops.store import LocalStore

# Runs the script as a fresh process would where neither Airflow nor this package is installed.
BLOCKER = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("airflow", "airflow_mlops"):
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def rows(n: int, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "code": rng.choice(["007", "08", "NA", "None"], n),
            "size, cm": rng.normal(0, 1, n) / 3,
            "old": rng.random(n) < 0.5,
        }
    )
    frame["kind"] = np.where(frame["size, cm"] + (frame["code"] == "007") > 0.4, "good", "bad")
    return frame


def fit(estimator: str, **kwargs: Any) -> Trained:
    frame = rows(200)
    data = Data.model_validate({"source": "x", "target": "kind", "positive": "bad"})
    config = Train.model_validate({"estimator": estimator, **kwargs})
    return train(frame, frame["kind"], infer_schema(frame, data), config)


def bundle(folder: Path, done: Trained, sample: pd.DataFrame | None = None) -> tuple[Path, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    model = folder / "in.skops"
    dump_model(done.model, model)
    made = write_bundle(
        folder / "b.zip",
        model_path=model,
        record={"model": {"environment": environment()}},
        schema=done.schema,
        sample=rows(30, seed=8) if sample is None else sample,
        card_md="# card\n",
        card_html="<h1>card</h1>",
    )
    with zipfile.ZipFile(folder / "b.zip") as archive:
        archive.extractall(folder / "out")
    return folder / "out", made


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", BLOCKER, "predict.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": os.environ["PATH"]},
    )


def inside(folder: Path, *arguments: str) -> None:
    """The same script in this process, where starting one again would prove nothing more."""
    runpy.run_path(str(folder / "predict.py"))["run"]([str(a) for a in arguments])


@pytest.fixture(scope="module")
def forest() -> Trained:
    return fit("sklearn.ensemble.RandomForestClassifier", params={"n_estimators": 5})


@pytest.mark.parametrize(
    "estimator", ["sklearn.ensemble.HistGradientBoostingClassifier", "sklearn.linear_model.LogisticRegression"]
)
def test_a_fresh_process_predicts_the_same(tmp_path: Path, estimator: str) -> None:
    done = fit(estimator, params={"max_iter": 20})
    folder, made = bundle(tmp_path, done)
    assert made["command"] == "python predict.py sample_input.csv --out predictions.csv"
    ended = run(folder, *made["command"].split()[2:], "--keep", "code")
    assert ended.returncode == 0, ended.stderr
    assert "20 predictions written" in ended.stderr
    got = pd.read_csv(
        folder / "predictions.csv", float_precision="round_trip", keep_default_na=False, dtype={"code": str}
    )
    sample = rows(30, seed=8).head(20)
    expected = done.schema.check(sample)
    assert got["code"].tolist() == sample["code"].tolist()
    assert got["prediction"].tolist() == done.model.predict(expected).tolist()
    column = done.model.classes_.tolist().index("bad")
    np.testing.assert_array_equal(got["probability"], done.model.predict_proba(expected)[:, column])


def test_new_categories_missing_values_and_parquet(tmp_path: Path, forest: Trained) -> None:
    folder, _ = bundle(tmp_path, forest)
    frame = pd.DataFrame(
        {"code": ["zz", None, "08"], "size, cm": [1.5, None, 0.1], "old": [True, None, False], "extra": [1, 2, 3]}
    )
    frame.to_csv(folder / "in.csv", index=False)
    frame.to_parquet(folder / "in.parquet")
    for name in ("in.csv", "in.parquet"):
        inside(folder, folder / name, "--out", folder / f"{name}.out")
        got = pd.read_csv(folder / f"{name}.out", float_precision="round_trip")
        expected = forest.model.predict_proba(forest.schema.check(frame))[:, 0]
        np.testing.assert_array_equal(got["probability"], expected)


def test_same_input_same_bytes_and_sums(tmp_path: Path, forest: Trained) -> None:
    folder, first = bundle(tmp_path / "a", forest)
    model = tmp_path / "in.skops"
    dump_model(forest.model, model)
    again = write_bundle(
        tmp_path / "again.zip",
        model_path=model,
        record={"model": {"environment": environment()}},
        schema=forest.schema,
        sample=rows(30, seed=8),
        card_md="# card\n",
        card_html="<h1>card</h1>",
    )
    assert again == first
    assert first["digest"] == hashlib.sha256((tmp_path / "again.zip").read_bytes()).hexdigest()
    assert set(first["files"]) == {
        "model.skops", "MODEL_CARD.md", "MODEL_CARD.html", "schema.json", "sample_input.csv", "requirements.txt",
        "environment.json", "predict.py",
    }  # fmt: skip
    assert {p.name for p in folder.iterdir()} == {*first["files"], "SHA256SUMS"}
    required = [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()]
    assert required == ["scikit-learn", "skops", "numpy", "pandas", "scipy"]
    assert not (tmp_path / "again.zip.part").exists()


def test_a_signed_model_is_verified_by_the_script(
    tmp_path: Path, forest: Trained, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signer, other = Signer.generate(), Signer.generate()
    store = LocalStore(tmp_path / "store")
    info = store_model(store, forest.model, signer=signer, pipeline="churn")
    fetch_model_file(store, info, tmp_path / "model.skops")
    verifier = Verifier((signer.public,))
    evidence = verifier.evidence(info, pipeline="churn")

    def written(name: str, signature: dict[str, Any] | None) -> Path:
        write_bundle(
            tmp_path / f"{name}.zip",
            model_path=tmp_path / "model.skops",
            record={"model": info},
            schema=forest.schema,
            sample=rows(30, seed=8),
            card_md="",
            card_html="",
            signature=signature,
        )
        with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
            archive.extractall(tmp_path / name)
        return tmp_path / name

    def predict(folder: Path, *arguments: str) -> str:
        inside(folder, folder / "sample_input.csv", "--out", folder / "out.csv", *arguments)
        return capsys.readouterr().err

    signed, plain = written("signed", evidence), written("plain", None)
    assert f"signed with {signer.public}; to insist on that key: --key" in predict(signed)
    assert predict(signed, "--key", signer.public).startswith(f"predict.py: the model is signed with {signer.public}\n")
    assert "is signed" not in predict(plain)
    another = other.sign(info, pipeline="churn")
    for folder, arguments, why in (
        (signed, ["--key", other.public], "signed with another key"),
        (plain, ["--key", signer.public], "is not signed"),
        (written("a", {**evidence, "value": another["value"]}), [], "is not valid"),
        (written("b", {**evidence, "statement": evidence["statement"].replace("churn", "fraud")}), [], "is not valid"),
        (written("c", {**evidence, "value": "?"}), [], "is not valid"),
        (written("d", moved(signer, info, evidence)), [], "that of another model"),
    ):
        with pytest.raises(Exception, match=why):
            predict(folder, *arguments)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    assert "was not checked: cryptography is not installed" in predict(signed)
    with pytest.raises(Exception, match="--key needs the package cryptography"):
        predict(signed, "--key", signer.public)


def moved(signer: Signer, info: dict[str, Any], evidence: dict[str, str]) -> dict[str, str]:
    """A valid signature of another model."""
    other = {**info, "digest": "0" * 64}
    said = statement(other, pipeline="churn").decode()
    return {**evidence, "statement": said, **signer.sign(other, pipeline="churn")}


def damage(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)


class TestRefusals:
    @pytest.fixture
    def folder(self, tmp_path: Path, forest: Trained) -> Path:
        return bundle(tmp_path, forest)[0]

    def refused(self, folder: Path, match: str, *arguments: str) -> None:
        ended = run(folder, *(arguments or ("sample_input.csv",)))
        assert ended.returncode == 2
        assert match in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not (folder / "predictions.csv").exists()

    @pytest.mark.parametrize("name", ["model.skops", "schema.json", "MODEL_CARD.md"])
    def test_tampered_file(self, folder: Path, name: str) -> None:
        damage(folder, name)
        self.refused(folder, f"{name} is not the file that was handed over")

    def test_missing_and_unlisted_files(self, folder: Path) -> None:
        (folder / "MODEL_CARD.md").unlink()
        self.refused(folder, "MODEL_CARD.md is missing")
        sums = (folder / "SHA256SUMS").read_text().splitlines()
        (folder / "SHA256SUMS").write_text("\n".join(s for s in sums if "model.skops" not in s))
        self.refused(folder, "does not list model.skops")

    def test_input(self, folder: Path) -> None:
        self.refused(folder, "there is no file nothing.csv", "nothing.csv")
        self.refused(folder, "would replace the input", "sample_input.csv", "--out", "sample_input.csv")

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda f: f.drop(columns=["old", "code"]), r"lacks 2 column\(s\): code, old; it has: size, cm, kind"),
            (
                lambda f: f.assign(**{"size, cm": ["1", "x", "2"]}),
                r"column size, cm must hold a number; 1 row\(s\) do not, the first is row 2: 'x'",
            ),
            (lambda f: f.assign(old="maybe"), r"column old must hold true or false; 3 row\(s\)"),
            (lambda f: f.head(0), "has no rows"),
        ],
    )
    def test_rows(self, folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame], match: str) -> None:
        change(rows(3)).to_csv(folder / "in.csv", index=False)
        with pytest.raises(Exception, match=match) as e:
            inside(folder, folder / "in.csv", "--out", folder / "out.csv")
        assert type(e.value).__name__ == "Problem"
        assert not (folder / "out.csv").exists()

    @pytest.mark.parametrize(
        ("name", "data", "match"),
        [("empty.csv", b"", "cannot be read as CSV"), ("x.parquet", b"PAR1", "cannot be read as Parquet")],
    )
    def test_files(self, folder: Path, name: str, data: bytes, match: str) -> None:
        (folder / name).write_bytes(data)
        with pytest.raises(Exception, match=match):
            inside(folder, folder / name, "--out", folder / "out.csv")

    def test_other_versions_are_said(self, tmp_path: Path, forest: Trained, capsys: pytest.CaptureFixture[str]) -> None:
        made = environment()
        made["packages"]["scikit-learn"] = "1.2.3"
        model = tmp_path / "m.skops"
        dump_model(forest.model, model)
        write_bundle(
            tmp_path / "b.zip", model_path=model, record={"model": {"environment": {**made, "python": "3.8.1"}}},
            schema=forest.schema, sample=rows(5), card_md="", card_html="",
        )  # fmt: skip
        with zipfile.ZipFile(tmp_path / "b.zip") as archive:
            archive.extractall(tmp_path)
        inside(tmp_path, tmp_path / "sample_input.csv", "--out", tmp_path / "out.csv")
        said = capsys.readouterr().err
        assert "made with scikit-learn 1.2.3" in said
        assert "made with Python 3.8.1" in said

    def test_help(self, folder: Path) -> None:
        ended = run(folder, "--help")
        assert ended.returncode == 0
        assert "--trust" in ended.stdout


def test_foreign_types_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "house_code.py").write_text(
        "import numpy as np\nfrom sklearn.base import BaseEstimator, ClassifierMixin\n"
        "class Own(ClassifierMixin, BaseEstimator):\n"
        "    def fit(self, X, y):\n        self.classes_ = np.unique(y); return self\n"
        "    def predict(self, X):\n        return np.repeat(self.classes_[0], len(X))\n"
        "def make(X, y, *, seed):\n    return Own().fit(X, y)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    frame = rows(50)
    done = train(
        frame,
        frame["kind"],
        infer_schema(frame, Data.model_validate({"source": "x", "target": "kind"})),
        Train.model_validate({"callable": "house_code:make"}),
        allowed_imports=["house_code"],
        trusted_types=["house_code.Own"],
    )
    folder, made = bundle(tmp_path / "b", done)
    assert foreign_types(tmp_path / "b" / "in.skops") == ["house_code.Own"]
    assert made["command"].endswith("--trust house_code.Own")
    with pytest.raises(Exception, match=r"add: --trust house_code\.Own"):
        inside(folder, folder / "sample_input.csv", "--out", folder / "out.csv")
    inside(folder, folder / "sample_input.csv", "--out", folder / "out.csv", "--trust", "house_code.Own")


def test_a_sample_that_does_not_fit_is_refused(tmp_path: Path, forest: Trained) -> None:
    with pytest.raises(PredictionError, match="code"):
        bundle(tmp_path, forest, rows(5).drop(columns="code"))
    assert not (tmp_path / "b.zip").exists()


def test_schema_json_is_the_schema(tmp_path: Path, forest: Trained) -> None:
    folder, _ = bundle(tmp_path, forest)
    assert json.loads((folder / "schema.json").read_text()) == forest.schema.to_dict()

"""``airflow mlops registry export|import|gc|fsck``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from airflow_mlops.ml import foreign
from airflow_mlops.registry import Registry
from airflow_mlops.registry.artifacts import dump_model, fetch_model, load_model
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore, layout, put_blob

Run = Callable[..., Any]
ROWS = pd.DataFrame({"age": range(20), "plan": ["a", "b"] * 10, "left": ["no", "no", "yes", "yes"] * 5})


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIGNING_KEY_FILE", "SIGNING_KEY_CONN_ID", "TRUSTED_KEYS", "ALLOW_UNSIGNED", "ALLOW_PICKLE"):
        monkeypatch.delenv(f"AIRFLOW__MLOPS__{name}", raising=False)
    monkeypatch.delenv("AIRFLOW__MLOPS__MLFLOW_CONN_ID", raising=False)


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A model of one column of numbers, as skops."""
    path = tmp_path / "numbers.skops"
    dump_model(LogisticRegression().fit(ROWS[["age"]], ROWS["left"]), path)
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A model that treats text and numbers differently, as skops."""
    path = tmp_path / "mixed.skops"
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]), remainder="passthrough")
    dump_model(make_pipeline(columns, LogisticRegression()).fit(ROWS[["age", "plan"]], ROWS["left"]), path)
    return path


def imported(registry_store: LocalStore, name: str = "churn") -> Registry:
    return Registry(registry_store, name)


# --- import ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pipeline", "churn", "--key", "LGA"), "churn is no fleet"),
        (("--pipeline", "delays"), "delays has a model for each of its keys, and no key is given"),
        (("--pipeline", "delays", "--key", ""), "the key is empty"),
        (("--pipeline", "churn", "--private", "aeg"), "there is no column aeg to keep private"),
        (("--pipeline", "churn", "--target", "age"), "reads the column age, so it cannot be what it predicts"),
        (("--pipeline", "delays", "--key", "\udcff"), "is not UTF-8"),
    ],
)
def test_what_an_import_refuses(
    registry_store: LocalStore, run: Run, numbers: Path, words: tuple[str, ...], message: str
) -> None:
    run("import", str(numbers), "--pipeline", "churn", "--target", "left")
    run("import", str(numbers), "--pipeline", "delays", "--key", "LGA", "--target", "left")
    before = [Registry(registry_store, name).history() for name in ("churn", "delays")]
    done = run("import", str(numbers), *words)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert [Registry(registry_store, name).history() for name in ("churn", "delays")] == before
    assert run("import", str(numbers), "--pipeline", "delays", "--key", "JFK", "--target", "left").code == 0


def test_no_model_is_imported_that_could_not_be_loaded(
    registry_store: LocalStore, run: Run, numbers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = Signer.generate()
    monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_KEYS", signer.public)
    words = ("import", str(numbers), "--pipeline", "churn", "--target", "left")
    done = run(*words)
    assert (done.code, "there is no key to sign with" in done.err) == (1, True)
    assert [*registry_store.list("")] == []
    key = tmp_path / "key.pem"
    key.write_bytes(signer.pem())
    key.chmod(0o600)
    monkeypatch.setenv("AIRFLOW__MLOPS__SIGNING_KEY_FILE", str(key))
    assert run(*words).code == 0
    pickled = tmp_path / "model.joblib"
    joblib.dump(load_model(numbers), pickled)
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_PICKLE", "True")
    monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_KEYS", Signer.generate().public)
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_UNSIGNED", "True")
    done = run("import", str(pickled), "--pipeline", "churn", "--target", "left")
    assert (done.code, f"the key {signer.key_id} is not trusted" in done.err) == (1, True)


def test_a_file_that_changes_while_it_is_read(
    registry_store: LocalStore, run: Run, numbers: Path, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(path: Path, **given: Any) -> Any:
        model = load_model(path, **given)
        path.write_bytes(mixed.read_bytes())
        return model

    monkeypatch.setattr(foreign, "load_model", swapped)
    done = run("import", str(numbers), "--pipeline", "churn", "--target", "left")
    assert (done.code, "numbers.skops was changed while it was read" in done.err) == (1, True)
    assert Registry(registry_store, "churn").history() == []


def test_a_model_that_may_not_be_read(registry_store: LocalStore, run: Run, tmp_path: Path) -> None:
    done = run("import", str(tmp_path / "no" / "m.skops"), "--pipeline", "churn", "--target", "left")
    assert (done.code, "there is no file" in done.err) == (1, True)


def test_what_others_wrote_is_shown_and_exported_harmlessly(
    registry_store: LocalStore, run: Run, numbers: Path, tmp_path: Path
) -> None:
    key = "\x1b[31mLGA"
    done = run("import", str(numbers), "--pipeline", "delays", "--key", key, "--target", "left")
    Registry(registry_store, "delays").tag(1, "half", "\udcff\x9b\x7fü🎉", op_id="t", key=key)
    assert done.code == 0
    shown = run("show", f"delays[{key}]:1")
    exported = run("export", f"delays[{key}]:1", "-o", str(tmp_path / "out"))
    for ended in (done, shown, exported):
        assert ended.code == 0, ended.err
        assert "\x1b" not in ended.out
    (record,) = (tmp_path / "out").rglob("record.json")
    told = run("show", f"delays[{key}]:1", "--output", "json").out
    for text in (record.read_text("utf-8"), told):
        text.encode()
        assert "\x9b" not in text
        assert "\x7f" not in text
        assert json.loads(text)["tags"] == {"half": "\udcff\x9b\x7fü🎉"}
    assert "ü🎉" in told
    fleet = Registry(registry_store, "delays")
    fleet.register({**fleet.get(1, key).record}, op_id="half", key="\udcff")
    assert run("export", "delays", "-o", str(tmp_path / "all")).code == 0
    assert len([*(tmp_path / "all").iterdir()]) == 2


def test_a_model_that_names_its_columns_becomes_a_version(registry_store: LocalStore, run: Run, numbers: Path) -> None:
    done = run("import", str(numbers), "--pipeline", "churn", "--target", "left", "--positive", "yes")
    assert done.code == 0, done.err
    assert "promote churn:1 --expected none" in done.out
    registry = imported(registry_store)
    (version,) = registry.versions()
    assert (version.status, registry.champion()) == ("candidate", None)
    assert version.record["schema"] == {
        "features": [{"name": "age", "kind": "number", "categories": None}],
        "target": "left", "classes": ["no", "yes"], "positive": "yes", "excluded": [],
    }  # fmt: skip
    model = fetch_model(registry_store, version.record["model"])
    assert list(model.predict(ROWS[["age"]])) == list(load_model(numbers).predict(ROWS[["age"]]))
    # Once more is the same version, and a second file takes the target of the first.
    assert "churn v1" in run("import", str(numbers), "--pipeline", "churn", "--positive", "yes").out
    assert len(registry.versions()) == 1


def test_a_sample_says_what_the_columns_hold(registry_store: LocalStore, run: Run, mixed: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample.parquet"
    ROWS.to_parquet(sample)
    refused = run("import", str(mixed), "--pipeline", "churn", "--target", "left")
    assert (refused.code, "--data SAMPLE" in refused.err) == (1, True)
    done = run("import", str(mixed), "--pipeline", "churn", "--target", "left", "--data", str(sample))
    assert done.code == 0, done.err
    (version,) = imported(registry_store).versions()
    assert version.record["schema"]["features"] == [
        {"name": "age", "kind": "number", "categories": None},
        {"name": "plan", "kind": "category", "categories": ["a", "b"]},
    ]
    assert run("show", "churn:1").out.count("taken in from mixed.skops") == 1


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("numbers.skops", (), "--target COLUMN"),
        ("numbers.skops", ("--target", "left", "--positive", "maybe"), "'maybe'"),
        ("numbers.skops", ("--target", "left", "--data", "plans.csv"), "has no column age"),
        ("nothing.skops", ("--target", "left"), "there is no file"),
        ("plans.csv", ("--target", "left"), "no model file by its name"),
        ("torn.skops", ("--target", "left"), "cannot be read"),
    ],
)
def test_what_cannot_be_taken_in_registers_nothing(
    registry_store: LocalStore, run: Run, numbers: Path, name: str, words: tuple[str, ...], message: str
) -> None:
    folder = numbers.parent
    (folder / "torn.skops").write_bytes(numbers.read_bytes()[:200])
    ROWS[["plan"]].to_csv(folder / "plans.csv", index=False)
    words = tuple(str(folder / w) if w.endswith(".csv") else w for w in words)
    done = run("import", str(folder / name), "--pipeline", "churn", *words)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert imported(registry_store).versions() == []


def test_a_file_becomes_a_version_of_one_model_of_a_fleet(registry_store: LocalStore, run: Run, numbers: Path) -> None:
    done = run("import", str(numbers), "--pipeline", "delays", "--key", "LGA", "--target", "left")
    assert done.code == 0, done.err
    assert done.out.startswith("delays[LGA] v1: taken in from numbers.skops, candidate\n")
    assert "promote 'delays[LGA]:1' --expected none" in done.out  # fit for a shell
    # The same bytes for another key are another model's version.
    assert run("import", str(numbers), "--pipeline", "delays", "--key", "JFK", "--target", "left").code == 0
    registry = imported(registry_store, "delays")
    assert {key: [v.number for v in registry.versions(key)] for key in registry.keys()} == {"JFK": [1], "LGA": [1]}  # noqa: SIM118


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("numbers.skops", "--task", "regression"), "--task is for a model of MLflow"),
        (("numbers.skops", "--classes", "no,yes"), "--classes is for a model of MLflow"),
        (("models:/churn/3", "--target", "left"), "no MLflow is configured"),
        (("models:/churn/3",), "what models:/churn/3 predicts is not known"),
        (("models:/churn/3", "--target", "left", "--classes", "no,,yes"), "does not name each class once"),
        (("models:/churn/3", "--target", "left", "--classes", "no,no"), "does not name each class once"),
    ],
)
def test_what_is_for_mlflow_is_told_from_what_is_for_files(
    registry_store: LocalStore, run: Run, numbers: Path, monkeypatch: pytest.MonkeyPatch, words: Any, message: str
) -> None:
    if "no MLflow" not in message:
        monkeypatch.setenv("AIRFLOW__MLOPS__MLFLOW_CONN_ID", "mlflow_test")
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TEST", '{"conn_type": "http", "host": "127.0.0.1", "port": 9}')
    done = run("import", *(str(numbers) if w == numbers.name else w for w in words), "--pipeline", "churn")
    assert (done.code, done.out) == (1, "")
    assert message in " ".join(done.err.split())
    assert imported(registry_store).versions() == []


class Evil:
    """Leaves a mark when it is loaded."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


def test_a_pickle_is_loaded_only_when_allowed_and_signed(
    registry_store: LocalStore, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, evil, good = tmp_path / "ran", tmp_path / "evil.joblib", tmp_path / "good.joblib"
    joblib.dump(Evil(str(mark)), evil)
    joblib.dump(LogisticRegression().fit(ROWS[["age"]], ROWS["left"]), good)
    words = ("--pipeline", "churn", "--target", "left")
    assert "[mlops] allow_pickle" in run("import", str(evil), *words).err
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_PICKLE", "True")
    assert "signing_key_file" in run("import", str(evil), *words).err
    signer, key = Signer.generate(), tmp_path / "key.pem"
    key.touch(mode=0o600)
    key.write_bytes(signer.pem())
    monkeypatch.setenv("AIRFLOW__MLOPS__SIGNING_KEY_FILE", str(key))
    assert run("import", str(evil), *words).code == 1
    assert not mark.exists()
    assert imported(registry_store).versions() == []
    monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_KEYS", signer.public)
    done = run("import", str(good), *words)
    assert done.code == 0, done.err
    (version,) = imported(registry_store).versions()
    info = version.record["model"]
    assert (info["format"], info["signature"]["key"]) == ("joblib", signer.key_id)
    verifier = Verifier((signer.public,), None, True)
    assert fetch_model(registry_store, info, verifier=verifier, pipeline="churn").classes_.tolist() == ["no", "yes"]


# --- export ------------------------------------------------------------------------------------------


def test_an_export_is_read_without_this_package(
    registry_store: LocalStore, run: Run, numbers: Path, tmp_path: Path
) -> None:
    run("import", str(numbers), "--pipeline", "churn", "--target", "left")
    registry = imported(registry_store)
    card = {"markdown": put_blob(registry_store, b"# card"), "html": put_blob(registry_store, b"<h1>card</h1>")}
    registry.annotate(1, "card", card, op_id="c")
    out = tmp_path / "out"
    assert run("export", "churn", "-o", str(out)).out == f"churn v1: {out}/churn-v1\n"
    assert {p.name for p in (out / "churn-v1").iterdir()} == {"model.skops", "record.json", "card.md", "card.html"}
    assert (out / "churn-v1" / "card.md").read_text() == "# card"
    code = (
        "import json, sys, skops.io, pandas as pd; folder = sys.argv[1];"
        "schema = json.load(open(f'{folder}/record.json'))['record']['schema'];"
        "rows = pd.DataFrame({f['name']: [1.0] for f in schema['features']});"
        "print(skops.io.load(f'{folder}/model.skops').predict(rows)); assert 'airflow_mlops' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(out / "churn-v1")], check=True, capture_output=True)
    again = run("export", "churn:1", "-o", str(out))
    assert (again.code, "is there already" in again.err) == (1, True)


def test_a_damaged_model_leaves_no_half_export(
    registry_store: LocalStore, run: Run, numbers: Path, tmp_path: Path
) -> None:
    run("import", str(numbers), "--pipeline", "churn", "--target", "left")
    key = layout.blob(imported(registry_store).get(1).record["model"]["digest"])
    registry_store.put(key, registry_store.get(key)[:-1] + b"?")
    done = run("export", "churn", "-o", str(tmp_path / "out"))
    assert done.code == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_what_export_needs(churn: Registry, run: Run, tmp_path: Path) -> None:
    assert "-o DIR" in run("export", "churn").err
    assert "did you mean churn?" in run("export", "chrun", "-o", str(tmp_path)).err
    assert "mlflow_conn_id" in run("export", "--to", "mlflow").err


# --- gc and fsck -------------------------------------------------------------------------------------


def test_garbage_is_told_before_it_goes(registry_store: LocalStore, run: Run, numbers: Path) -> None:
    run("import", str(numbers), "--pipeline", "churn", "--target", "left")
    assert run("gc", "--dry-run").code == 0
    digest = put_blob(registry_store, b"nobody names this")
    path, old = Path(registry_store.uri.removeprefix("file://"), layout.blob(digest)), time.time() - 7 * 86400
    os.utime(path, (old, old))
    would = run("gc", "--dry-run")
    assert would.code == 1
    assert f"1 blobs, 17 bytes, would be put in the trash\n    {layout.blob(digest)}" in would.out
    assert path.exists()
    assert run("gc", "--dry-run", "--grace", "30d").code == 0
    done = run("gc", "--output", "json")
    assert (done.code, json.loads(done.out)["trashed"]["blobs"]["objects"]) == (0, 1)
    assert not path.exists()
    assert "--grace" in run("gc", "--grace", "soon").err
    refused = run("gc", "--grace", "0h")
    assert (refused.code, "--grace 0h is shorter than 1:00:00" in refused.err) == (1, True)


def test_damage_reads_as_advice(registry_store: LocalStore, run: Run, numbers: Path) -> None:
    run("import", str(numbers), "--pipeline", "churn", "--target", "left")
    sound = run("fsck")
    assert (sound.code, sound.out.splitlines()[0]) == (0, "churn: 1 of 1 versions can be loaded, no champion.")
    key = layout.blob(imported(registry_store).get(1).record["model"]["digest"])
    registry_store.put(key, registry_store.get(key)[:-1] + b"?")
    done = run("fsck", "churn")
    assert done.code == 1
    said = " ".join(done.out.split())
    assert "DAMAGED" in said
    assert "What to do: restore this object from a backup" in said
    assert max(len(line) for line in done.out.splitlines() if "/" not in line) <= 80
    found = run("fsck", "--output", "json")
    assert found.code == 1
    assert json.loads(found.out)["findings"][0]["key"] == key
    assert "did you mean churn?" in run("fsck", "chrun").err


def test_what_is_worn_is_made_anew(churn: Registry, registry_store: LocalStore, run: Run) -> None:
    run("list")
    registry_store.put(layout.index(), b"{}")
    assert "index of all pipelines is damaged" in " ".join(run("fsck").out.split())
    assert "Repaired." in run("fsck", "--repair").out
    assert "churn" in run("list").out
    assert "index of all pipelines" not in run("fsck").out

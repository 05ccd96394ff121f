from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skops.io
from sklearn.base import clone, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound, TrainingError, UntrustedArtifact
from airflow_mlops.registry import Registry, artifacts, op_id
from airflow_mlops.registry.artifacts import (
    dump_bytes,
    dump_model,
    fetch_model,
    fetch_model_file,
    fetch_models,
    load_model,
    open_model,
    store_model,
    store_models,
)
from airflow_mlops.registry.export import export_version
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.packs import MOST_BYTES, PackReader, packs_of, write_pack
from airflow_mlops.registry.reproducible import SCHEMA
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore, get_blob, layout, put_blob, put_json
from tests.unit.registry.test_artifacts import LABELS, MODELS, NUMBERS, X

RNG = np.random.default_rng(4)
ROWS = pd.DataFrame({"dep": RNG.normal(10, 3, 120), "carrier": RNG.choice(["AA", "UA", "B6"], 120)})
Y = RNG.normal(size=120)
KEYS = [f"K{i:02}" for i in range(6)]


def preparation() -> ColumnTransformer:
    steps = [("n", StandardScaler(), ["dep"]), ("c", OneHotEncoder(sparse_output=False), ["carrier"])]
    return ColumnTransformer(steps).fit(ROWS)


@pytest.fixture(scope="module")
def prepare() -> ColumnTransformer:
    return preparation()


@pytest.fixture(scope="module")
def estimators(prepare: ColumnTransformer) -> dict[str, Ridge]:
    matrix = prepare.transform(ROWS)
    return {key: Ridge(alpha=1 + i).fit(matrix, Y) for i, key in enumerate(KEYS)}


class Counting(LocalStore):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.got: list[str] = []

    def get(self, key: str) -> bytes:
        self.got.append(key)
        return super().get(key)

    def get_file(self, key: str, path: Path) -> None:
        self.got.append(key)
        super().get_file(key, path)


def registered(
    store: LocalStore, prepare: Any, estimators: dict[str, Any], signer: Signer | None = None
) -> dict[str, Any]:
    """Versions of a fleet as a training registers them, by key."""
    before = store_model(store, prepare, signer=signer, pipeline="fleet")
    environment = before.pop("environment")
    models = [(key, dump_bytes(model)) for key, model in estimators.items()]
    own = store_models(store, models, prepare=before, signer=signer, pipeline="fleet")
    of = put_json(store, {"model": {"format": "pack", "prepare": before, "environment": environment}})
    records = {key: {"of": of, "model": info} for key, info in own.items()}
    return Registry(store, "fleet").register_many(records, op_id=op_id("train"))


# --- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
@pytest.mark.filterwarnings("ignore")
def test_bytes_are_those_of_the_file(model: Any, tmp_path: Path) -> None:
    matrix = X[["a", "b"]].fillna(0).to_numpy()
    fitted = clone(model).fit(matrix, NUMBERS if is_regressor(model) else LABELS)
    dump_model(fitted, tmp_path / "m")
    data = dump_bytes(fitted)
    assert data == (tmp_path / "m").read_bytes()
    # The zip that zipfile itself would write of the same parts.
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as again:
            for name in archive.namelist():
                info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                info.create_system, info.external_attr = 3, 0o600 << 16
                again.writestr(info, archive.read(name))
        assert archive.testzip() is None
    assert buffer.getvalue() == data
    np.testing.assert_array_equal(load_model(data).predict(matrix), fitted.predict(matrix))
    np.testing.assert_array_equal(load_model(io.BytesIO(data)).predict(matrix), fitted.predict(matrix))


def test_a_zip_of_many_files_is_still_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DecisionTreeRegressor().fit(ROWS[["dep"]], Y)
    small = dump_bytes(model)
    monkeypatch.setattr("airflow_mlops.registry.reproducible._PLAIN", 1)
    assert dump_bytes(model) == small


def test_what_was_checked_once_is_no_pass_for_others() -> None:
    dump_bytes(FunctionTransformer(np.log1p))
    for _ in range(2):
        with pytest.raises(TrainingError, match="cannot be imported by that name"):
            dump_bytes(FunctionTransformer(lambda frame: frame))
    assert dump_bytes(FunctionTransformer(np.exp))


def test_bytes_are_refused_as_files_are() -> None:
    evil = dump_bytes(Pipeline([("f", FunctionTransformer(preparation)), ("r", Ridge())]))
    with pytest.raises(UntrustedArtifact, match=r"1 type.s. that are not trusted: .*preparation"):
        load_model(evil)
    with pytest.raises(UntrustedArtifact, match="would unpack to"):
        load_model(dump_bytes(Ridge()), max_bytes=10)
    with pytest.raises(UntrustedArtifact, match="cannot be read"):
        load_model(b"no zip")


# --- packs ---------------------------------------------------------------------------------------


def test_a_pack_is_the_same_for_the_same_models(tmp_path: Path) -> None:
    models = [(f"k{i}", bytes([i]) * (100 + i)) for i in range(128)]
    store = LocalStore(tmp_path)
    digest = write_pack(store, models)
    assert write_pack(LocalStore(tmp_path / "other"), models) == digest
    assert [*PackReader(store).models(digest)] == models
    file = pq.ParquetFile(io.BytesIO(get_blob(store, digest)))
    assert [file.metadata.row_group(n).num_rows for n in range(2)] == [64, 64]
    assert file.metadata.row_group(0).column(1).compression == "ZSTD"
    for wrong in ([], [*models, ("more", b"")], [("a", b""), ("a", b"")], [("a", bytes(MOST_BYTES)), ("b", b"1")]):
        with pytest.raises(ValueError, match="pack"):
            write_pack(store, wrong)
    parts = [*packs_of([*models, ("a", bytes(MOST_BYTES + 1)), ("b", b"1")])]
    assert [len(part) for part in parts] == [128, 1, 1]
    assert [*packs_of([])] == []


def test_models_of_packs_are_composed_with_their_preparation(
    tmp_path: Path, prepare: ColumnTransformer, estimators: dict[str, Ridge]
) -> None:
    store = LocalStore(tmp_path)
    versions = registered(store, prepare, estimators)
    for key, version in versions.items():
        loaded = fetch_model(store, version.record["model"], pipeline="fleet", key=key)
        assert [*loaded.named_steps] == ["prepare", "model"]
        expected = Pipeline([("p", prepare), ("m", estimators[key])]).predict(ROWS)
        np.testing.assert_array_equal(loaded.predict(ROWS), expected)
    assert version.model == hashlib.sha256(dump_bytes(estimators[key])).hexdigest()
    assert not check(store).findings


def test_many_are_loaded_pack_by_pack(
    tmp_path: Path, prepare: ColumnTransformer, estimators: dict[str, Ridge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_mlops.registry.packs.MOST_MODELS", 2)
    store = Counting(tmp_path)
    registered(store, prepare, estimators)
    single = store_model(store, Pipeline([("p", prepare), ("m", estimators["K00"])]))
    registry = Registry(store, "fleet")
    registry.register({"model": single}, op_id="parent", key="*")
    versions = [registry.get(1, key) for key in [*reversed(KEYS), "*"]]
    for version in versions:
        assert version.record
    store.got.clear()
    found = [*fetch_models(store, versions)]
    assert len(store.got) == 5  # three packs, one preparation, the parent
    assert {key for key, _ in found} == {*KEYS, "*"}
    packed = [(v.record["model"]["pack"], v.record["model"]["entry"], v.key) for v in versions if v.key != "*"]
    assert [key for key, _ in found if key != "*"] == [key for *_, key in sorted(packed)]
    for key, model in found:
        expected = estimators["K00" if key == "*" else key].predict(prepare.transform(ROWS))
        np.testing.assert_array_equal(model.predict(ROWS), expected)
    assert len({id(model.named_steps["prepare"]) for key, model in found if key != "*"}) == 1


def test_one_bad_model_fails_no_other(
    tmp_path: Path, prepare: ColumnTransformer, estimators: dict[str, Ridge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_mlops.registry.packs.MOST_MODELS", 3)
    store = LocalStore(tmp_path)
    versions = registered(store, prepare, estimators)
    pack = versions["K00"].record["model"]["pack"]
    key = layout.blob(pack)
    store.put(key, store.get(key)[:-1])
    told: dict[str, str] = {}
    found = dict(fetch_models(store, versions.values(), failed=lambda v, e: told.update({v.key: type(e).__name__})))
    assert [*told] == ["K00", "K01", "K02"]
    assert {*told.values()} == {"CorruptObject"}
    assert [*found] == ["K03", "K04", "K05"]
    with pytest.raises(CorruptObject):
        [*fetch_models(store, versions.values())]
    (finding,) = [f for f in check(store).findings if f.severity == "damage"][:1]
    assert finding.key == key


SWAPS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"entry": 1}, CorruptObject, r"has no fleet\[K00\] in entry 1 but 'K01'"),
    ({"entry": 77}, CorruptObject, "has no entry 77"),
    ({"entry": -1}, UntrustedArtifact, "which entry"),
    ({"entry": True}, UntrustedArtifact, "which entry"),
    ({"bytes": 5}, CorruptObject, "which is not what was registered"),
    ({"digest": "0" * 64}, CorruptObject, "which is not what was registered"),
    ({"pack": "x"}, UntrustedArtifact, "no sha256 of its pack"),
    ({"pack": "0" * 64}, ObjectNotFound, "no object"),
    ({"prepare": "x"}, UntrustedArtifact, "which preparation"),
    ({"prepare": {"format": "pickle", "digest": "0" * 64, "bytes": 3}}, UntrustedArtifact, "format 'pickle'"),
    ({"format": "parquet"}, UntrustedArtifact, "skops, pickle, joblib, pack"),
    ({"bytes": 3 << 30}, UntrustedArtifact, "the limit is"),
]


@pytest.mark.parametrize(("change", "error", "words"), SWAPS)
def test_a_record_that_was_changed_loads_nothing(
    tmp_path: Path, prepare: ColumnTransformer, estimators: dict[str, Ridge],
    change: dict[str, Any], error: type[Exception], words: str,
) -> None:  # fmt: skip
    store = LocalStore(tmp_path)
    info = registered(store, prepare, estimators)["K00"].record["model"]
    with pytest.raises(error, match=words):
        fetch_model(store, info | change, pipeline="fleet", key="K00")
    with pytest.raises(CorruptObject, match=r"has no fleet\[K01\] in entry 0 but 'K00'"):
        fetch_model(store, info, pipeline="fleet", key="K01")


def test_a_pack_that_is_none(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    other = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), other)
    for data in (b"no parquet", other.getvalue()):
        with pytest.raises(CorruptObject, match="cannot be read"):
            [*PackReader(store).models(put_blob(store, data))]
    pack = write_pack(store, [("a", bytes(1 << 20))])
    info = {"pack": pack, "entry": 0, "digest": hashlib.sha256(bytes(1 << 20)).hexdigest(), "bytes": 1 << 20}
    with pytest.raises(UntrustedArtifact, match="the limit is 100,000"):
        PackReader(store).read(info, "a", max_bytes=100_000)
    assert PackReader(store).read(info, "a") == bytes(1 << 20)


def test_signatures_cover_model_and_preparation(
    tmp_path: Path, prepare: ColumnTransformer, estimators: dict[str, Ridge]
) -> None:
    store, signer = LocalStore(tmp_path), Signer.generate()
    verifier = Verifier((signer.public,))
    info = registered(store, prepare, estimators, signer)["K02"].record["model"]
    loading: dict[str, Any] = {"verifier": verifier, "pipeline": "fleet", "key": "K02"}
    assert fetch_model(store, info, **loading).predict(ROWS).shape == (120,)
    assert fetch_model_file(store, info, tmp_path / "m", **loading) == signer.key_id
    other = store_model(store, StandardScaler().fit(ROWS[["dep"]]), signer=signer, pipeline="fleet")
    unsigned = {k: v for k, v in info["prepare"].items() if k != "signature"}
    for changed, words in (
        (info | {"prepare": other}, "not that of this"),
        (info | {"prepare": None}, "not that of this"),
        (info | {"prepare": unsigned}, "is not signed"),
        ({k: v for k, v in info.items() if k != "signature"}, "is not signed"),
    ):
        with pytest.raises(UntrustedArtifact, match=words):
            fetch_model(store, changed, **loading)
    # The same model in another pack is the same model.
    again = store_models(store, [("K02", dump_bytes(estimators["K02"]))], prepare=info["prepare"])
    moved = info | {name: again["K02"][name] for name in ("pack", "entry")}
    assert fetch_model(store, moved, **loading)
    with pytest.raises(UntrustedArtifact, match="not that of this"):
        fetch_model(store, info, **loading | {"pipeline": "other"})


def test_types_of_model_and_preparation_must_be_trusted(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    model = Ridge().fit(ROWS[["dep"]], Y)
    versions = registered(store, FunctionTransformer(preparation).fit(ROWS), {"a": model})
    with pytest.raises(UntrustedArtifact, match=r"not trusted: .*preparation"):
        fetch_model(store, versions["a"].record["model"], key="a")
    name = f"{__name__}.preparation"
    assert fetch_model(store, versions["a"].record["model"], key="a", trusted=[name]).named_steps["model"]


def test_a_model_without_preparation_is_itself(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    whole = Pipeline([("s", StandardScaler()), ("m", Ridge())]).fit(ROWS[["dep"]], Y)
    info = store_models(store, [("a", dump_bytes(whole))], prepare=None)["a"]
    loaded = fetch_model(store, {"format": "pack", "prepare": None, **info}, key="a")
    assert [*loaded.named_steps] == ["s", "m"]


def test_a_version_is_exported_with_its_preparation(
    tmp_path: Path, prepare: ColumnTransformer, estimators: dict[str, Ridge]
) -> None:
    store, signer = LocalStore(tmp_path / "store"), Signer.generate()
    version = registered(store, prepare, estimators, signer)["K03"]
    verifier = Verifier((signer.public,))
    place = export_version(store, version, tmp_path / "out", verifier=verifier)
    assert sorted(f.name for f in place.iterdir()) == ["model.skops", "prepare.skops", "record.json"]
    expected = estimators["K03"].predict(prepare.transform(ROWS))
    model, before = skops.io.load(place / "model.skops"), skops.io.load(place / "prepare.skops")
    np.testing.assert_array_equal(model.predict(before.transform(ROWS)), expected)
    given: dict[str, Any] = {"verifier": verifier, "pipeline": "fleet", "key": "K03"}
    info = version.record["model"]
    opened = open_model(place / "model.skops", info, prepare=place / "prepare.skops", **given)
    np.testing.assert_array_equal(opened.predict(ROWS), expected)
    with pytest.raises(UntrustedArtifact, match="preparation that goes before"):
        open_model(place / "model.skops", info, **given)


def test_dumping_one_of_many_takes_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What 16,000 small models would pay for."""
    calls = []
    real = skops.io.get_untrusted_types
    monkeypatch.setattr(
        skops.io, "get_untrusted_types", lambda **named: [calls.append(1), real(**named)][1]
    )  # fmt: skip
    matrix = RNG.normal(size=(60, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(5):
            dump_bytes(LogisticRegression(C=0.37, max_iter=50).fit(matrix, matrix[:, 0] + RNG.normal(size=60) > 0))
    assert len(calls) <= 1
    assert SCHEMA == "schema.json"
    assert artifacts.PACK == "pack"

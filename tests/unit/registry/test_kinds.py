"""Kinds and entries of models: the same skops file, the same model, and nothing that is not checked."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone, is_regressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge

from airflow_mlops.exceptions import CorruptObject, TrainingError, UntrustedArtifact
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.registry import kind_reader as reading
from airflow_mlops.registry import kinds as writing
from airflow_mlops.registry.artifacts import fetch_model, fetch_models, open_model, store_models
from airflow_mlops.registry.export import export_version
from airflow_mlops.registry.formats import TRUSTED_TYPES, dump_bytes, load_model
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.kind_reader import KindReader
from airflow_mlops.registry.kinds import MAGIC, KindWriter, join, kind_of, split
from airflow_mlops.registry.packs import PackReader, write_pack
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore
from tests.unit.registry.test_artifacts import LABELS, MODELS, NUMBERS, X

MATRIX = np.nan_to_num(pd.get_dummies(pd.DataFrame(X)).to_numpy(dtype=float))
READ_OFF = {
    "LogisticRegression", "RandomForestClassifier", "HistGradientBoostingClassifier", "GradientBoostingClassifier",
    "AdaBoostClassifier", "DecisionTreeClassifier", "SVC", "MLPClassifier", "GaussianNB", "SGDClassifier",
    "CalibratedClassifierCV", "DummyClassifier", "RandomForestRegressor", "ExtraTreesRegressor",
    "HistGradientBoostingRegressor", "GradientBoostingRegressor", "Ridge", "PoissonRegressor", "TweedieRegressor",
    "SVR", "GaussianProcessRegressor",
}  # fmt: skip
"""Estimators whose values are read off; of the others each model is a skops file."""


def fitted(model: Any, rows: int = len(MATRIX)) -> Any:
    target = NUMBERS if is_regressor(model) else LABELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clone(model).fit(MATRIX[:rows], target[:rows])


def entry_of(model: Any) -> tuple[bytes, bytes]:
    kinds: dict[str, bytes] = {}
    entry = KindWriter(kinds).dump(model)
    (kind,) = kinds.values()
    return kind, entry


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_kind_and_values_are_the_skops_file_again(model: Any) -> None:
    kinds: dict[str, bytes] = {}
    writer = KindWriter(kinds)
    reader = KindReader()
    for rows in (len(MATRIX), len(MATRIX) - 7, len(MATRIX)):
        made = fitted(model, rows)
        entry, whole = writer.dump(made), dump_bytes(made)
        assert entry.startswith(MAGIC) == (type(model).__name__ in READ_OFF)
        if kind_of(entry) is None:
            assert entry == whole
            continue
        kind = kinds[str(kind_of(entry))]
        assert join(kind, entry) == whole
        assert len(entry) < len(whole)
        loaded = reader.load(kind, entry)
        assert dump_bytes(loaded) == whole
        assert np.array_equal(loaded.predict(MATRIX), made.predict(MATRIX))


def test_most_models_are_written_and_loaded_without_skops(monkeypatch: pytest.MonkeyPatch) -> None:
    writing._KNOWN.clear()
    writes, loads = [], []
    monkeypatch.setattr(writing, "dump_bytes", lambda model: writes.append(1) or dump_bytes(model))
    monkeypatch.setattr(reading, "load_model", lambda *given, **more: loads.append(1) or load_model(*given, **more))
    kinds: dict[str, bytes] = {}
    writer, reader = KindWriter(kinds), KindReader()
    forests = [RandomForestRegressor(5, max_depth=3, random_state=n) for n in range(6)]
    entries = [writer.dump(fitted(model)) for model in forests]
    for entry, model in zip(entries, forests, strict=True):
        loaded = reader.load(kinds[str(kind_of(entry))], entry)
        assert np.array_equal(loaded.predict(MATRIX), fitted(model).predict(MATRIX))
    assert (len(kinds), len(writes), len(loads)) == (1, 1, 1)


def test_an_entry_does_not_depend_on_what_was_written_before() -> None:
    ridges = [fitted(Ridge(alpha=alpha)) for alpha in (1, 2.5, 3)]
    one, other = KindWriter({}), KindWriter({})
    assert [one.dump(m) for m in ridges] == [other.dump(m) for m in reversed(ridges)][::-1]


class Holder(BaseEstimator):
    """Takes anything as a setting."""

    def __init__(self, held: Any = None) -> None:
        self.held = held


SHARED = np.arange(3.0)
LISTS = [1, "x"]
RECORD = np.dtype([("a", "u1"), ("b", "f8")], align=True)
ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(SHARED), st.just(LISTS),
    st.sampled_from([np.float32(1.5), np.int64(7), np.bool_(True), np.array(2.5), np.zeros((2, 0))]),
    st.sampled_from([np.array(["a", "bc"]), np.array([(1, 2.5)], dtype=RECORD), np.random.RandomState(1)]),
    st.sampled_from([np.asfortranarray(np.ones((2, 3))), np.ones((4, 4))[::2, ::2]]),
    st.just(np.array([LISTS, None], dtype=object)),
)  # fmt: skip
HELD = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HELD, HELD)
def test_whatever_a_model_holds_comes_back(first: Any, second: Any) -> None:
    """What skops cannot write it refuses; everything else is the same, which object is which other one included."""
    kinds: dict[str, bytes] = {}
    writer = KindWriter(kinds)
    for held in (first, second, first):
        model = Holder(held)
        try:
            whole = dump_bytes(model)
        except TrainingError as e:
            with pytest.raises(TrainingError, match=re.escape(str(e.message))):
                writer.dump(model)
            continue
        entry = writer.dump(model)
        kind = kind_of(entry)
        assert (entry if kind is None else join(kinds[kind], entry)) == whole
        if kind is not None:
            reader = KindReader([*TRUSTED_TYPES, f"{__name__}.Holder"])
            for _ in range(2):
                assert dump_bytes(reader.load(kinds[kind], entry)) == whole


def test_what_is_no_file_of_ours_is_not_split() -> None:
    whole = dump_bytes(fitted(Ridge()))
    assert split(whole) is not None
    assert split(b"PK") is None
    assert split(whole[:-30]) is None
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("schema.json", json.dumps({"__loader__": "JsonNode", "content": 7}))
    assert split(buffer.getvalue()) is None


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_a_damaged_entry_is_refused(data: st.DataObject) -> None:
    """Bytes that changed give an error or a model with other values, never another kind of error."""
    kind, entry = FOREST
    at = data.draw(st.integers(0, len(entry) - 1))
    bad = data.draw(st.sampled_from([entry[:at], entry + b"0", entry[:at] + bytes([entry[at] ^ 1]) + entry[at + 1 :]]))
    reader = KindReader()
    reader.load(kind, entry)
    for load in (lambda: reader.load(kind, bad), lambda: join(kind, bad)):
        try:
            load()
        except UntrustedArtifact:
            continue


FOREST = entry_of(fitted(RandomForestRegressor(2, max_depth=2, random_state=0)))


def edited(kind: bytes, entry: bytes, values: list[Any], shapes: Any = None) -> bytes:
    (size,) = struct.unpack_from("<I", entry, 40)
    old = json.loads(entry[44 : 44 + size])
    head = json.dumps([values, shapes if shapes is not None else old[1]]).encode()
    return entry[:40] + struct.pack("<I", len(head)) + head + entry[44 + size :]


def test_an_entry_of_other_values_than_its_kind_is_refused() -> None:
    kind, entry = entry_of(fitted(Ridge()))
    values, shapes = json.loads(entry[44 : 44 + struct.unpack_from("<I", entry, 40)[0]])
    reader = KindReader()
    reader.load(kind, entry)
    for load in (KindReader().load, join):
        with pytest.raises(UntrustedArtifact, match="of the kind"):
            load(kind + b" ", entry)
    for bad in (
        edited(kind, entry, values[:-1]),
        edited(kind, entry, [*values, 1]),
        edited(kind, entry, values, [[-1]]),
        edited(kind, entry, values, [[2**40]]),
        edited(kind, entry, values, [*shapes, [1]]),
    ):
        for load in (lambda bad=bad: reader.load(kind, bad), lambda bad=bad: join(kind, bad)):
            with pytest.raises(UntrustedArtifact, match="a model cannot be"):
                load()


def test_types_of_a_kind_must_be_trusted() -> None:
    kind, entry = entry_of(Holder([1]))
    reader = KindReader()
    for _ in range(2):
        with pytest.raises(UntrustedArtifact, match="Holder"):
            reader.load(kind, entry)


def test_a_model_that_would_be_too_large_is_not_put_together() -> None:
    kind, entry = FOREST
    with pytest.raises(UntrustedArtifact, match="too large"):
        join(kind, entry, max_bytes=len(kind))


def test_a_pack_keeps_each_kind_once(tmp_path: Path) -> None:
    store, kinds = LocalStore(tmp_path), dict[str, bytes]()
    writer = KindWriter(kinds)
    models = [(f"k{n}", writer.dump(fitted(Ridge(alpha=n)))) for n in range(1, 6)]
    digest = write_pack(store, models, kinds)
    reader = PackReader(store)
    for n, (key, entry) in enumerate(models):
        info = {"pack": digest, "entry": n, "digest": hashlib.sha256(entry).hexdigest(), "bytes": len(entry)}
        assert reader.read(info, key) == dump_bytes(fitted(Ridge(alpha=n + 1)))
    assert [*reader.models(digest)] == models
    with pytest.raises(ValueError, match="is missing"):
        write_pack(store, models, {})
    lying = {key: kind + b" " for key, kind in kinds.items()}
    info["pack"] = write_pack(store, models, lying)
    with pytest.raises(CorruptObject, match="is another one"):
        PackReader(store).read(info, "k5")


def test_a_registered_model_is_loaded_exported_and_opened(tmp_path: Path) -> None:
    store, kinds = LocalStore(tmp_path / "store"), dict[str, bytes]()
    registry, writer, signer = Registry(store, "routes"), KindWriter(kinds), Signer.generate()
    forests = {f"r{n}": fitted(RandomForestRegressor(3, max_depth=2, random_state=n)) for n in range(4)}
    models = [(key, writer.dump(model)) for key, model in forests.items()]
    infos = store_models(store, models, kinds=kinds, prepare=None, signer=signer, pipeline="routes")
    shared = {"format": "pack", "prepare": None}
    versions = registry.register_many({k: {"model": shared | info} for k, info in infos.items()}, op_id=op_id("r"))
    verifier = Verifier((signer.public,))
    for key, loaded in fetch_models(store, versions.values(), verifier=verifier):
        assert np.array_equal(loaded.predict(MATRIX), forests[str(key)].predict(MATRIX))
    version = versions["r2"]
    folder = export_version(store, version, tmp_path / "out", verifier=verifier)
    assert (folder / "model.skops").read_bytes() == dump_bytes(forests["r2"])
    info = version.record["model"]
    opened = open_model(folder / "model.skops", info, verifier=verifier, pipeline="routes", key="r2")
    assert np.array_equal(opened.predict(MATRIX), forests["r2"].predict(MATRIX))
    (folder / "model.skops").write_bytes(dump_bytes(forests["r3"]))
    with pytest.raises(CorruptObject, match="is not the one that was registered"):
        open_model(folder / "model.skops", info, verifier=verifier, pipeline="routes", key="r2")
    with pytest.raises(UntrustedArtifact):
        fetch_model(store, info | {"signature": None}, verifier=verifier, pipeline="routes", key="r2")
    assert check(store).findings == []


def test_the_format_can_be_read_with_the_code_of_its_page() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/store-format.md").read_text()
    (code,) = [part.split("```")[0] for part in page.split("```python\n") if "def skops_file" in part]
    names: dict[str, Any] = {}
    exec(code, names)
    for model in (Ridge(), RandomForestRegressor(3, max_depth=2, random_state=1)):
        made = fitted(model)
        loaded = load_model(names["skops_file"](*entry_of(made)))
        assert dump_bytes(loaded) == dump_bytes(made)

"""Whoever may write to the store, and has no key, gets nothing loaded: ``TAMPERED=1000`` for a longer run."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from airflow_mlops.exceptions import CorruptObject, StoreError, UntrustedArtifact
from airflow_mlops.registry.artifacts import dump_model, fetch_model, store_model
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore, layout, put_blob

TAMPERED = int(os.environ.get("TAMPERED", "200"))
OURS, THEIRS = Signer.generate(), Signer.generate()
X = np.random.default_rng(1).normal(size=(60, 2))


class Fires:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class Attack:
    """A store with signed models of two pipelines, and what one attempt has made of it."""

    def __init__(self, folder: Path) -> None:
        self.store, self.folder = LocalStore(folder / "store"), folder
        self.mark = folder / "fired"
        self.infos = {
            (pipeline, key, i): store_model(
                self.store, self.model(pipeline, i), signer=OURS, pipeline=pipeline, key=key
            )
            for pipeline in ("churn", "fraud")
            for key in (None, "LGA")
            for i in (1, 2)
        }
        self.original = {digest: self.bytes(digest) for digest in {i["digest"] for i in self.infos.values()}}
        self.reset(0)

    def reset(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.info: dict[str, Any] = copy.deepcopy(self.infos["churn", None, 1])
        self.verifier = Verifier((OURS.public,))
        for digest, data in self.original.items():
            self.store.put(layout.blob(digest), data)

    @staticmethod
    def model(pipeline: str, i: int) -> LogisticRegression:
        return LogisticRegression(C=i).fit(X, X[:, i - 1] * (1 if pipeline == "churn" else -1) > 0)

    def bytes(self, digest: str) -> bytes:
        return self.store.get(layout.blob(digest))

    def data(self) -> bytes:
        return self.bytes(self.info["digest"])

    def in_place(self, data: bytes) -> None:
        """Other bytes under the same name."""
        self.store.put(layout.blob(self.info["digest"]), data)

    def consistently(self, data: bytes, format: str = "skops", signer: Signer | None = None) -> None:
        """Other bytes, and a record that fits them."""
        self.info |= {"digest": put_blob(self.store, data), "bytes": len(data), "format": format}
        if signer is not None:
            self.info["signature"] = signer.sign(self.info, pipeline="churn")

    def flipped(self) -> bytes:
        data = bytearray(self.data())
        data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        return bytes(data)

    def cut(self) -> bytes:
        return self.data()[: self.rng.randrange(len(self.data()))]

    def rezipped(self, change: Callable[[dict[str, Any]], Any], extra: dict[str, bytes] | None = None) -> bytes:
        """The model's file with another schema, and more entries."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.data())) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                if name != "schema.json":
                    new.writestr(name, old.read(name))
            schema = json.loads(old.read("schema.json"))
            change(schema)
            new.writestr("schema.json", json.dumps(schema))
            for name, data in (extra or {}).items():
                new.writestr(name, data)
        return buffer.getvalue()

    def evil(self) -> bytes:
        """A skops file whose schema names a function of its own choice, and says that this is fine."""

        def change(schema: dict[str, Any]) -> None:
            path = self.folder / "evil"
            dump_model(FunctionTransformer(np.log), path)
            with zipfile.ZipFile(path) as archive:
                text = archive.read("schema.json").decode()
            schema.clear()
            schema.update(json.loads(text.replace('"numpy"', '"os"').replace('"log"', '"system"')))
            schema |= {"trusted": ["os.system"], "trusted_types": ["os.system"]}

        return self.rezipped(change)

    def pickled(self) -> bytes:
        if self.rng.random() < 0.5:
            return pickle.dumps(Fires(self.mark))
        buffer = io.BytesIO()
        joblib.dump(Fires(self.mark), buffer)
        return buffer.getvalue()


def nothing(schema: dict[str, Any]) -> None:
    pass


def bad_signature(a: Attack) -> Any:
    good = a.info["signature"]
    value = bytearray(base64.b64decode(good["value"]))
    value[a.rng.randrange(64)] ^= 1 << a.rng.randrange(8)
    other = THEIRS.sign(a.info, pipeline="churn")
    return a.rng.choice(
        [
            other,
            {"key": OURS.key_id, "value": other["value"]},
            {"key": OURS.key_id, "value": base64.b64encode(value).decode()},
            {"key": OURS.key_id, "value": good["value"][:-4]},
            {"key": OURS.key_id, "value": good["value"] + "\n"},
            {"key": OURS.key_id, "value": None},
            {"key": OURS.key_id, "value": ""},
            {"key": OURS.key_id},
            {"key": OURS.public, "value": good["value"]},
            {"key": [OURS.key_id], "value": good["value"]},
            a.infos["churn", None, 2]["signature"],
            a.infos["churn", "LGA", 1]["signature"],
            a.infos["fraud", None, 1]["signature"],
            OURS.sign(a.info | {"format": "joblib"}, pipeline="churn"),
            OURS.sign(a.info | {"bytes": a.info["bytes"] + 1}, pipeline="churn"),
            OURS.sign(a.info, pipeline="churn", key="churn"),
            [], "", 0, "signed", good["value"],
        ]
    )  # fmt: skip


def swap_bytes(a: Attack) -> None:
    a.in_place(a.bytes(a.infos["churn", None, 2]["digest"]))


def swap_record(a: Attack) -> None:
    a.info |= {k: a.infos["churn", None, 2][k] for k in ("digest", "bytes")}


def other_weights(a: Attack) -> None:
    """A sound file of the same size, by the same code, that predicts the opposite."""
    model = a.model("churn", 1)
    model.coef_, model.intercept_ = -model.coef_, -model.intercept_
    dump_model(model, a.folder / "other")
    data = (a.folder / "other").read_bytes()
    assert len(data) == a.info["bytes"]
    a.consistently(data)


def from_elsewhere(a: Attack) -> None:
    a.info = copy.deepcopy(a.infos[a.rng.choice([("fraud", None, 1), ("churn", "LGA", 2), ("fraud", "LGA", 1)])])


def unsigned(a: Attack) -> None:
    a.consistently(a.rng.choice([a.data, a.flipped, a.evil, a.pickled])())
    a.info.pop("signature")
    if a.rng.random() < 0.3:
        a.info["signature"] = None


def other_format(a: Attack) -> None:
    a.info["format"] = a.rng.choice(["pickle", "joblib", "onnx", "SKOPS", "", None, 3, ["skops"], {"skops": 1}])
    a.verifier = Verifier((OURS.public,), allow_pickle=a.rng.random() < 0.7)


def announced(a: Attack) -> None:
    size = a.info["bytes"]
    a.info["bytes"] = a.rng.choice([size + 1, size - 1, -size, 0, 1 << 40, str(size), True, None, size + 0.0])


def no_digest(a: Attack) -> None:
    digest = a.info["digest"]
    where = ["../" * 5 + "etc/passwd", "", None, digest.upper(), digest[:-1], f"{digest}\n", [digest], "0" * 64]
    a.info["digest"] = a.rng.choice(where)


def bomb(a: Attack) -> None:
    a.consistently(a.rezipped(nothing, {"zeros.npy": bytes(3_000_000)}), signer=a.rng.choice([None, THEIRS, OURS]))


def folders(a: Attack) -> None:
    name = a.rng.choice(["../../evil.npy", "/etc/passwd", "a/b.npy", "..", "C:\\x.npy", "schema.json"])
    a.consistently(a.rezipped(nothing, {name: b"{}"}), signer=a.rng.choice([None, THEIRS, OURS]))


def own_trust(a: Attack) -> None:
    a.consistently(a.evil(), signer=a.rng.choice([None, THEIRS, OURS]))


def renamed_pickle(a: Attack) -> None:
    a.consistently(a.pickled(), signer=a.rng.choice([None, THEIRS, OURS]))
    a.verifier = Verifier((OURS.public,), allow_pickle=True)


def unsigned_pickle(a: Attack) -> None:
    a.consistently(a.pickled(), format=a.rng.choice(["pickle", "joblib"]))
    a.info["signature"] = bad_signature(a)
    if a.rng.random() < 0.3:
        a.info.pop("signature")
    # Neither of these two options lets an unsigned pickle in, with or without a key.
    keys = a.rng.choice([(OURS.public,), ()])
    a.verifier = Verifier(keys, allow_unsigned=a.rng.choice([None, True]), allow_pickle=True)


def signed_pickle_not_allowed(a: Attack) -> None:
    a.consistently(a.pickled(), format=a.rng.choice(["pickle", "joblib"]), signer=OURS)


def wrong_although_unsigned_would_do(a: Attack) -> None:
    a.info["signature"] = bad_signature(a)
    a.verifier = Verifier((OURS.public,), allow_unsigned=True)


ATTEMPTS: list[Callable[[Attack], None]] = [
    lambda a: a.in_place(a.flipped()),
    lambda a: a.in_place(a.cut()),
    lambda a: a.consistently(a.flipped()),
    lambda a: a.consistently(a.cut()),
    lambda a: a.consistently(a.flipped(), signer=THEIRS),
    lambda a: a.consistently(a.data() + b"x"),
    lambda a: a.consistently(b"x" + a.data()),
    lambda a: a.consistently(a.rezipped(nothing), signer=THEIRS),
    lambda a: a.info.update(signature=bad_signature(a)),
    swap_bytes, swap_record, other_weights, from_elsewhere, unsigned, other_format, announced, no_digest, bomb, folders,
    own_trust, renamed_pickle, unsigned_pickle, signed_pickle_not_allowed, wrong_although_unsigned_would_do,
]  # fmt: skip


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of everything that was called to build an object from a file."""
    calls: list[str] = []

    def recorded(module: Any, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: calls.append(name) or real(*a, **k))

    for module, names in ((skops.io, ("load", "loads")), (pickle, ("load", "loads", "Unpickler")), (joblib, ("load",))):
        for name in names:
            recorded(module, name)
    return calls


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Attack:
    return Attack(tmp_path_factory.mktemp("tampering"))


def test_nothing_of_a_changed_model_is_built(attack: Attack, built: list[str]) -> None:
    refused = 0
    for i in range(TAMPERED):
        attack.reset(i)
        ATTEMPTS[i % len(ATTEMPTS)](attack)
        del built[:]
        try:
            fetch_model(
                attack.store, attack.info, verifier=attack.verifier, pipeline="churn", key=None, max_bytes=1_000_000
            )
        except (UntrustedArtifact, CorruptObject, StoreError):
            refused += 1
        assert built == [], f"attempt {i} was read: {attack.info}"
        assert not attack.mark.exists()
    assert refused == TAMPERED


def test_what_was_not_changed_is_built(attack: Attack, built: list[str]) -> None:
    attack.reset(0)
    for (pipeline, key, i), info in attack.infos.items():
        model = fetch_model(attack.store, info, verifier=attack.verifier, pipeline=pipeline, key=key)
        np.testing.assert_array_equal(model.predict(X), attack.model(pipeline, i).predict(X))
    assert built == ["load"] * len(attack.infos)


def test_a_signed_pickle_is_built_where_that_is_allowed(attack: Attack, built: list[str]) -> None:
    attack.reset(0)
    model = attack.model("churn", 1)
    attack.consistently(pickle.dumps(model), format="pickle", signer=OURS)
    found = fetch_model(
        attack.store, attack.info, verifier=Verifier((OURS.public,), allow_pickle=True), pipeline="churn"
    )
    np.testing.assert_array_equal(found.predict(X), model.predict(X))
    assert built == ["load"]


def test_the_digest_goes_before_the_signature(attack: Attack) -> None:
    attack.reset(0)
    attack.in_place(attack.flipped())
    attack.info["signature"] = None
    with pytest.raises(CorruptObject, match=attack.info["digest"]):
        fetch_model(attack.store, attack.info, verifier=attack.verifier, pipeline="churn")
    assert hashlib.sha256(attack.data()).hexdigest() != attack.info["digest"]


def test_the_announced_size_goes_before_the_download(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    attack.reset(0)
    monkeypatch.setattr(LocalStore, "get_file", lambda *_: pytest.fail("it was fetched"))
    with pytest.raises(UntrustedArtifact, match="the limit is 100"):
        fetch_model(attack.store, attack.info, verifier=attack.verifier, pipeline="churn", max_bytes=100)

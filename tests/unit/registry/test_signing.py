from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import ConfigError, UntrustedArtifact
from airflow_mlops.registry.signing import Signer, Verifier, key_id, read_public_key, statement

SIGNER, OTHER = Signer.generate(), Signer.generate()
INFO = {"digest": "a" * 64, "format": "skops", "bytes": 12}
SIGNED = INFO | {"signature": SIGNER.sign(INFO, pipeline="churn")}
TEXT = st.text(max_size=20)


def seed_of(signer: Signer) -> str:
    private = load_pem_private_key(signer.pem(), None)
    return base64.b64encode(private.private_bytes_raw()).decode()


def test_the_statement_stays_as_it_is() -> None:
    # Signatures of models that are stored already depend on every byte of this.
    assert statement(INFO | {"environment": {}}, pipeline="churn", key="LGA") == (
        b"airflow-mlops model, statement version 1\n"
        b'{"bytes":12,"digest":"' + b"a" * 64 + b'","format":"skops","key":"LGA","pipeline":"churn"}'
    )


@given(st.tuples(TEXT, TEXT, st.none() | TEXT), st.tuples(TEXT, TEXT, st.none() | TEXT))
def test_different_models_give_different_statements(one: tuple, two: tuple) -> None:
    said = [statement(INFO | {"format": f}, pipeline=p, key=k) for f, p, k in (one, two)]
    assert (said[0] == said[1]) == (one == two)


def test_a_private_key_as_pem_and_as_seed(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(SIGNER.pem())
    path.chmod(0o640)
    found = [
        Signer.from_text(SIGNER.pem().decode(), where="here"),
        Signer.from_text(f" {seed_of(SIGNER)}\n", where="here"),
        Signer.from_file(path),
    ]
    assert [s.public for s in found] == [SIGNER.public] * 3
    # Ed25519 gives the same signature each time: a task that runs twice registers one version.
    assert [s.sign(INFO, pipeline="churn") for s in found] == [SIGNED["signature"]] * 3


def test_a_signer_shows_nothing_of_its_key() -> None:
    assert repr(SIGNER) == f"Signer({SIGNER.key_id})"
    assert seed_of(SIGNER) not in str(vars(SIGNER))


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o601, 0o666, 0o660, 0o620])
def test_a_key_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(SIGNER.pem())
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"open to (every user of this|changes by its).* .mode {mode:o}.") as e:
        Signer.from_file(path)
    assert "chmod 600" in str(e.value)


def test_what_is_no_private_key_is_refused_and_not_quoted(tmp_path: Path) -> None:
    private = load_pem_private_key(SIGNER.pem(), None)
    locked = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
    curve = generate_private_key(SECP256R1())
    other = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    seed = seed_of(SIGNER)
    for text in ("", "secret", seed[:-1], seed + "AAAA", locked, other, SIGNER.pem().decode()[:60], "\0"):
        with pytest.raises(ConfigError, match="the place holds no Ed25519 private key") as e:
            Signer.from_text(text, where="the place")
        assert e.value.__cause__ is None
        assert len(text) < 5 or text[:8].strip("-") not in str(e.value)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Signer.from_file(tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Signer.from_file(tmp_path)


def test_a_public_key_as_base64_and_as_file(tmp_path: Path) -> None:
    public = load_pem_private_key(SIGNER.pem(), None).public_key()
    path = tmp_path / "public.pem"
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert read_public_key(SIGNER.public) == read_public_key(str(path)) == SIGNER.public
    assert len(key_id(SIGNER.public)) == 16


def test_what_is_no_public_key_is_refused(tmp_path: Path) -> None:
    private, curve, empty = tmp_path / "private", tmp_path / "curve", tmp_path / "empty"
    private.write_bytes(SIGNER.pem())
    key = generate_private_key(SECP256R1()).public_key()
    curve.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    empty.write_bytes(b"")
    for text, why in (
        (str(private), "holds a private key"),
        (str(curve), "another kind"),
        (str(empty), "no public key in PEM"),
        (SIGNER.public[:-4], "neither the base64"),
        ("/no/such/file", "neither the base64"),
        ("\0", "neither the base64"),
    ):
        with pytest.raises(ConfigError, match=why) as e:
            read_public_key(text)
        assert e.value.hint
    with pytest.raises(ConfigError, match="not the base64"):
        Verifier(("x",))


@pytest.mark.parametrize(
    ("keys", "allow_unsigned", "unsigned", "signed", "by_another"),
    [
        ((), None, True, True, True),
        ((), True, True, True, True),
        ((), False, False, False, False),
        ((SIGNER.public,), None, False, True, False),
        ((SIGNER.public,), False, False, True, False),
        ((SIGNER.public,), True, True, True, False),
        ((OTHER.public, SIGNER.public), None, False, True, True),
    ],
)
def test_what_is_loaded(
    keys: tuple[str, ...], allow_unsigned: bool | None, unsigned: bool, signed: bool, by_another: bool
) -> None:
    verifier = Verifier(keys, allow_unsigned)
    again = Verifier.from_dict(json.loads(json.dumps(verifier.to_dict())))
    assert again == verifier
    foreign = INFO | {"signature": OTHER.sign(INFO, pipeline="churn")}
    for info, loaded, signer in ((INFO, unsigned, None), (SIGNED, signed, SIGNER), (foreign, by_another, OTHER)):
        if loaded:
            known = signer.key_id if signer and keys else None
            assert again.check(info, pipeline="churn") == known
        else:
            with pytest.raises(UntrustedArtifact, match=r"the model of churn \(aaaaaaaaaaaa\)") as e:
                again.check(info, pipeline="churn")
            assert e.value.hint


def test_a_signature_fits_one_model_only() -> None:
    verifier = Verifier((SIGNER.public,))
    for info, pipeline, key in (
        (SIGNED | {"digest": "b" * 64}, "churn", None),
        (SIGNED | {"format": "joblib"}, "churn", None),
        (SIGNED | {"bytes": 13}, "churn", None),
        (SIGNED | {"bytes": 12.0}, "churn", None),
        (SIGNED, "fraud", None),
        (SIGNED, "churn", "LGA"),
        (SIGNED, None, None),
    ):
        with pytest.raises(UntrustedArtifact, match="not that of this file, format, pipeline and key"):
            verifier.check(info, pipeline=pipeline, key=key)
    # What a model was made with is not part of it.
    assert verifier.check(SIGNED | {"environment": {"python": "9"}}, pipeline="churn") == SIGNER.key_id


def test_a_training_whose_model_could_not_be_loaded_does_not_begin() -> None:
    Verifier().check_signer(None)
    Verifier().check_signer(SIGNER)
    Verifier((OTHER.public,), allow_unsigned=True).check_signer(None)
    Verifier((OTHER.public, SIGNER.public)).check_signer(SIGNER)
    with pytest.raises(ConfigError, match="no key to sign with"):
        Verifier((OTHER.public,)).check_signer(None)
    with pytest.raises(ConfigError, match=f"key {SIGNER.key_id}, which is not among") as e:
        Verifier((OTHER.public,)).check_signer(SIGNER)
    assert SIGNER.public in e.value.hint


def test_evidence_is_what_a_bundle_needs() -> None:
    found = Verifier((OTHER.public, SIGNER.public)).evidence(SIGNED, pipeline="churn")
    assert found["public_key"] == SIGNER.public
    assert found["statement"].encode() == statement(INFO, pipeline="churn")
    assert {k: found[k] for k in ("key", "value")} == SIGNED["signature"]

"""Ed25519 signatures of models: what is signed, with which key, and whose signatures count."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from airflow_mlops.exceptions import ConfigError, UntrustedArtifact
from airflow_mlops.store.content import canonical_json

# What is signed begins with this: a signature made for another purpose, or another version of the statement, is none.
_DOMAIN = b"airflow-mlops model, statement version 1\n"
_NEW_KEY = "make one with `airflow mlops keys new`"


def statement(info: dict[str, Any], *, pipeline: str | None, key: str | None = None) -> bytes:
    """Return the bytes that are signed: which file it is, how it is to be read, and whose model it is.

    :param info: model info of a version's record, with ``digest``, ``format`` and ``bytes``; of a model in a pack
        also ``prepare`` (its own info, or None): which preparation goes before the model is signed with it. In which
        pack it lies is not said.
    :param key: the model's key within a fleet.
    """
    said = {name: info[name] for name in ("digest", "format", "bytes")}
    if info["format"] == "pack":
        said["prepare"] = info["prepare"] and info["prepare"]["digest"]
    return _DOMAIN + canonical_json({**said, "pipeline": pipeline, "key": key})


def key_id(public: str) -> str:
    """Return the short name of a public key (base64): 16 hex digits of its sha256."""
    return hashlib.sha256(base64.b64decode(public)).hexdigest()[:16]


class Signer:
    """A private key; shows nothing of itself but its public half.

    :param private: the key; see :meth:`from_text`, :meth:`from_file` and :meth:`generate`.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = base64.b64encode(private.public_key().public_bytes_raw()).decode()
        self.key_id = key_id(self.public)

    def __repr__(self) -> str:
        return f"Signer({self.key_id})"

    @classmethod
    def generate(cls) -> Signer:
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_text(cls, text: str, *, where: str) -> Signer:
        """Read a private key: PEM (PKCS 8, without a passphrase), or the base64 of its 32 bytes.

        :param where: what the message calls the place it was read from.
        :raises ConfigError: it is no such key; the message shows nothing of it.
        """
        try:
            if "-----BEGIN" in text:
                private = load_pem_private_key(text.encode(), password=None)
                if isinstance(private, Ed25519PrivateKey):
                    return cls(private)
            else:
                return cls(Ed25519PrivateKey.from_private_bytes(base64.b64decode(text.strip(), validate=True)))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The cause is left out: what a parser says may quote what it read.
            pass
        raise ConfigError(
            f"{where} holds no Ed25519 private key without a passphrase (PEM, or the base64 of 32 bytes)", hint=_NEW_KEY
        ) from None

    @classmethod
    def from_file(cls, path: str | Path) -> Signer:
        """Read a private key file that not everybody may read, and nobody else may write.

        :raises ConfigError: it is not there, open to others, or no such key.
        """
        path = Path(path).expanduser()
        try:
            with path.open(encoding="ascii", errors="replace") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read(1 << 16)
        except OSError as e:
            raise ConfigError(f"the signing key {path} cannot be read: {e.strerror}", hint=_NEW_KEY) from e
        # A group may read it: so Kubernetes mounts a secret for the user of a pod (fsGroup).
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            whom = "every user of this machine" if mode & stat.S_IRWXO else "changes by its group"
            raise ConfigError(
                f"the signing key {path} is open to {whom} (mode {mode:o})",
                hint=f"chmod 600 {path}; if others have access to this machine, make a new key",
            )
        return cls.from_text(text, where=str(path))

    def pem(self) -> bytes:
        """Return the private key as PEM, for its file."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, info: dict[str, Any], *, pipeline: str, key: str | None = None) -> dict[str, str]:
        """Return ``{"key": key id, "value": base64}``, to go into the model info as ``signature``."""
        return self.sign_statement(statement(info, pipeline=pipeline, key=key))

    def sign_statement(self, said: bytes) -> dict[str, str]:
        """Return ``{"key": key id, "value": base64}`` for ``said``, which begins with what it is a statement of."""
        return {"key": self.key_id, "value": base64.b64encode(self._private.sign(said)).decode()}


def read_public_key(text: str) -> str:
    """Return a public key as base64.

    :param text: base64 of its 32 bytes, or the path of a PEM file.
    :raises ConfigError: it is neither.
    """
    if _is_key(text):
        return base64.b64encode(base64.b64decode(text)).decode()
    path = Path(text).expanduser()
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as e:
        raise ConfigError(
            f"the trusted key {text!r} is neither the base64 of an Ed25519 public key (44 characters) nor a file that "
            "can be read",
            hint="`airflow mlops keys show FILE` prints the public key",
        ) from e
    if b"PRIVATE KEY" in content:
        raise ConfigError(
            f"the trusted key file {path} holds a private key, which whoever only loads models must not have",
            hint=f"put the public key there instead: `airflow mlops keys show {path}` prints it",
        )
    try:
        public = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise ConfigError(f"the trusted key file {path} holds no public key in PEM", hint=_NEW_KEY) from e
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(f"the trusted key file {path} holds a key of another kind than Ed25519", hint=_NEW_KEY)
    return base64.b64encode(public.public_bytes_raw()).decode()


@dataclass(frozen=True)
class Verifier:
    """Which models may be loaded, by who signed them.

    :param keys: public keys whose signatures count, base64.
    :param allow_unsigned: whether models without a signature are loaded; None: only while there is no key.
    :param allow_pickle: whether files that can run code (pickle, joblib) are loaded where they are signed.
    """

    keys: tuple[str, ...] = ()
    allow_unsigned: bool | None = None
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        bad = [text for text in self.keys if not _is_key(text)]
        if bad:
            raise ConfigError(f"{bad[0]!r} is not the base64 of an Ed25519 public key", hint=_NEW_KEY)

    @property
    def signed_only(self) -> bool:
        """Whether every model must be signed."""
        return bool(self.keys) if self.allow_unsigned is None else not self.allow_unsigned

    def trusting(self, public: str) -> Verifier:
        """Return a verifier that also takes signatures of this key."""
        return Verifier((*self.keys, public), self.allow_unsigned, self.allow_pickle)

    def check(self, info: dict[str, Any], *, pipeline: str | None, key: str | None = None) -> str | None:
        """Verify the signature in ``info``; the file's digest must have been verified before.

        :return: id of the key that signed; None where the model may be loaded without a valid signature.
        :raises UntrustedArtifact: it must be signed and is not, or its signature is wrong.
        """
        name = f"the model of {pipeline}{'' if key is None else f'[{key}]'} ({str(info['digest'])[:12]})"
        return self.check_statement(
            info.get("signature"),
            lambda: statement(info, pipeline=pipeline, key=key),
            name=name,
            of="file, format, pipeline and key",
            again="where it is trained and train again",
            changed="its record or its file was changed after it was signed: train again, or restore the store",
        )

    def check_statement(
        self, signature: Any, said: Callable[[], bytes], *, name: str, of: str, again: str, changed: str
    ) -> str | None:
        """Verify a signature of any statement.

        :param signature: what :meth:`Signer.sign_statement` returned, or whatever stands in its place.
        :param said: gives the statement; called only where there is a signature to verify.
        :param name: what messages call what is signed; ``of``: what the statement says about it.
        :param again: how to have it signed; ``changed``: what to do where the signature is wrong.
        :return: id of the key that signed; None where it may be used without a valid signature.
        :raises UntrustedArtifact: it must be signed and is not, or its signature is wrong.
        """
        if signature is None or not self.keys:
            if not self.signed_only:
                return None
            raise UntrustedArtifact(
                f"{name} is not signed" if signature is None else f"{name} is signed, but no key is trusted",
                hint=f"set [mlops] signing_key_file {again}"
                if self.keys
                else "set [mlops] trusted_keys; `airflow mlops keys new` makes a key",
            )
        known = {key_id(public): public for public in self.keys}
        signed_by = signature.get("key") if isinstance(signature, dict) else None
        if not isinstance(signed_by, str) or signed_by not in known:
            raise UntrustedArtifact(
                f"{name} is signed with a key that is not trusted",
                hint=f"trusted are {', '.join(known)}; if you know who signed it, add that key to [mlops] trusted_keys",
            )
        try:
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(known[signed_by]))
            public.verify(base64.b64decode(signature["value"], validate=True), said())
        except (InvalidSignature, KeyError, TypeError, ValueError) as e:
            raise UntrustedArtifact(f"the signature of {name} is not that of this {of}", hint=changed) from e
        return signed_by

    def evidence(self, info: dict[str, Any], *, pipeline: str, key: str | None = None) -> dict[str, str]:
        """Return all it takes to verify a signature that :meth:`check` found valid, without this package.

        :return: ``{"statement", "public_key", "key", "value"}``: what was signed, as text; the others in base64.
        """
        public = {key_id(public): public for public in self.keys}[info["signature"]["key"]]
        said = statement(info, pipeline=pipeline, key=key).decode()
        return {"statement": said, "public_key": public, **info["signature"]}

    def check_signer(self, signer: Signer | None) -> None:
        """Refuse to begin a training whose model could not be loaded afterwards.

        :raises ConfigError: models must be signed, and there is no key here, or one that is not trusted.
        """
        if self.signed_only and (signer is None or signer.public not in self.keys):
            raise ConfigError(
                "models must be signed here, and there is no key to sign with"
                if signer is None
                else f"models are signed with the key {signer.key_id}, which is not among [mlops] trusted_keys",
                hint="set [mlops] signing_key_file or signing_key_conn_id where models are trained"
                if signer is None
                else f"add it where models are loaded: {signer.public}",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"keys": list(self.keys), "allow_unsigned": self.allow_unsigned, "allow_pickle": self.allow_pickle}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Verifier:
        """Return what :meth:`to_dict` wrote."""
        return cls(tuple(values["keys"]), values["allow_unsigned"], values["allow_pickle"])


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False

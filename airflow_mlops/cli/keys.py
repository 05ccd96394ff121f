"""``airflow mlops keys``: the keys that models are signed with."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.exceptions import ConfigError


@clear_errors
def new(args: Namespace) -> None:
    """Write a new private key to a file of its own, and say what to configure."""
    from airflow_mlops.registry.signing import Signer

    path = Path(args.out).expanduser().absolute()
    signer = Signer.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as e:
        raise ConfigError(
            f"{path} is there already; a key is never written over",
            hint="choose another file with -o, or look at this one with `airflow mlops keys show`",
        ) from e
    except OSError as e:
        raise ConfigError(f"{path} cannot be written: {e.strerror}", hint="choose another file with -o") from e
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(signer.pem())
    except OSError as e:
        path.unlink()
        raise ConfigError(f"{path} cannot be written: {e.strerror}", hint="choose another file with -o") from e
    print(f"private key  {path} (mode 600; keep it secret)")
    _print_key(signer.public)
    print("\nWhere models are trained, in the section [mlops] of airflow.cfg:")
    print(f"signing_key_file = {path}")
    print("or signing_key_conn_id = a connection whose password is the file's content.")
    print("\nOn every worker, for models are loaded to be judged and to predict:")
    print(f"trusted_keys = {signer.public}")
    print("\nFrom then on models without a signature are not loaded; allow_unsigned = True")
    print("lets them through until all are trained again.")


@clear_errors
def show(args: Namespace) -> None:
    """Print the public key of a file, or of what is configured."""
    from airflow_mlops.registry.signing import Signer, read_public_key

    if args.file:
        path = Path(args.file).expanduser()
        try:
            private = b"PRIVATE KEY" in path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
            raise ConfigError(f"there is no file {path}", hint="make a key with `airflow mlops keys new`") from e
        _print_key(Signer.from_file(path).public if private else read_public_key(str(path)))
        return
    from airflow_mlops.hooks.mlops import MLOpsHook

    hook = MLOpsHook()
    signer, verifier = hook.signer(), hook.verifier()
    print("Models trained here are signed with" if signer else "Models trained here are not signed.")
    if signer:
        _print_key(signer.public)
    print("Signatures that count here:" if verifier.keys else "No key is trusted here.")
    for public in verifier.keys:
        _print_key(public)
    print(f"Models without a signature are {'refused' if verifier.signed_only else 'loaded'}.")
    print(f"Signed pickle and joblib files are {'loaded' if verifier.allow_pickle else 'refused'}.")
    if signer:
        verifier.check_signer(signer)


def _print_key(public: str) -> None:
    from airflow_mlops.registry.signing import key_id

    print(f"public key   {public}\nkey id       {key_id(public)}")

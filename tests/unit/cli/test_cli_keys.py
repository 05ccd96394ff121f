from __future__ import annotations

import errno
import json
import os
import stat
from argparse import Namespace
from pathlib import Path

import pytest

from airflow_mlops.cli import keys
from airflow_mlops.registry.signing import Signer, Verifier

KEYS = ("SIGNING_KEY_FILE", "SIGNING_KEY_CONN_ID", "TRUSTED_KEYS", "ALLOW_UNSIGNED", "ALLOW_PICKLE", "MLOPS_CONN_ID")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(f"AIRFLOW__MLOPS__{name}", raising=False)


def test_a_new_key(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    keys.new(Namespace(out=str(path)))
    out = capsys.readouterr().out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    signer = Signer.from_file(path)
    for line in (f"key id       {signer.key_id}", f"signing_key_file = {path}", f"trusted_keys = {signer.public}"):
        assert line in out.splitlines()
    assert path.read_text().splitlines()[1] not in out
    assert max(len(line) for line in out.replace(str(tmp_path), "").splitlines()) <= 80
    # What is printed is what configures it.
    settings = dict(
        line.split(" = ") for line in out.splitlines() if line.split(" = ")[0] in (k.lower() for k in KEYS[::2])
    )
    for name, value in settings.items():
        monkeypatch.setenv(f"AIRFLOW__MLOPS__{name.upper()}", value)
    keys.show(Namespace(file=None))
    shown = capsys.readouterr().out
    assert shown.count(f"public key   {signer.public}") == 2
    assert "Models without a signature are refused." in shown
    assert "Signed pickle and joblib files are refused." in shown


def test_a_key_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key.pem"
    path.write_text("mine")
    link = tmp_path / "link.pem"
    link.symlink_to(tmp_path / "not there")
    for there in (path, link):
        with pytest.raises(SystemExit):
            keys.new(Namespace(out=str(there)))
        assert "never written over" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert not (tmp_path / "not there").exists()
    with pytest.raises(SystemExit):
        keys.new(Namespace(out=str(tmp_path / "no" / "folder")))
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, mode: str) -> None:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "key.pem"
    with monkeypatch.context() as patch:
        patch.setattr(keys.os, "fdopen", full)
        with pytest.raises(SystemExit):
            keys.new(Namespace(out=str(path)))
    assert f"{path} cannot be written: No space left on device" in capsys.readouterr().err
    assert not path.exists()
    keys.new(Namespace(out=str(path)))


def test_a_file_that_may_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(SystemExit) as ended:
        keys.show(Namespace(file=str(tmp_path / "key.pem")))
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert (
        said
        == f"airflow mlops: {tmp_path}/key.pem: Permission denied\n  What to do: check the path, and the rights on it\n"
    )


def test_show_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.new(Namespace(out=str(tmp_path / "key.pem")))
    signer = Signer.from_file(tmp_path / "key.pem")
    capsys.readouterr()
    keys.show(Namespace(file=str(tmp_path / "key.pem")))
    out = capsys.readouterr().out
    assert out == f"public key   {signer.public}\nkey id       {signer.key_id}\n"
    for text in ("", "-----BEGIN PRIVATE KEY-----\nsecretsecret\n-----END PRIVATE KEY-----\n"):
        (tmp_path / "bad.pem").write_text(text)
        (tmp_path / "bad.pem").chmod(0o600)
        with pytest.raises(SystemExit):
            keys.show(Namespace(file=str(tmp_path / "bad.pem")))
        assert "secretsecret" not in capsys.readouterr().err
    with pytest.raises(SystemExit):
        keys.show(Namespace(file=str(tmp_path / "none.pem")))
    assert "there is no file" in capsys.readouterr().err


def test_show_says_where_keys_do_not_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    signer, other = Signer.generate(), Signer.generate()
    password = signer.pem().decode()
    monkeypatch.setenv("AIRFLOW_CONN_SIGNING", json.dumps({"conn_type": "generic", "password": password}))
    monkeypatch.setenv("AIRFLOW__MLOPS__SIGNING_KEY_CONN_ID", "signing")
    keys.show(Namespace(file=None))
    out = capsys.readouterr().out
    assert "No key is trusted here." in out
    assert "Models without a signature are loaded." in out
    monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_KEYS", other.public)
    with pytest.raises(SystemExit):
        keys.show(Namespace(file=None))
    err = capsys.readouterr().err
    assert f"{signer.key_id}, which is not among" in err
    assert password.splitlines()[1] not in err


def test_the_hook_reads_keys_and_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.exceptions import ConfigError
    from airflow_mlops.hooks.mlops import MLOpsHook

    one, two = Signer.generate(), Signer.generate()
    assert (MLOpsHook().signer(), MLOpsHook().verifier()) == (None, Verifier())
    monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_KEYS", f" {one.public}, {two.public} ,")
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_UNSIGNED", "true")
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_PICKLE", "True")
    assert MLOpsHook().verifier() == Verifier((one.public, two.public), allow_unsigned=True, allow_pickle=True)
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_UNSIGNED", "maybe")
    with pytest.raises(ConfigError, match="allow_unsigned is 'maybe'"):
        MLOpsHook().verifier()
    monkeypatch.setenv("AIRFLOW_CONN_EMPTY", json.dumps({"conn_type": "generic"}))
    monkeypatch.setenv("AIRFLOW__MLOPS__SIGNING_KEY_CONN_ID", "empty")
    with pytest.raises(ConfigError, match="'empty' has no password"):
        MLOpsHook().signer()
    monkeypatch.setenv("AIRFLOW__MLOPS__SIGNING_KEY_FILE", str(tmp_path / "key.pem"))
    with pytest.raises(ConfigError, match="both set"):
        MLOpsHook().signer()


def test_a_key_of_a_connection_is_masked_in_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.log import redact

    from airflow_mlops.hooks.mlops import MLOpsHook

    password = Signer.generate().pem().decode()
    monkeypatch.setenv("AIRFLOW_CONN_SIGNING", json.dumps({"conn_type": "generic", "password": password}))
    monkeypatch.setenv("AIRFLOW__MLOPS__SIGNING_KEY_CONN_ID", "signing")
    MLOpsHook().signer()
    assert password.splitlines()[1] not in str(redact(f"it is {password.splitlines()[1]}"))


def test_airflow_offers_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    from airflow.cli.cli_parser import get_parser

    parsed = get_parser().parse_args(["mlops", "keys", "new"])
    assert parsed.out == "mlops_signing_key.pem"
    assert get_parser().parse_args(["mlops", "keys", "show"]).file is None

"""A bare repository as the remote, and bundles to deliver through it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from airflow_mlops.delivery.bundle import Bundle, pack, read_bundle
from airflow_mlops.delivery.deployment import Request, Target
from airflow_mlops.delivery.remote import Remote
from airflow_mlops.delivery.tree import TreeFile
from airflow_mlops.registry.signing import Signer, Verifier
from tests.unit.delivery.small_project import FILES

COMMIT = "1" * 40


def bare(folder: Path) -> Path:
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder)], check=True)
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def packed(text: str, *, commit: str = COMMIT, project: str = "crm", signer: Signer | None = None) -> bytes:
    """The bytes of a bundle whose one difference is ``text``."""
    files = {path: TreeFile(content.encode()) for path, content in FILES.items()}
    files["notes.txt"] = TreeFile(text.encode(), executable=True)
    files['odd "name" ü.txt'] = TreeFile(b"\r\n\x00")
    return pack(files, project=project, commit=commit, packages={}, signer=signer)


def bundle(text: str, **more: object) -> Bundle:
    return read_bundle(packed(text, **more), verifier=Verifier())  # type: ignore[arg-type]


def targets(remote: Path) -> tuple[Target, Target]:
    """Staging, and production after it."""
    staging = Target(Remote(str(remote)), "crm", "staging", "deploy/staging")
    return staging, Target(Remote(str(remote)), "crm", "production", "deploy/production", staging)


def asked(what: str, **more: object) -> Request:
    return Request(by="ana", operation=hashlib.sha256(what.encode()).hexdigest(), **more)  # type: ignore[arg-type]

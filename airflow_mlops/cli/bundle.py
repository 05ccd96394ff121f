"""``airflow mlops bundle``: what a bundle of a project is, once it has been checked."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.config.harmless import harmless


@clear_errors
def verify(args: Namespace) -> None:
    """Check a bundle's bytes and signature and say what it is; nothing in it is written, imported or run."""
    from airflow_mlops.delivery.bundle import read_bundle, unpack
    from airflow_mlops.hooks.mlops import MLOpsHook

    bundle = read_bundle(Path(args.file), verifier=MLOpsHook().verifier(), digest=args.digest)
    if args.unpack:
        unpack(bundle, Path(args.unpack))
    manifest = bundle.manifest
    if args.output == "json":
        print(json.dumps({"digest": bundle.digest, "signed_by": bundle.signed_by, **manifest}, indent=2))
        return
    size = sum(len(file.content) for file in bundle.files.values())
    state = " with uncommitted changes" if manifest["uncommitted"] else ""
    lines = {
        "bundle": f"{args.file}, {len(bundle.files)} files, {size:,} bytes",
        "sha256": bundle.digest,
        "content": bundle.content,
        "project": str(manifest["project"]),
        "commit": f"{manifest['commit']}{state}",
        "built with": f"Python {manifest['python']}, {len(manifest['packages'])} packages",
        "signed by": bundle.signed_by or "nobody that is trusted here; [mlops] trusted_keys would ask for it",
    }
    for label, text in lines.items():
        print(harmless(f"{label:<11} {text}"))
    if args.unpack:
        print(harmless(f"unpacked to {args.unpack}"))

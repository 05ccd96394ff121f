"""``airflow mlops upgrade``: files of an older schema version, rewritten in place."""

from __future__ import annotations

import codecs
import difflib
import sys
from argparse import Namespace
from pathlib import Path

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.config.text import read_text
from airflow_mlops.config.upgrade import CURRENT, upgraded
from airflow_mlops.config.writing import write_whole
from airflow_mlops.exceptions import ConfigError


@clear_errors
def upgrade(args: Namespace) -> None:
    """Rewrite each file that needs it; one that cannot be read does not keep the others from it."""
    changed = failed = 0
    for path in map(Path, args.files):
        try:
            old = read_text(path)
            new = upgraded(old, str(path))
            if new == old:
                continue
            if args.check:
                print(_diff(str(path), old, new))
            else:
                mark = codecs.BOM_UTF8 if path.read_bytes().startswith(codecs.BOM_UTF8) else b""
                write_whole(path, mark + new.encode())
                print(f"{path}: now schema {CURRENT}")
            changed += 1
        except ConfigError as e:
            print(e, file=sys.stderr)
            failed += 1
    count = len(args.files)
    told = f"{changed} of {count} {'file' if count == 1 else 'files'} {'would change' if args.check else 'changed'}"
    print(told + (f", {failed} cannot be read or written" if failed else ""))
    if failed or (args.check and changed):
        raise SystemExit(1)


def _diff(name: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), name, f"{name} (schema {CURRENT})", lineterm="")
    return "\n".join(lines)

"""The commands of docs/how-to/level-0-to-2.md that need no Airflow, as the page has them and in its order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mlops.cli.definition import get_mlops_cli_commands

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "level-0-to-2.md"
FAST = ("new", "lint", "plan", "new-project", "keys")
ELSEWHERE = re.compile(r"(PYTHONPATH=\S+ )?airflow |\./up|\./down|~/afternoon/(up|down)|unzip |\(cd model|public=")
"""Begins what needs an Airflow, a model, or minutes; the page's writer has run it."""


def statements() -> Iterator[str]:
    """Every statement of the page's shell blocks: a line, with what continues it, or a file that it writes."""
    for block in re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        found: list[str] = []
        ends = True
        for line in block.splitlines():
            found = [line] if ends else [*found, line]
            text = "\n".join(found)
            ends = line == "END" if "<<" in text else not line.endswith("\\")
            if re.match(r"(for|while) ", found[0]) and not re.search(r"^done|; done$", text, re.MULTILINE):
                ends = False
            if ends:
                yield text


def mlops(words: list[str]) -> None:
    """``airflow mlops WORDS``, in this process."""
    (group,) = get_mlops_cli_commands()
    (command,) = (c for c in group.subcommands if c.name == words[0])
    words = words[1:]
    if hasattr(command, "subcommands"):
        (command,) = (c for c in command.subcommands if c.name == words[0])
        words = words[1:]
    parser = ArgumentParser()
    for argument in command.args:
        argument.add_to_parser(parser)
    code: object = 0
    try:
        command.func(parser.parse_args(words))
    except SystemExit as e:
        code = e.code
    assert not code, words


def test_files_and_fast_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AIRFLOW__MLOPS__")]:
        monkeypatch.delenv(name)
    who = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for name, value in {**who, "GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(tmp_path), "public": "KEY"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    top, done = tmp_path / "afternoon", []
    for statement in statements():
        words = shlex.split(statement, comments=True)
        if words[:2] == ["airflow", "mlops"] and words[2] in FAST:
            mlops([str(tmp_path / word[2:]) if word.startswith("~/") else word for word in words[2:]])
            done.append(words[2])
            continue
        if ELSEWHERE.match(statement):
            continue
        ended = subprocess.run(
            ["bash", "-ec", f"{statement}\nprintf '\\0%s\\0' \"$PWD\"; env -0"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, (statement, ended.stderr)
        _, here, *after = ended.stdout.split("\0")
        monkeypatch.chdir(here)
        for name, _, value in (each.partition("=") for each in after):
            if name.startswith("AIRFLOW__MLOPS__"):
                monkeypatch.setenv(name, value)
    assert set(done) == set(FAST)
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", "features")  # as the settings of the two Airflows have it
    mlops(["lint", str(top / "crm")])
    assert "level: 2" in (top / "crm" / "pipelines" / "churn.yaml").read_text()
    assert "calls_per_visit" in (top / "crm" / "features" / "churn.py").read_text()

"""A project from nothing to a report, by the commands of its own README and the command line as it is."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call it with a script and a folder."""
    (tmp_path / "bin").mkdir()
    for name, module in (("airflow", "airflow"), ("python", "")):
        script = tmp_path / "bin" / name
        call = shlex.join([sys.executable, *(["-m", module] if module else [])])
        script.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        script.chmod(0o755)
    # Whatever a README exports, this checkout is what runs.
    site = tmp_path / "site" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "GIT_"))}
    env = own | {
        "PATH": f"{tmp_path / 'bin'}:{own['PATH']}",
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "PYTHONPATH": str(site.parent),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def run(script: str, folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["sh", "-ec", script], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == code, f"{script}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def test_the_readme_of_a_new_project(shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    shell("airflow mlops new-project crm", tmp_path)
    folder = tmp_path / "crm"
    blocks = re.findall(r"^```bash\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    first, training, branch, change = blocks
    assert "3 passed" in shell(first, folder).stdout
    told = shell(training.replace("PYTHONPATH=$PWD", 'PYTHONPATH="$PWD:$PYTHONPATH"'), folder).stdout
    assert "verdict: no_baseline; nothing was registered" in told

    # In the change the reader's own hand is this one's: a column more, and a schedule.
    shell(branch, folder)
    features = folder / "features" / "churn.py"
    more = '    made["calls_per_visit"] = frame["support_calls"] / frame["visits"]\n    return made'
    features.write_text(features.read_text().replace("    return made", more))
    pipeline = folder / "pipelines" / "churn.yaml"
    pipeline.write_text(pipeline.read_text().replace("level: 1\n", 'level: 1\ndeploy: {batch: {schedule: "@daily"}}\n'))
    change = change.rstrip() + " --junit junit.xml --bundle bundle.zip --output json"
    done = shell(change, folder)

    assert [line.split()[1].strip(",") for line in done.stderr.splitlines() if " s: " in line] == ["passed"] * 6
    # Git says on standard output what it has committed; the rest is the JSON alone.
    found = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert [(stage["name"], stage["status"]) for stage in found["stages"]] == [
        (name, "passed") for name in ("lint", "test", "build", "train", "gates", "contract")
    ]
    assert found["changes"] == [
        {
            "pipeline": "churn",
            "what": "configuration, features/churn.py",
            "config": True,
            "code": ["features/churn.py"],
        }
    ]
    (tried,) = found["pipelines"]
    assert [(m["name"], m["verdict"]) for m in tried["comparison"]["metrics"]] == [
        ("roc_auc", "better"),
        ("log_loss", "better"),
    ]
    assert [gate["verdict"] for gate in tried["gates"]] == ["passed", "passed"]
    assert tried["contract"]["problems"] == []

    report = (folder / "report.md").read_text()
    for line in (
        "# ✅ Pipelines of crm: all stages passed",
        "- `churn`: configuration, `features/churn.py`",
        "| `deploy.batch.schedule` | – | `@daily` | all |",
        "- Features of the model: `+ calls_per_visit (number)` (5).",
        "- Training and prediction make the same features of 200 rows.",
    ):
        assert line in report.splitlines()
    assert report.count("```mermaid") == 2
    suites = ElementTree.parse(folder / "junit.xml").getroot()
    assert [suite.attrib["failures"] for suite in suites] == ["0"] * 6
    verified = json.loads(shell("airflow mlops bundle verify bundle.zip --output json", folder).stdout)
    assert verified["digest"] == found["bundle"]["digest"]
    assert verified["commit"] == found["commit"]
    assert "features/churn.py" in verified["files"]
    assert shell("git status --porcelain", folder).stdout == ""

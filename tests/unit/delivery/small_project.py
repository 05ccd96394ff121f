"""A small project in a git repository, made of texts."""

from __future__ import annotations

import subprocess
from pathlib import Path

CHURN = """\
pipeline: churn
level: 1
extends: base.yaml
data: {source: customers.csv, target: churned, positive: 1, id: customer_id}
features: {callable: "signals.churn:build"}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, at_least: 0.6}]}
retrain: {schedule: "@weekly"}
"""
FEATURES = """\
from signals.shared import ratio

def build(frame):
    return frame[["visits", "support_calls"]].assign(spend=ratio(frame, "spend", "visits"))
"""
FILES = {
    "pipelines/base.yaml": "owner: crm\nenvironments: {staging: {}, production: {}}\n",
    "pipelines/churn.yaml": CHURN,
    "signals/__init__.py": "",
    "signals/churn.py": FEATURES,
    "signals/shared.py": "def ratio(frame, a, b):\n    return frame[a] / frame[b]\n",
    "signals/unused.py": "x = 1\n",
    "loader.py": "# airflow dag\nfrom airflow_mlops import load_dags\nglobals().update(load_dags('pipelines'))\n",
    ".gitignore": "data/\nignored.txt\n",
}


class Project:
    """A folder with files, and git in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, **files: str | None) -> None:
        for path, text in files.items():
            target = self.folder / path
            if text is None:
                target.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(self.folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, **files: str | None) -> str:
        self.write(**files)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change", "--allow-empty")
        return self.git("rev-parse", "HEAD")

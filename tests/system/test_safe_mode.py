"""The README's loader, byte for byte, through a dag processor in safe mode; a bad file beside good ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_loader_is_found_and_shows_the_bad_file(shared_airflow: Any) -> None:
    blocks = re.findall(r"^```(python|yaml)\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (loader,) = [text for language, text in blocks if language == "python" and "load_dags" in text]
    smallest = next(text for language, text in blocks if language == "yaml")
    files = {"churn.yaml": smallest, "bad.yaml": "pipeline: bad\nlevel: zero\n"}
    folder: Path = shared_airflow.pipelines("safe_mode", files, loader)
    live = shared_airflow.live
    live.wait_for_dags("churn__train", "bad__invalid")
    where = str(folder.parent.relative_to(shared_airflow.dags))
    found = live.get("dags", limit=1000, exclude_stale=True)["dags"]
    assert {dag["dag_id"] for dag in found if where in dag["relative_fileloc"]} == {
        "churn__train", "churn__predict", "churn__registry", "bad__invalid",
    }  # fmt: skip
    assert live.import_errors() == {}

"""Put the data of ``dags/pipelines/breast_cancer.yaml`` below ``[mlops] data_root``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from airflow_mlops.demo.data import prepare_breast_cancer
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.hooks.mlops import MLOpsHook


def main() -> int:
    """Write the files; returns the exit code."""
    hook = MLOpsHook()
    try:
        files = hook.files()
        with tempfile.TemporaryDirectory() as folder:
            prepare_breast_cancer(Path(folder))
            for path in sorted(Path(folder).iterdir()):
                with files.open_output(path.name) as out:
                    out.write(path.read_bytes())
                print(f"{hook.data_root}/{path.name}")
    except MLOpsError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

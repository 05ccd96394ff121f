from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ["fastapi", "starlette", "pandas", "numpy", "sklearn", "pyarrow", "boto3", "great_expectations", "evidently"]


def test_importing_the_plugin_is_cheap_and_its_app_comes_on_first_access() -> None:
    code = (
        "import json, sys\n"
        "from airflow_mlops.plugins.plugin import MLOpsPlugin\n"
        "plugin = MLOpsPlugin()\n"
        f"before = [m for m in {HEAVY} if m in sys.modules]\n"
        "apps = plugin.fastapi_apps\n"
        f"after = [m for m in {HEAVY} if m in sys.modules]\n"
        "same = apps is plugin.fastapi_apps\n"
        "print(json.dumps([before, after, same, apps[0]['url_prefix'], sorted(apps[0])]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after, same, prefix, keys = json.loads(out.splitlines()[-1])
    assert before == []
    assert "fastapi" in after
    assert not {"pandas", "numpy", "sklearn", "pyarrow", "boto3"} & set(after)
    assert same
    assert prefix == "/mlops"
    assert keys == ["app", "name", "url_prefix"]


def test_airflow_takes_the_class_for_a_plugin() -> None:
    from airflow._shared.plugins_manager import is_valid_plugin

    from airflow_mlops.plugins.plugin import MLOpsPlugin

    assert is_valid_plugin(MLOpsPlugin)
    assert MLOpsPlugin.name == "mlops"


def test_the_keys_of_a_fleet_bring_no_model_library_into_the_server() -> None:
    """The first page of a fleet would wait two seconds for it."""
    code = (
        "import json, sys\n"
        "import airflow_mlops.ml.fleet.alarms, airflow_mlops.ml.fleet.keys_table, airflow_mlops.ml.fleet.result\n"
        "print(json.dumps([m for m in ('pandas', 'sklearn', 'scipy', 'skops', 'pyarrow') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == ["pyarrow"]

"""What a section's ``resources`` say to Airflow's executors, checked where the DAG is built.

Airflow finds a wrong one later: an unknown executor as an error of the loader file, which takes the DAGs of all other
pipelines with it, and a wrong pod where the task should start.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import conf

from airflow_mlops.exceptions import ConfigError


def check(executor: str | None) -> None:
    """Refuse an executor that this Airflow does not have.

    :raises ConfigError: there is none of this name.
    """
    if executor is None or conf.getboolean("core", "multi_team", fallback=False):  # each team has its own
        return
    from airflow.exceptions import UnknownExecutorException
    from airflow.executors.executor_loader import ExecutorLoader

    try:
        ExecutorLoader.lookup_executor_name_by_str(executor)
    except UnknownExecutorException as e:
        raise ConfigError(
            f"`resources.executor` is {executor!r}, and this Airflow has {conf.get('core', 'executor')}",
            hint="name one of them, or add it to [core] executor",
        ) from e


def pod(override: Any) -> Any:
    """Return Kubernetes' object for a ``pod_override`` that is written as in Kubernetes' YAML.

    :raises ConfigError: it is no pod, or Airflow's provider for Kubernetes is not installed.
    """
    from airflow_mlops.config.pods import problems

    try:
        from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

        found = [message + (f"; {advice}" if advice else "") for _, message, advice in problems(override)]
    except ImportError as e:
        raise ConfigError(
            "`pod_override` needs Airflow's provider for Kubernetes, which is not installed",
            hint="pip install 'airflow-mlops[kubernetes]'",
        ) from e
    if found:
        raise ConfigError(
            "`executor_config.pod_override`: " + "; ".join(found), hint="`airflow mlops lint` shows the lines"
        )
    return PodGenerator.deserialize_model_dict(override)

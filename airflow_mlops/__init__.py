"""Machine learning on Apache Airflow: operators, and DAGs from one YAML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mlops.factory.delivery import load_delivery
    from airflow_mlops.factory.loading import load_dags
    from airflow_mlops.pipeline import Pipeline

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__", "load_dags", "load_delivery"]


def __getattr__(name: str) -> Any:
    # Lazy: Airflow imports this package while it still configures itself.
    if name == "load_dags":
        from airflow_mlops.factory.loading import load_dags

        return load_dags
    if name == "load_delivery":
        from airflow_mlops.factory.delivery import load_delivery

        return load_delivery
    if name == "Pipeline":
        from airflow_mlops.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

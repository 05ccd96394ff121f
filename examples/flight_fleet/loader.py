"""Makes the DAGs of this folder's pipelines. Airflow reads only files that name "airflow" and "dag"."""

from airflow_mlops import load_dags

globals().update(load_dags("pipelines"))

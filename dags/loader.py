# Airflow reads only files that hold the words "airflow" and "dag"; this one now does.
from airflow_mlops import load_dags

globals().update(load_dags("pipelines"))

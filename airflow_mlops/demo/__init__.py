"""The demonstration behind ``make demo``: real data, a real Airflow, two pipelines to the end."""

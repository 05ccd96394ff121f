"""Level 2: how the pipelines themselves are tested, packed and delivered. Nothing here imports Airflow."""

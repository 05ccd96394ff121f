"""``airflow mlops …``: replay the past, show what happened, print the schema of pipeline files."""

"""The library: plain functions and dataclasses over data and models. Nothing below imports Airflow."""

"""``dag``: settings of a pipeline's DAGs."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr

from airflow_mlops.config.models.base import Model
from airflow_mlops.config.types import Day, Duration, Number, TimeZone


class DefaultArgs(Model):
    """Airflow's default_args, as far as they say how tasks run and not what they do."""

    retries: Annotated[StrictInt, Field(ge=0)] | None = Field(None, description="Tries after the first; default 2.")
    retry_delay: Duration | Number | None = Field(None, description="Wait before a retry: 30s, 5m, or seconds.")
    max_retry_delay: Duration | Number | None = Field(None, description="Longest wait before a retry.")
    retry_exponential_backoff: StrictBool | None = Field(None, description="Wait longer each time; default true.")
    execution_timeout: Duration | Number | None = Field(None, description="A task that runs longer fails.")
    depends_on_past: StrictBool | None = Field(None, description="Wait for the task's success in the run before.")
    wait_for_downstream: StrictBool | None = Field(None, description="Wait for what follows it in the run before.")
    email: StrictStr | list[StrictStr] | None = Field(None, description="Airflow's mails go here.")
    email_on_failure: StrictBool | None = Field(None, description="Mail when a task fails.")
    email_on_retry: StrictBool | None = Field(None, description="Mail when a task is tried again.")
    pool: StrictStr | None = Field(None, description="Airflow pool; `resources` go before.")
    queue: StrictStr | None = Field(None, description="Queue of the executor; `resources` go before.")
    priority_weight: StrictInt | None = Field(None, description="Airflow's priority weight; `resources` go before.")
    weight_rule: Literal["downstream", "upstream", "absolute"] | None = Field(
        None, description="How Airflow sums priority weights."
    )


class Dag(Model):
    """Settings of the DAGs themselves."""

    start_date: Day = Field(date(2024, 1, 1), description="First day of the schedule.")
    end_date: Day | None = Field(None, description="No scheduled run begins after this day.")
    timezone: TimeZone = Field("UTC", description="IANA name; schedules and windows count in it.")
    catchup: StrictBool = Field(False, description="Run the intervals between start_date and now.")
    max_active_runs: Annotated[StrictInt, Field(ge=1)] = Field(1, description="Runs of one DAG at a time.")
    max_active_tasks: Annotated[StrictInt, Field(ge=1)] = Field(16, description="Tasks of one DAG at a time.")
    access_control: dict[StrictStr, Any] | None = Field(None, description="Airflow's DAG-level permissions.")
    tags: list[StrictStr] = Field(default_factory=list, description="Added to mlops, level-N and the owner.")
    default_args: DefaultArgs = Field(default_factory=DefaultArgs, description="Airflow default_args for every task.")

"""A pipeline file that cannot be used, made visible: a DAG whose page is the error."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.config.harmless import harmless, harmless_lines
from airflow_mlops.config.secrets import masked_text

_WIDTH = 56


class InvalidPipelineOperator(BaseOperator):
    """Fails with the pipeline file's errors, for whoever starts the DAG.

    :param message: the errors, as printed.
    """

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    def execute(self, context: Any) -> None:
        """Fail, without a retry, with the message."""
        raise AirflowFailException(self.message)


def _narrow(text: str) -> str:
    """``text`` for Airflow's narrow documentation page, which cuts lines; lines of the file and their carets stay."""
    lines: list[str] = []
    for line in text.splitlines():
        if " | " in line[:8] or line.strip().startswith("|"):
            lines.append(line)
        else:
            lines += textwrap.wrap(line, _WIDTH, subsequent_indent="    ", break_on_hyphens=False) or [""]
    return "\n".join(lines)


def invalid_id(name: object, file: Path, taken: Collection[str]) -> str:
    """The DAG id ``<pipeline>__invalid``, or with the file's name where it names no pipeline; none of ``taken``."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_\-.]{1,100}", name):
        name = re.sub(r"[^A-Za-z0-9_\-.]", "_", file.stem)[:100]
    numbers = itertools.count(2)
    dag_id = f"{name}__invalid"
    while dag_id in taken:
        dag_id = f"{name}-{next(numbers)}__invalid"
    return dag_id


def invalid_dag(dag_id: str, file: Path, message: str) -> DAG:
    """Return the DAG that shows ``message``, the errors of ``file`` as printed."""
    message = masked_text(harmless_lines(message))
    name, first = harmless(file.name), message.splitlines()[0].replace(f"{file.parent}/", "")
    with DAG(
        dag_id=dag_id,
        # The list of DAGs shows names and no descriptions: the first error stands in the name, and the name first.
        dag_display_name=f"! {first[:150]}",
        description=first[:500],
        doc_md=f"**`{name}` cannot be used.** Mend it; its DAGs come back, and Airflow forgets this one "
        "within some minutes.\n\n"
        f"~~~text\n{_narrow(message.replace(f'{file.parent}/', ''))}\n~~~",
        schedule=None,
        catchup=False,
        default_args={"retries": 0},
        tags={"mlops", "invalid"},
    ) as dag:
        InvalidPipelineOperator(task_id="errors", message=message, doc_md=dag.doc_md)
    return dag

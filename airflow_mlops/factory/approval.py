"""The question that a person is asked before a version takes over, and what they are shown with it."""

from __future__ import annotations

from airflow.sdk import BaseOperator

from airflow_mlops.config.models import PipelineConfig, length
from airflow_mlops.factory.step_context import StepContext

APPROVAL = "approve.ask"

APPROVAL_BODY = """\
{% set gates = ti.xcom_pull(task_ids='evaluate.gates') %}\
{% set scores = ti.xcom_pull(task_ids='evaluate.score') %}\
{% macro cell(text) %}{{ text | replace('|', '¦') | replace('\n', ' ') }}{% endmacro %}\
{% macro number(m, of) %}\
{% if m[of] is none %}–{% else %}{{ '%.4g' | format(m[of]) }}\
{% if m[of ~ '_low'] is not none and m[of ~ '_high'] is not none %}\
 ({{ '%.4g' | format(m[of ~ '_low']) }} … {{ '%.4g' | format(m[of ~ '_high']) }}){% endif %}{% endif %}\
{% endmacro %}\
**PIPELINE, version {{ gates.version }}**: {{ cell(gates.sentence) }}

{% if gates.results %}\
| gate | verdict | what was found |
|---|---|---|
{% for line in gates.results %}| {{ line.name }} | {{ line.verdict }} | {{ cell(line.sentence) }} |
{% endfor %}
{% endif %}\
{% if scores.metrics is defined %}\
| on {{ '{:,}'.format(scores.rows) }} holdout rows | this version | champion | better is |
|---|---|---|---|
{% for m in scores.metrics.values() %}| {{ m.name }} | {{ number(m, 'candidate') }} | {{ number(m, 'champion') }} | \
{{ 'lower' if m.lower_is_better else 'higher' }} |
{% endfor %}
{% endif %}\
The champion now is {{ 'version ' ~ gates.champion if gates.champion else 'none' }}. \
The gate report is linked from the task `evaluate.gates`, the data profile from `data.profile`.

**Approve** makes this version the champion. **Reject** leaves everything as it is.
"""


FLEET_BODY = """\
{% set gates = ti.xcom_pull(task_ids='evaluate.gates') %}\
**PIPELINE**: {{ '{:,}'.format(gates.deliver) }} new models may be delivered.
All keys of this run: {{ gates.sentence }}.

The gate report is linked from the task `evaluate.gates`.

**Approve** makes them the champions of their keys. **Reject** leaves everything as it is.
"""


def _approval_body(config: PipelineConfig) -> str:
    if config.fleet is not None:
        return FLEET_BODY.replace("PIPELINE", config.pipeline)
    body = APPROVAL_BODY.replace("PIPELINE", config.pipeline)
    if len(config.rollout) == 1:
        return body
    from airflow_mlops.registry.rollout import path

    begins = f"lets this version roll out ({path(config.rollout)}); the first one is champion at once."
    return body.replace("makes this version the champion.", begins)


def _subject(config: PipelineConfig) -> str:
    gates = "ti.xcom_pull(task_ids='evaluate.gates')"
    if config.fleet is not None:
        return f"Promote {{{{ {gates}['deliver'] }}}} models of {config.pipeline}?"
    return f"Promote {config.pipeline} version {{{{ {gates}['version'] }}}}?"


def ask(c: StepContext, task_id: str) -> BaseOperator:
    """The operator that asks; its answer is one of ``YES`` and ``NO`` of the promotion."""
    from airflow.providers.standard.operators.hitl import HITLOperator

    from airflow_mlops.operators.promotion import NO, YES

    approve = c.config.approve
    # Not ApprovalOperator, which skips the promotion itself after a no: then nothing would record who said it.
    return HITLOperator(
        task_id=task_id,
        subject=_subject(c.config),
        options=[YES, NO],
        body=_approval_body(c.config),
        assigned_users=[{"id": user, "name": user} for user in approve.by] or None,
        response_timeout=length(approve.timeout),
        defaults=approve.on_timeout.capitalize() if approve.timeout else None,
        # Airflow would take it for the time a person has.
        execution_timeout=None,
    )

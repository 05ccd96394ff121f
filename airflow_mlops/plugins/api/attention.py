"""What a pipeline needs now, decided by the first rule that holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from airflow_mlops.ml.history import told
from airflow_mlops.ml.standing import Standing, answered
from airflow_mlops.plugins.api.live import INVALID, Live, dag_link, run_link
from airflow_mlops.plugins.api.models import PIPELINE_ROUTE, Attention, AttentionLevel
from airflow_mlops.registry.rollout import step_name

LEVELS: tuple[AttentionLevel, ...] = ("action", "warning", "unknown", "ok")
FAILED = "failed"
UNDECIDED = ("rejected", "inconclusive")


@dataclass(frozen=True)
class Known:
    """What is known of a pipeline: by Airflow, and by the store (``None``: not read, or not readable).

    :param problem: why the store's records of this pipeline cannot be used.
    :param lost: the store as a whole does not answer.
    """

    live: Live
    standing: Standing | None
    problem: str | None = None
    lost: bool = False

    @property
    def page(self) -> str:
        """Address of the pipeline's page."""
        return pipeline_link(self.live)


_Found = tuple[str, str] | None
"""A sentence and where to look."""


def pipeline_link(live: Live) -> str:
    """Address of the pipeline's page; of a file that cannot be used, the DAG that shows its errors."""
    return f"{dag_link(live.main.dag_id)}/plugin/{PIPELINE_ROUTE}" if live.readable else dag_link(live.main.dag_id)


def _invalid(known: Known) -> _Found:
    dag = known.live.dags.get(INVALID)
    return (f"its file cannot be used: {dag.name.removeprefix('! ')}", dag_link(dag.dag_id)) if dag else None


def _damaged(known: Known) -> _Found:
    return (f"its records cannot be used: {known.problem}", known.page) if known.problem else None


def _approval(known: Known) -> _Found:
    if not known.live.approvals:
        return None
    first, more = known.live.approvals[0], len(known.live.approvals) - 1
    others = f" ({more} more)" if more else ""
    return f"waits for an answer: {first.subject}{others}", first.link


def _failed(known: Known) -> _Found:
    for suffix, what in (("train", "training"), ("monitor", "monitoring")):
        run = known.live.runs.get(suffix)
        if run is not None and run.state == FAILED:
            return f"the last {what} run failed", run_link(run.dag_id, run.run_id)
    return None


def _no_better(known: Known) -> _Found:
    one = known.standing
    if one is None or one.candidate is None or one.candidate.verdict not in UNDECIDED:
        return None
    drop = one.alarms.get("performance")
    if drop is None:
        return None
    newest = f"the newest candidate, v{one.candidate.version}, is {one.candidate.verdict}"
    return f"{told('performance', drop.result).text}, and {newest}", known.page


def _alarm(name: str) -> Callable[[Known], _Found]:
    def found(known: Known) -> _Found:
        check = known.standing.alarms.get(name) if known.standing else None
        if check is None:
            return None
        # Ages, and in how many keys of a fleet it is, are told in the sentence alone.
        one = known.standing
        if name != "staleness" and not (one and one.is_fleet):
            return told(name, check.result).text, known.page
        said, link = str(check.result.get("sentence")), known.page
        keys = one.keys_alarmed.get(name) if one else None
        if keys and keys[0]:
            link = f"{known.page}?section=models&alarmed=true"
        if since := answered(keys):
            # The keys that are named are the worst ones, which may be those that were trained. Of ages the rows' may
            # be told behind them.
            said = f"{said if name == 'staleness' else said.partition(': ')[0]}; {since}"
        return said, link

    return found


def _keys_failed(known: Known) -> _Found:
    run = known.standing.fleet if known.standing else None
    failed = ((run.states if run.carries else None) or run.counts).get("failed", 0) if run else 0
    if run is None or not failed:
        return None
    keys, when = run.keys, "the last training"
    if run.carries and run.states:
        keys, when = sum(run.states.values()), "their last training"
    return f"{failed:,} of {keys:,} keys failed in {when}", f"{known.page}?section=models&state=failed"


def _suppressed(known: Known) -> _Found:
    request = known.standing.request if known.standing else None
    # New data that comes within a cool-down is how a pipeline is meant to run.
    if request is None or request["granted"] or not set(request["reasons"]) - {"new_data"}:
        return None
    return f"a retrain because of {' and '.join(request['reasons'])} is held back: {request['sentence']}", known.page


def _no_champion(known: Known) -> _Found:
    one = known.standing
    if one is None or one.keys or one.is_fleet or one.champion is not None:
        return None
    if one.candidate is None:
        return "it was never trained", known.page
    return f"there is no champion: v{one.candidate.version} was not promoted", known.page


def _rollout(known: Known) -> _Found:
    rollout = known.standing.rollout if known.standing else None
    if rollout is None:
        return None
    return f"v{rollout.version} is rolling out: {step_name(rollout.present)}", known.page


def _unread(known: Known) -> _Found:
    if known.standing is not None:
        return None
    why = "the store does not answer" if known.lost else "it is still being read"
    return f"nobody can tell: {why}", known.page


def _fine(known: Known) -> _Found:
    one = known.standing
    calm = "no alarm" if one is not None and one.checks else "nothing has checked what it predicts"
    return f"champion v{one.champion.version}, {calm}" if one is not None and one.champion else calm, known.page


RULES: tuple[tuple[str, AttentionLevel, Callable[[Known], _Found]], ...] = (
    ("invalid", "action", _invalid),
    ("damaged", "action", _damaged),
    ("approval", "action", _approval),
    ("failed", "action", _failed),
    ("no_better", "action", _no_better),
    ("performance", "warning", _alarm("performance")),
    ("skew", "warning", _alarm("skew")),
    ("quality", "warning", _alarm("quality")),
    ("drift", "warning", _alarm("drift")),
    ("system", "warning", _alarm("system")),
    ("keys_failed", "warning", _keys_failed),
    ("suppressed", "warning", _suppressed),
    ("stale", "warning", _alarm("staleness")),
    ("no_champion", "warning", _no_champion),
    ("unread", "unknown", _unread),
    ("rollout", "ok", _rollout),
    ("ok", "ok", _fine),
)
"""``(code, level, rule)`` in their order; the first that holds decides. The last one always does."""

_ORDER = {code: number for number, (code, _, _) in enumerate(RULES)}


def attention(known: Known) -> Attention:
    """What the pipeline needs, and where to look."""
    return next(
        Attention(level=level, code=code, reason=found[0], link=found[1])
        for code, level, rule in RULES
        if (found := rule(known)) is not None
    )


def urgency(found: Attention) -> tuple[int, int]:
    """A key to sort by, the most urgent first."""
    return LEVELS.index(found.level), _ORDER[found.code]

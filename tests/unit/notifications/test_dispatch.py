from __future__ import annotations

import logging
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseNotifier
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.exceptions import CodeNotAllowed, DataStale
from airflow_mlops.notifications import dispatch
from airflow_mlops.notifications.dispatch import failure_callback, load_notifier, notify

SENT: list[dict[str, Any]] = []
TI = SimpleNamespace(dag_id="churn__train", task_id="data.snapshot", run_id="r1")


class Recorder(BaseNotifier):
    template_fields = ("text",)

    def __init__(self, text: str, fail: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.text = text
        self.fail = fail

    def notify(self, context: Any) -> None:
        if self.fail:
            raise ConnectionError("no mail server")
        SENT.append({"text": self.text, "mlops": context["mlops"]})


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    SENT.clear()
    real = dispatch.load_notifier
    monkeypatch.setattr(
        dispatch, "load_notifier", lambda path, allowed=(): Recorder if path == "t.Recorder" else real(path, allowed)
    )
    monkeypatch.delenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", raising=False)


def entry(text: str = "{{ mlops.event }}: {{ mlops.message }} ({{ mlops.dag_id }})", **more: Any) -> dict[str, Any]:
    return {"class": "t.Recorder", "args": {"text": text, **more}}


def test_templates_see_what_happened_and_the_context_stays_as_it_was() -> None:
    context = {"ti": TI, "text": "mine"}
    assert notify(["rejected"], [entry()], "rejected", context, "AUC 0.61 < 0.62", details={"version": 4}) == 1
    assert SENT[0]["text"] == "rejected: AUC 0.61 < 0.62 (churn__train)"
    assert SENT[0]["mlops"]["version"] == 4
    assert SENT[0]["mlops"]["run_id"] == "r1"
    assert context == {"ti": TI, "text": "mine"}


def test_a_message_is_not_a_template() -> None:
    notify(["failed"], [entry("{{ mlops.message }}")], "failed", {"ti": TI}, "{{ 7 * 7 }}")
    assert SENT[0]["text"] == "{{ 7 * 7 }}"


def test_other_events_are_not_told() -> None:
    assert notify(["failed"], [entry()], "promoted", {"ti": TI}, "v2") == 0
    assert SENT == []


def test_a_failing_notifier_is_logged_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        sent = notify(["drift"], [entry(fail=True), {"class": "os.system"}, entry()], "drift", {"ti": TI}, "m")
    assert sent == 1
    assert len(SENT) == 1
    assert "no mail server" in caplog.text
    assert "os.system" in caplog.text


@pytest.mark.parametrize(
    "path",
    ["os.system", "subprocess.Popen", "airflow_evil.Notifier", "airflow.sdk.BaseOperator", "airflow.sdk.nothing", "x"],
)
def test_only_notifiers_from_allowed_places_are_loaded(path: str) -> None:
    with pytest.raises(CodeNotAllowed):
        load_notifier(path)


def test_airflows_own_notifiers_load() -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    assert load_notifier("airflow.providers.smtp.notifications.smtp.SmtpNotifier") is SmtpNotifier


def test_the_allow_list_opens_other_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "house_chat.py").write_text(
        "from airflow.sdk import BaseNotifier\nclass Chat(BaseNotifier):\n    def notify(self, context): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CodeNotAllowed):
        load_notifier("house_chat.Chat")
    assert load_notifier("house_chat.Chat", ["house_chat"]).__name__ == "Chat"
    assert notify(["failed"], [{"class": "house_chat.Chat"}], "failed", {"ti": TI}, "m") == 0
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", "house_chat")
    assert notify(["failed"], [{"class": "house_chat.Chat"}], "failed", {"ti": TI}, "m") == 1


def stale() -> BaseException:
    """What the operators raise for stale data: Airflow's exception, with ours behind it."""
    try:
        try:
            raise DataStale("newest row is 40 h old")
        except DataStale as e:
            raise AirflowFailException(str(e)) from None
    except AirflowFailException as e:
        return e


@pytest.mark.parametrize(
    ("events", "error", "told"),
    [
        (["failed"], ValueError("boom"), "failed"),
        (["failed", "stale_data"], stale(), "stale_data"),
        (["failed"], stale(), "failed"),
        (["stale_data"], ValueError("boom"), None),
        (["failed"], None, "failed"),
    ],
)
def test_the_failure_callback_tells_why(events: list[str], error: BaseException | None, told: str | None) -> None:
    callback = pickle.loads(pickle.dumps(failure_callback(events, [entry()])))
    callback({"ti": TI, "exception": error})
    assert [s["mlops"]["event"] for s in SENT] == ([told] if told else [])
    if told:
        assert SENT[0]["mlops"]["message"].startswith("churn__train.data.snapshot failed: ")
        assert str(error or "see its log") in SENT[0]["mlops"]["message"]


def test_a_whole_runs_failure_is_told_without_naming_an_innocent_task() -> None:
    last = SimpleNamespace(dag_id="churn__train", task_id="promote.champion", run_id="r1")
    failure_callback(["failed"], [entry()])({"ti": last, "reason": "task_failure"})
    failure_callback(["failed"], [entry()])(
        {"dag": DAG("churn__train", schedule=None), "run_id": "r2", "reason": "timed_out"}
    )
    assert [s["mlops"]["message"] for s in SENT] == [
        "churn__train, run r1 failed: see its tasks",
        "churn__train, run r2 failed: see its tasks",
    ]


def test_a_replay_of_the_past_fails_silently() -> None:
    callback = failure_callback(["failed"], [entry()])
    callback({"ti": TI, "params": {"promote": False}})
    assert SENT == []
    callback({"ti": TI, "params": {"promote": True, "window_start": "nonsense", "window_end": "x"}})
    assert len(SENT) == 1


def test_a_dag_with_the_callback_serializes() -> None:
    from airflow.sdk.bases.operator import BaseOperator
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("d", schedule=None, default_args={"on_failure_callback": failure_callback(["failed"], [entry()])}) as dag:
        BaseOperator(task_id="t")
    task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("t")
    assert task.has_on_failure_callback

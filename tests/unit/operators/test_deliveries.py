"""The steps of a delivery, each as a task runs it, against a real repository; Airflow's API is a stand-in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.config.project import read_project
from airflow_mlops.delivery import stages
from airflow_mlops.delivery.deployment import Request, Target, deploy, history
from airflow_mlops.delivery.record import Stage
from airflow_mlops.delivery.remote import Remote
from airflow_mlops.delivery.verification import Expected, SmokeRun
from airflow_mlops.exceptions import AirflowUnavailable, ConfigError, RemoteUnavailable, VerificationFailed
from airflow_mlops.factory.delivery import build_delivery
from airflow_mlops.hooks.delivery import targets_of
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.delivery import _inside
from airflow_mlops.operators.deployment import EnvironmentOperator
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore
from tests.unit.delivery.deliveries import bare, bundle, git
from tests.unit.delivery.small_project import CHURN, FILES, Project

LIMITS = {"sample": 400, "test_timeout": 60, "train_timeout": 60}
CI = ["ci.checkout", "ci.lint", "ci.test", "ci.build", "ci.train", "ci.gates", "ci.contract"]
STAGING = ["staging.ready", "staging.deploy", "staging.verify", "staging.smoke"]
PRODUCTION = ["production.ready", "production.deploy", "production.verify"]
YAML = """\
project: crm
remote: {remote}
environments:
  staging: {{branch: deploy/staging, api: staging_airflow, smoke: {{}}}}
  production: {{branch: deploy/production, api: production_airflow}}
"""


class Api:
    """What the environments' Airflow says: nothing, or the error that a test sets."""

    def __init__(self) -> None:
        self.wrong: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.seen: list[tuple[str, tuple[str, ...]]] = []

    def _say(self, what: str) -> None:
        self.asked.append(what)
        if what in self.wrong:
            raise self.wrong[what]

    def of(self, environment: str) -> Any:
        @contextmanager
        def opened() -> Iterator[Any]:
            yield SimpleNamespace(
                environment=environment,
                import_errors=lambda bundle: self._say(f"{environment}.import_errors of {bundle}"),
            )

        return opened()

    def verify(self, api: Any, expected: Expected, **_: Any) -> float:
        self._say(f"{api.environment}.verify")
        self.seen.append((expected.commit, expected.dags))
        return 2.0

    def smoke(self, api: Any, expected: Expected, dags: Any, **asked: Any) -> list[SmokeRun]:
        self._say(f"{api.environment}.smoke")
        assert (asked["conf"], asked["timeout"]) == ({}, 3600)
        return [SmokeRun("churn__train", "smoke__1", "http://x/dags/churn__train/runs/smoke__1", 3.0)]


class Delivery:
    """A project, its remote, and one run after the other."""

    def __init__(self, tmp_path: Path) -> None:
        self.remote = bare(tmp_path / "crm.git")
        self.work = Project(tmp_path / "crm")
        git(tmp_path, "clone", "-q", str(self.remote), "crm")
        self.push(**FILES)
        (tmp_path / "project.yaml").write_text(YAML.format(remote=self.remote))
        self.project = read_project(tmp_path)
        self.dag = build_delivery(self.project, tmp_path, LIMITS)
        self.api = Api()
        self.states: dict[str, str] = {}
        self.pages: list[str] = []
        self.run_id = "manual__1"

    def push(self, *, force: bool = False, **files: str | None) -> str:
        commit = self.work.commit(**files)
        self.work.git("push", "-q", *(["--force"] if force else []), "origin", "HEAD:main")
        return commit

    def do(self, task_id: str, *, event: dict[str, str] | None = None, **params: Any) -> Any:
        """Run one task; its state is what Airflow would make of it."""
        ti = MagicMock(spec=["dag_id", "run_id", "task_id", "map_index", "xcom_push", "xcom_pull", "get_task_states"])
        ti.dag_id, ti.run_id, ti.task_id, ti.map_index = self.dag.dag_id, self.run_id, task_id, -1
        ti.get_task_states.return_value = {self.run_id: dict(self.states)}
        task = self.dag.task_dict[task_id]
        events = {}
        if event:
            events = {Asset("crm.commits"): [SimpleNamespace(extra=event, timestamp=1)]}
        context: dict[str, Any] = {
            "ti": ti, "task": task, "params": params, "triggering_asset_events": events,
            "dag_run": SimpleNamespace(run_type="manual", data_interval_start=None, data_interval_end=None),
        }  # fmt: skip
        self.states[task_id] = "failed"
        try:
            said = task.execute(context)
        except AirflowSkipException:
            self.states[task_id] = "skipped"
            raise
        self.states[task_id] = "success"
        return said

    def all(self, *task_ids: str, **params: Any) -> Any:
        return [self.do(task_id, **params) for task_id in task_ids][-1]

    def digests(self, environment: str) -> list[str]:
        return [d.digest for d in history(self.target(environment)).deployments]

    def target(self, environment: str) -> Target:
        return targets_of(self.project, Remote(str(self.remote)))[environment]

    def again(self) -> None:
        """Another run."""
        self.run_id, self.states = f"manual__{int(self.run_id[-1]) + 1}", {}


@pytest.fixture
def delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Delivery:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", str(tmp_path / "lake"))
    made = Delivery(tmp_path)
    monkeypatch.setattr(EnvironmentOperator, "api", lambda task: made.api.of(task.environment))
    monkeypatch.setattr("airflow_mlops.delivery.verification.verify", made.api.verify)
    monkeypatch.setattr("airflow_mlops.delivery.verification.smoke", made.api.smoke)

    def passes(name: str) -> Callable[..., Stage]:
        return lambda found, say: Stage(name, "passed", ("well",))

    dags = {"dags": {f"churn__{name}": 1 for name in ("train", "predict", "registry")}, "errors": {}}
    monkeypatch.setattr(stages, "run_task", lambda *_, **__: {"result": dags})
    quick = {name: passes(name) for name in ("train", "gates", "contract")}
    monkeypatch.setattr(stages, "STAGES", stages.STAGES | quick)
    return made


def report(delivery: Delivery) -> str:
    """The page of the newest report."""
    store = LocalStore(Path(str(delivery.remote)).parent / "store")
    found = max(store.scan("reports/"), key=lambda stat: stat.modified)
    return store.get(found.key).decode()


def test_a_good_commit_goes_to_both_as_the_same_bundle(delivery: Delivery) -> None:
    delivery.all(*CI, *STAGING, *PRODUCTION)
    (staging,), (production,) = delivery.digests("staging"), delivery.digests("production")
    assert staging == production
    said = delivery.do("report.outcome")
    commit = delivery.work.git("rev-parse", "HEAD")
    assert said["told"] == f"{commit[:12]} is delivered to staging and production"
    assert delivery.api.asked == [
        "staging.import_errors of crm", "staging.verify", "staging.smoke", "production.import_errors of crm",
        "production.verify",
    ]  # fmt: skip
    page = report(delivery)
    assert commit in page
    assert staging[:12] in page

    # The same commit again: skipped at once, and nothing is done twice.
    delivery.again()
    with pytest.raises(AirflowSkipException, match="production has the commit"):
        delivery.do("ci.checkout")
    assert "nothing was deployed: production has the commit" in delivery.do("report.outcome")["told"]
    assert len(delivery.digests("staging")) == 1


def test_every_step_may_run_twice(delivery: Delivery) -> None:
    for task_id in (*CI, *STAGING, *PRODUCTION):
        delivery.do(task_id)
        assert delivery.do(task_id)
    assert len(delivery.digests("staging")) == len(delivery.digests("production")) == 1


def test_a_run_that_ends_at_staging(delivery: Delivery) -> None:
    delivery.all(*CI, *STAGING, up_to="staging")
    with pytest.raises(AirflowSkipException, match="this run goes up to staging"):
        delivery.do("production.ready", up_to="staging")
    assert delivery.digests("production") == []
    delivery.again()
    delivery.all(*CI, *STAGING, *PRODUCTION)
    assert delivery.digests("production") == delivery.digests("staging")


def test_a_commit_that_does_not_lint_is_red_there_and_nothing_is_deployed(delivery: Delivery) -> None:
    delivery.push(**{"pipelines/churn.yaml": CHURN.replace("target", "tagret")})
    delivery.do("ci.checkout")
    with pytest.raises(AirflowFailException, match="lint failed: 1 error"):
        delivery.do("ci.lint")
    for name in ("staging", "production"):
        with pytest.raises(AirflowSkipException, match="deployed nothing"):
            delivery.do(f"{name}.rollback")
    with pytest.raises(AirflowFailException, match="lint failed: 1 error; nothing was deployed"):
        delivery.do("report.outcome")
    assert "did you mean `target`?" in report(delivery)
    assert delivery.digests("staging") == []


def test_what_fails_behind_the_deployment_is_taken_back(delivery: Delivery) -> None:
    delivery.all(*CI, *STAGING, *PRODUCTION)
    delivery.push(**{"signals/unused.py": "x = 2\n"})
    delivery.again()
    delivery.all(*CI, *STAGING, "production.ready", "production.deploy")
    delivery.api.wrong["production.verify"] = VerificationFailed("churn__train is missing", hint="look at the log")
    with pytest.raises(AirflowFailException, match="churn__train is missing"):
        delivery.do("production.verify")
    first, second = delivery.digests("production")
    del delivery.api.wrong["production.verify"]
    for _ in range(2):  # a second try of a task that was killed
        said = delivery.do("production.rollback")
        assert said["told"].startswith(f"production is back at bundle {first[:12]}")
    assert delivery.digests("production") == [first, second, first]
    assert delivery.digests("staging") == [first, second]
    verdict = "production.verify failed: churn__train is missing; production was rolled back; staging has it"
    with pytest.raises(AirflowFailException, match=verdict):
        delivery.do("report.outcome")
    page = report(delivery)
    assert "look at the log" in page
    assert "rolled back" in page
    # The commit can be delivered again, by a run of its own.
    delivery.again()
    delivery.all(*CI, *STAGING, *PRODUCTION)
    assert delivery.digests("production") == [first, second, first, second]


def test_a_red_smoke_run_is_taken_back_and_production_never_sees_the_commit(delivery: Delivery) -> None:
    delivery.all(*CI, *STAGING)
    delivery.push(**{"signals/unused.py": "x = 2\n"})
    delivery.again()
    delivery.all(*CI, *STAGING[:-1])
    page = "http://x/dags/churn__train/runs/smoke__1"
    delivery.api.wrong["staging.smoke"] = VerificationFailed(
        f"the smoke run of churn__train failed: train.fit: {page}", hint="read the log of the task that failed there"
    )
    with pytest.raises(AirflowFailException, match=r"the smoke run of churn__train failed: train\.fit"):  # no retry
        delivery.do("staging.smoke")
    delivery.do("staging.rollback")
    with pytest.raises(AirflowSkipException, match="deployed nothing that is there now"):
        delivery.do("production.rollback")
    first, second, back = delivery.digests("staging")
    assert first == back != second
    assert delivery.digests("production") == []
    with pytest.raises(AirflowFailException, match=r"staging\.smoke failed: .*train\.fit.*; staging was rolled back$"):
        delivery.do("report.outcome")
    told = report(delivery)
    assert "<li>read the log of the task that failed there</li>" in told
    assert page in told


def test_a_deploy_that_was_killed_is_taken_back_too(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery.all(*CI, *STAGING, *PRODUCTION)
    delivery.push(**{"signals/unused.py": "x = 2\n"})
    delivery.again()
    delivery.all(*CI, *STAGING, "production.ready")

    def dies(*given: Any, **more: Any) -> Any:
        deploy(*given, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("airflow_mlops.delivery.deployment.deploy", dies)
        with pytest.raises(KeyboardInterrupt):
            delivery.do("production.deploy")
    delivery.do("production.rollback")
    first, second, now = delivery.digests("production")
    assert (now, first != second) == (first, True)
    with pytest.raises(AirflowFailException, match="deploy failed: the task ended without a word"):
        delivery.do("report.outcome")


def test_the_first_deployment_cannot_be_taken_back_and_says_so(delivery: Delivery) -> None:
    delivery.all(*CI, *STAGING[:2])
    delivery.api.wrong["staging.verify"] = VerificationFailed("no DAG", hint="look")
    with pytest.raises(AirflowFailException):
        delivery.do("staging.verify")
    with pytest.raises(AirflowFailException, match="there is no deployment to staging before"):
        delivery.do("staging.rollback")
    with pytest.raises(AirflowFailException, match="staging could not be rolled back; staging has it"):
        delivery.do("report.outcome")


def test_an_airflow_that_does_not_answer_stops_before_anything_is_touched(delivery: Delivery) -> None:
    delivery.all(*CI)
    delivery.api.wrong["staging.import_errors of crm"] = AirflowUnavailable("staging does not answer", hint="start it")
    with pytest.raises(AirflowUnavailable):
        delivery.do("staging.ready")
    assert delivery.digests("staging") == []
    del delivery.api.wrong["staging.import_errors of crm"]
    delivery.all(*STAGING)
    assert len(delivery.digests("staging")) == 1


def test_production_down_between_deploy_and_verify(delivery: Delivery) -> None:
    delivery.all(*CI, *STAGING, *PRODUCTION)
    delivery.push(**{"signals/unused.py": "x = 2\n"})
    delivery.again()
    delivery.all(*CI, *STAGING, "production.ready", "production.deploy")
    delivery.api.wrong["production.verify"] = AirflowUnavailable("production does not answer", hint="start it")
    with pytest.raises(AirflowUnavailable):
        delivery.do("production.verify")
    delivery.do("production.rollback")
    first, _, now = delivery.digests("production")
    assert now == first
    with pytest.raises(AirflowFailException):
        delivery.do("report.outcome")
    assert "its Airflow could not be looked at: production does not answer" in report(delivery)


def test_a_commit_that_was_force_pushed_away(delivery: Delivery) -> None:
    old = delivery.work.git("rev-parse", "HEAD")
    commit = delivery.push(**{"signals/unused.py": "x = 2\n"})
    delivery.all(*CI, "staging.ready")
    delivery.work.git("reset", "-q", "--hard", old)
    delivery.push(force=True, **{"signals/unused.py": "x = 3\n"})
    with pytest.raises(AirflowFailException, match="the branch main was force-pushed"):
        delivery.do("staging.deploy")
    assert delivery.digests("staging") == []
    delivery.again()
    seen = {"commit": commit, "ref": "refs/heads/main"}
    with pytest.raises(AirflowFailException):
        delivery.do("ci.checkout", event=seen)


def test_a_tag_that_is_moved(delivery: Delivery) -> None:
    delivery.work.git("tag", "v1")
    delivery.work.git("push", "-q", "origin", "v1")
    delivery.push(**{"signals/unused.py": "x = 2\n"})
    delivery.do("ci.checkout", ref="v1")
    delivery.all(*CI[1:], *STAGING, ref="v1")
    delivery.work.git("tag", "-f", "v1")
    delivery.work.git("push", "-q", "-f", "origin", "v1")
    with pytest.raises(AirflowFailException, match="when it was checked out, and names"):
        delivery.do("production.ready", ref="v1")
    assert delivery.digests("production") == []


def test_a_bundle_whose_signature_fails(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.registry.signing import Signer, Verifier

    monkeypatch.setattr(MLOpsHook, "signer", lambda _: Signer.generate())
    delivery.all(*CI)
    monkeypatch.setattr(MLOpsHook, "verifier", lambda _: Verifier((Signer.generate().public,)))
    with pytest.raises(AirflowFailException, match="signed"):
        delivery.do("staging.ready")
    with pytest.raises(AirflowFailException, match="signed"):
        delivery.do("staging.deploy")
    assert delivery.digests("staging") == []


def test_an_event_delivers_its_commit_and_not_what_came_since(delivery: Delivery) -> None:
    commit = delivery.work.git("rev-parse", "HEAD")
    delivery.push(**{"signals/unused.py": "x = 2\n"})
    said = delivery.do("ci.checkout", event={"commit": commit, "ref": "refs/heads/main"})
    assert (said["commit"], said["ref"]) == (commit, "refs/heads/main")


def test_a_remote_that_is_gone_is_tried_again(delivery: Delivery) -> None:
    delivery.remote.rename(delivery.remote.with_name("elsewhere.git"))
    with pytest.raises(RemoteUnavailable):
        delivery.do("ci.checkout")
    delivery.remote.with_name("elsewhere.git").rename(delivery.remote)
    assert delivery.do("ci.checkout")["status"] == "passed"


def test_somebody_else_deployed_meanwhile(delivery: Delivery) -> None:
    from tests.unit.delivery.deliveries import bundle

    delivery.all(*CI, *STAGING)
    target = delivery.target("staging")
    deploy(target, bundle("by hand"), Request("ana", "a" * 64))
    with pytest.raises(AirflowSkipException, match="this run has deployed nothing that is there now: staging has"):
        delivery.do("staging.rollback")
    assert len(delivery.digests("staging")) == 2


def test_a_no_leaves_production_as_it_is(delivery: Delivery) -> None:
    delivery.all(*CI, *STAGING, "production.ready")
    deploys = delivery.dag.task_dict["production.deploy"]
    deploys.approval = {"chosen_options": ["Reject"], "responded_by_user": {"name": "ana"}}  # type: ignore[attr-defined]
    with pytest.raises(AirflowSkipException, match="not deployed to production: ana answered Reject"):
        delivery.do("production.deploy")
    told = delivery.do("report.outcome")["told"]
    assert told.endswith("is delivered to staging; not deployed to production: ana answered Reject")
    deploys.approval = {"chosen_options": ["Approve"], "responded_by_user": {"name": "ana"}}  # type: ignore[attr-defined]
    delivery.do("production.deploy")
    target = delivery.target("production")
    assert "approved by ana" in (history(target).current or MagicMock()).reason


def test_an_approval_that_was_marked_as_succeeded_is_no_answer(delivery: Delivery, tmp_path: Path) -> None:
    asks = "api: production_airflow, approve: {{required: true, by: [ana]}}}}"
    (tmp_path / "project.yaml").write_text(
        YAML.replace("api: production_airflow}}", asks).format(remote=delivery.remote)
    )
    delivery.project = read_project(tmp_path)
    delivery.dag = build_delivery(delivery.project, tmp_path, LIMITS)
    delivery.all(*CI, *STAGING, "production.ready")
    delivery.dag.task_dict["production.deploy"].approval = None
    with pytest.raises(Exception, match="needs a person's yes, and there is no answer"):
        delivery.do("production.deploy")
    assert history(delivery.target("production")).current is None


def test_what_somebody_deployed_meanwhile_is_not_rolled_back(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.delivery import deployment

    delivery.all(*CI, *STAGING, *PRODUCTION)
    delivery.again()
    delivery.push(**{"notes.md": "bad"})
    delivery.all(*CI, *STAGING, "production.ready", "production.deploy")
    target, as_it_is = delivery.target("production"), deployment.roll_back

    def late(*args: Any, **kwargs: Any) -> Any:
        deployment.deploy(target, bundle("hotfix"), Request("ops", "f" * 64, "hotfix", True))
        return as_it_is(*args, **kwargs)

    monkeypatch.setattr(deployment, "roll_back", late)
    with pytest.raises(Exception, match="production is not at"):
        delivery.do("production.rollback")
    current = history(target).current
    assert current is not None
    assert current.digest == bundle("hotfix").digest


def test_a_changed_key_does_not_keep_the_next_delivery_away(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery.all(*CI, *STAGING, *PRODUCTION)
    delivery.again()
    delivery.push(**{"notes.md": "x"})
    signer = Signer.generate()
    monkeypatch.setattr(MLOpsHook, "verifier", lambda self: Verifier((signer.public,)))
    monkeypatch.setattr(MLOpsHook, "signer", lambda self: signer)
    delivery.do("ci.checkout")
    assert "compared with nothing: what production has is not trusted" in report(delivery)


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "clone" / "real").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "clone" / "link").symlink_to(tmp_path / "other")
    assert _inside(tmp_path / "clone", "real") == tmp_path / "clone" / "real"
    assert _inside(tmp_path / "clone", None) == tmp_path / "clone"
    with pytest.raises(ConfigError, match="is a link"):
        _inside(tmp_path / "clone", "link")

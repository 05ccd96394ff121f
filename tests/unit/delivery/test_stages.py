"""The stages of pipeline CI: what each finds, what it costs a change to be wrong, and that nothing is touched."""

from __future__ import annotations

import dataclasses
import json
import sys
import xml.etree.ElementTree as ElementTree
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mlops.cli.ci import ci
from airflow_mlops.cli.ci_task import TASKS
from airflow_mlops.config.settings import Settings
from airflow_mlops.delivery import stages, tasks
from airflow_mlops.delivery.bundle import read_bundle
from airflow_mlops.delivery.project import own_packages
from airflow_mlops.delivery.record import EXIT_CODES, Asked, Case, Check, Limits, Stage
from airflow_mlops.delivery.report import as_json, junit, markdown
from airflow_mlops.delivery.scaffold import example_customers
from airflow_mlops.delivery.stages import STAGES, check
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.registry.signing import Signer, Verifier
from tests.unit.delivery.small_project import CHURN, FILES, Project

Make = Callable[..., Project]
Only = Callable[..., None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # Plugins of this environment make pytest slow to start.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # The processes that are started run this checkout, too.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Only:
    """Call it with the stages that are to run."""

    def choose(*names: str) -> None:
        monkeypatch.setattr(stages, "STAGES", {name: STAGES[name] for name in names})

    return choose


def asked(project: Project, **given: object) -> Asked:
    (project.folder / "data").mkdir(exist_ok=True)
    (project.folder / "data" / "customers.csv").write_bytes(example_customers())
    return Asked(**{"folder": project.folder, "settings": Settings(allowed_imports=()), "sample": 400}
                 | {"data_root": str(project.folder / "data")} | given)  # fmt: skip


def untouched(project: Project) -> dict[str, bytes]:
    return {
        str(path.relative_to(project.folder)): path.read_bytes()
        for path in sorted(project.folder.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def failed(found: Check, stage: str) -> str:
    """What the stage told that failed; those behind it were not begun."""
    assert found.failed is not None
    assert (found.failed.name, found.exit_code) == (stage, EXIT_CODES[stage])
    names = [s.name for s in found.stages]
    after = found.stages[names.index(stage) + 1 :]
    assert {s.status for s in after} <= {"skipped"}
    told = "\n".join(found.failed.told)
    assert str(found.work) not in told
    page = markdown(found)
    assert f"{stage} failed" in page.splitlines()[0]
    assert found.failed.told[0] in page.replace("\\", "")
    ElementTree.fromstring(junit(found.stages))
    json.dumps(as_json(found), allow_nan=False)
    return told


def test_the_exit_codes_are_those_of_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "pipeline-ci.md").read_text()
    for stage, code in EXIT_CODES.items():
        assert f"| {code} | `{stage}`" in page
    assert list(EXIT_CODES) == list(STAGES)


class TestLint:
    def test_a_commit_that_does_not_lint(self, project: Make) -> None:
        found = check(asked(project(**{"pipelines/churn.yaml": CHURN.replace("target", "tagret")})))
        told = failed(found, "lint")
        assert "pipelines/churn.yaml:4:31: error: unknown key `tagret` in `data` (did you mean `target`?)" in told

    def test_code_that_is_no_python(self, project: Make) -> None:
        found = check(asked(project(**{"signals/churn.py": "def build(:\n"})))
        assert "signals/churn.py:1:1: error: this is not Python" in failed(found, "lint")

    def test_code_of_others_is_not_allowed(self, project: Make) -> None:
        text = CHURN.replace("signals.churn:build", "subprocess:run")
        assert "is not in [mlops] allowed_imports" in failed(
            check(asked(project(**{"pipelines/churn.yaml": text}))), "lint"
        )

    def test_every_file_is_a_case(self, project: Make, only: Only) -> None:
        only("lint")
        (stage,) = check(asked(project())).stages
        assert {case.name for case in stage.cases} == set(FILES) - {".gitignore"}


class TestTests:
    def test_they_run_on_a_copy(self, project: Make, only: Only) -> None:
        only("test")
        made = project(**{"tests/test_a.py": "from pathlib import Path\nfrom signals.unused import x\n\n"
                          "def test_a():\n    Path('loader.py').write_text('')\n    Path('new.py').touch()\n\n"
                          "def test_b():\n    import pytest\n    pytest.skip('no')\n"})  # fmt: skip
        wanted = asked(made)
        before = untouched(made)
        (stage,) = check(wanted).stages
        assert (stage.status, stage.told) == ("passed", ("2 tests, 1 of them skipped",))
        assert [(c.name, c.status) for c in stage.cases] == [
            ("tests/test_a.py::test_a", "passed"), ("tests/test_a.py::test_b", "skipped")
        ]  # fmt: skip
        assert untouched(made) == before

    def test_a_failing_test(self, project: Make, only: Only) -> None:
        only("test", "build")
        found = check(asked(project(**{"tests/test_a.py": "def test_a():\n    assert 1 == 2, '`|<b>'\n"})))
        told = failed(found, "test")
        assert "1 of 1 tests failed: tests/test_a.py::test_a" in told
        assert "assert 1 == 2" in told

    def test_a_hanging_test_is_killed_and_named(self, project: Make, only: Only) -> None:
        only("test")
        text = "import time\ndef test_quick():\n    pass\ndef test_slow():\n    time.sleep(600)\n"
        found = check(asked(project(**{"tests/test_a.py": text}), limits=Limits(tests=8)))
        assert "killed after 8 seconds, while tests/test_a.py::test_slow ran" in failed(found, "test")
        assert [(c.name.rpartition("_")[2], c.status) for c in found.stages[0].cases] == [
            ("quick", "passed"), ("slow", "failed")
        ]  # fmt: skip

    def test_a_test_that_ends_the_process(self, project: Make, only: Only) -> None:
        only("test")
        found = check(asked(project(**{"tests/test_a.py": "import os\ndef test_a():\n    os._exit(0)\n"})))
        assert "the process ended with 0 while tests/test_a.py::test_a ran" in failed(found, "test")

    def test_a_test_file_that_cannot_be_imported(self, project: Make, only: Only) -> None:
        only("test")
        found = check(asked(project(**{"tests/test_a.py": "import none_such\n"})))
        assert "none_such" in failed(found, "test")

    def test_no_test_in_the_folder(self, project: Make, only: Only) -> None:
        only("test")
        assert "pytest found no test" in failed(check(asked(project(**{"tests/a.txt": ""}))), "test")

    def test_no_folder_of_tests(self, project: Make, only: Only) -> None:
        only("test")
        (stage,) = check(asked(project())).stages
        assert (stage.status, stage.told) == ("skipped", ("the project has no folder tests/",))


class TestBuild:
    def test_a_signed_bundle_of_what_lies_there(
        self, project: Make, only: Only, monkeypatch: pytest.MonkeyPatch
    ) -> None:

        only("build")
        monkeypatch.setattr(stages, "run_task", lambda *_, **__: {"result": {"dags": DAGS, "errors": {}}})
        made, signer = project(), Signer.generate()
        bundles = []
        for _ in range(2):
            found = check(asked(made, signer=signer))
            assert found.exit_code == 0, found.stages
            bundles.append(found.bundle)
        assert bundles[0] == bundles[1]
        bundle = read_bundle(bundles[0] or b"", verifier=Verifier((signer.public,)))
        assert {path: file.content.decode() for path, file in bundle.files.items()} == FILES
        assert bundle.manifest["commit"] == made.git("rev-parse", "HEAD")
        assert (bundle.digest, bundle.signed_by) == (found.digest, signer.key_id)

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            ({"dags": {}, "errors": {"loader.py": "NameError: x"}}, "loader.py: NameError: x"),
            ({"dags": {}, "errors": {}}, "a loader file beside pipelines/ is needed"),
            ({"dags": {"churn__train": 1, "churn__predict": 1}, "errors": {}}, "does not find churn__registry"),
        ],
    )
    def test_dags_that_airflow_does_not_find(
        self, answer: dict, told: str, project: Make, only: Only, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        only("build")
        monkeypatch.setattr(stages, "run_task", lambda *_, **__: {"result": answer})
        assert told in failed(check(asked(project())), "build")

    def test_a_process_that_ends_itself(self, project: Make, only: Only) -> None:
        only("build", "train")
        text = "# airflow dag\nimport os\nprint('the last words', flush=True)\nos._exit(3)\n"
        told = failed(check(asked(project(**{"loader.py": text}))), "build")
        assert told.startswith("its process ended with 3\n")
        assert told.endswith("\nthe last words")


DAGS = {"churn__train": 7, "churn__predict": 1, "churn__registry": 1}


def here(found: Check, task: str, folder: Path, files: dict, request: dict, *, seconds: float) -> dict:
    """A task of CI in this process: what it is asked and answers goes through JSON as between two."""
    asked = {"task": task, "folder": str(folder), "packages": own_packages(files), "environment": "staging",
             "allowed_imports": found.settings(files).allowed_imports, "allowed_variables": [], "allow_commands": False,
             "trusted_types": [], "data_root": found.asked.data_root, **request}  # fmt: skip
    sys.path.append(str(folder))
    try:
        return {"result": json.loads(json.dumps(TASKS[task](json.loads(json.dumps(asked))), allow_nan=False))}
    finally:
        sys.path.remove(str(folder))
        for name in [n for n in sys.modules if n.partition(".")[0] == "signals"]:
            del sys.modules[name]


class TestTraining:
    def test_feature_code_that_raises(self, project: Make, only: Only) -> None:
        only("train", "gates", "contract")
        text = "def build(frame):\n    return frame['nothing']\n"
        told = failed(check(asked(project(**{"signals/churn.py": text}))), "train")
        assert told.startswith("churn: the feature code signals.churn:build failed on 400 rows: KeyError: 'nothing'")
        assert "in the step train.fit of churn" in told
        assert "What to do: call it in a notebook" in told

    def test_only_what_changed_is_trained_and_compared(
        self, project: Make, only: Only, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        only("train", "gates", "contract")
        monkeypatch.setattr(stages, "run_task", here)
        other = CHURN.replace("pipeline: churn", "pipeline: other").replace(
            "signals.churn:build", "signals.unused:build"
        )
        code = "def build(frame):\n    return frame[['visits']]\n"
        made = project(**{"pipelines/other.yaml": other, "signals/unused.py": code})
        # What a model is given when it predicts must not depend on the rows beside a row: here it does.
        batch = FILES["signals/churn.py"].replace(
            '"visits"))', '"visits"), share=frame["spend"] / frame["spend"].mean())'
        )
        made.commit(**{"signals/churn.py": batch})
        found = check(asked(made, since="HEAD^", settings=Settings(allowed_imports=(), environment="staging")))
        assert [c.what for c in found.changes] == ["signals/churn.py"]
        told = failed(found, "contract")
        assert "churn: the feature share is another in prediction than in training: " in told
        (trial,) = found.trials
        assert trial.comparison is not None, trial.not_compared
        assert [m["name"] for m in trial.comparison["metrics"]] == ["roc_auc"]
        page = markdown(found)
        assert "`+ share (number)`" in page
        assert "| roc\\_auc |" in page
        assert as_json(found)["pipelines"][0]["comparison"]["rows"] == trial.after["rows"]["holdout"]

    def test_a_gate_that_rejects(self, project: Make, only: Only, monkeypatch: pytest.MonkeyPatch) -> None:
        only("gates", "contract")
        gates = [
            {"name": "roc_auc at_least 0.6", "verdict": verdict, "sentence": "roc_auc 0.5 | is below", "versus": versus}
            for verdict, versus in (("rejected", False), ("inconclusive", False), ("no_baseline", True))
        ]
        about = {"snapshot": {"rows": 9, "fingerprint": "f" * 64}, "rows": {"train": 6, "holdout": 3}, "columns": []}
        tried = about | {"gates": gates, "metrics": {}, "features": {}, "warnings": [], "model": {"bytes": 1}}
        tried["cost"] = {"wall_seconds": 0.0, "cpu_seconds": 0.0}
        read = stages._read

        def with_trial(found: Check) -> None:
            read(found)
            found.trials[0].after = tried

        monkeypatch.setattr(stages, "_read", with_trial)
        found = check(asked(project()))
        assert "3 gates, 1 rejected\nchurn: rejected: roc_auc 0.5 | is below" in failed(found, "gates")
        assert "| roc\\_auc at\\_least 0.6 | rejected | roc\\_auc 0.5 \\| is below |" in markdown(found)
        # Where there is a comparison, it stands in the place of what had no baseline.
        trial = found.trials[0]
        trial.comparison = {"gates": [gates[0] | {"verdict": "passed", "versus": True}]}
        assert [g["verdict"] for g in trial.gates] == ["rejected", "inconclusive", "passed"]

    @pytest.mark.parametrize(("private", "told"), [("[]", ": customers.csv of Ann"), ("[visits]", "")])
    def test_where_there_is_nothing_to_compare_with(
        self, private: str, told: str, project: Make, only: Only, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def answer(found: Check, task: str, *_: object, **__: object) -> dict:
            error = {"message": "customers.csv of Ann", "hint": None, "notes": [], "traceback": None}
            tried = {"rows": {"train": 1}, "features": {}, "metrics": {}, "snapshot": {}}
            return {"result": tried} if task == "train" else {"error": error}

        only("train")
        monkeypatch.setattr(stages, "run_task", answer)
        bad = CHURN.replace("pipeline: churn", "pipeline: bad")
        made = project(**{"pipelines/bad.yaml": bad + "tagret: x\n"})
        new = CHURN.replace("pipeline: churn", "pipeline: new")
        now = CHURN.replace("id: c", f"private: {private}, id: c")
        made.commit(**{"pipelines/bad.yaml": bad, "pipelines/new.yaml": new, "pipelines/churn.yaml": now}
                    | {"signals/churn.py": FILES["signals/churn.py"] + "\n"})  # fmt: skip
        found = check(asked(made, since="HEAD^"))
        assert {t.change.name: t.not_compared for t in found.trials} == {
            "bad": "its file has errors there",
            "churn": f"it cannot be trained and judged on these rows{told}",
            "new": "there is none to compare with",
        }

    def test_a_change_that_touches_no_pipeline(self, project: Make, only: Only) -> None:
        only("train", "gates", "contract")
        made = project()
        made.commit(**{"README.md": "x"})
        found = check(asked(made, since="HEAD^"))
        assert [(s.status, s.told) for s in found.stages] == [("skipped", ("no pipeline has changed",))] * 3
        assert "None: no resolved configuration" in markdown(found)

    def test_an_experiment_without_a_model_is_not_trained(self, project: Make, only: Only) -> None:
        only("train", "gates", "contract")
        made = project()
        section = "{callable: signals.tour:length, direction: minimize, space: {x: [1]}}"
        tour = f"pipeline: tour\nlevel: 2\nexperiment: {section}\n"
        made.commit(**{"pipelines/tour.yaml": tour, "signals/tour.py": "def length(*, x):\n    return x\n"})
        found = check(asked(made, since="HEAD^"))
        assert [change.name for change in found.changes] == ["tour"]
        assert found.trials == []
        assert [stage.status for stage in found.stages] == ["skipped"] * 3


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("files", "given", "told"),
        [
            ({}, {"since": "none"}, "there is no commit 'none'"),
            ({}, {"sample": 0}, "a sample of 0 rows is none"),
            ({"json/__init__.py": ""}, {}, "'json' has the name of a module that is installed already"),
            ({"pipelines/base.yaml": None, "pipelines/churn.yaml": None}, {}, "it has no folder pipelines/"),
        ],
    )
    def test_before_anything_is_begun(self, files: dict, given: dict, told: str, project: Make) -> None:
        with pytest.raises(ConfigError, match=told):
            check(asked(project(**files), **given))

    def test_no_repository(self, tmp_path: Path) -> None:
        (tmp_path / "pipelines").mkdir()
        with pytest.raises(ConfigError, match="is not in a git repository"):
            check(Asked(tmp_path, Settings(), str(tmp_path)))


def test_a_dirty_work_tree_is_checked_and_said(project: Make, only: Only) -> None:
    only("lint")
    made = project()
    made.write(**{"pipelines/churn.yaml": CHURN.replace("level", "levle")})
    said: list[str] = []
    found = check(asked(made), said.append)
    assert found.failed is not None
    assert said[0] == "the work tree has 1 uncommitted change: checked, too"
    assert as_json(found)["uncommitted"] == [" M pipelines/churn.yaml"]
    assert "**Not this commit alone**: 1 uncommitted change, too: `M pipelines/churn.yaml`" in markdown(found)


class TestReport:
    def test_what_differs_in_the_configuration(self, project: Make, only: Only) -> None:
        only("lint")
        made = project()
        evil = "a|b `c` <script> @you\n```\n# x"
        text = CHURN.replace("@weekly", "@daily").replace(
            "level: 1", f"level: 1\ndescription: {json.dumps(evil)}\nenvironments: {{staging: {{owner: x}}}}"
        )
        made.commit(**{"pipelines/churn.yaml": text})
        page = markdown(check(asked(made, since="HEAD^")))
        assert "| `retrain.schedule` | `@weekly` | `@daily` | all |" in page
        assert "| `owner` | `crm` | `x` | staging |" in page
        assert "| `description` | – | ```` a\\|b `c` <script> @you ``` # x ```` | all |" in page
        assert page.count("```mermaid") == 2
        assert "cron @daily (UTC)" in page

    def test_a_report_that_is_long_has_no_graphs(self, project: Make, only: Only) -> None:
        only("lint")
        made = project()
        names = [f"churn{n}" for n in range(60)]
        found = check(
            asked(made, since=made.commit(**{
                f"pipelines/{name}.yaml": CHURN.replace("pipeline: churn", f"pipeline: {name}") for name in names[:2]
            }) + "^")
        )  # fmt: skip
        assert markdown(found).count("```mermaid") == 2
        made.commit(**{f"pipelines/{n}.yaml": CHURN.replace("pipeline: churn", f"pipeline: {n}") for n in names})
        page = markdown(check(asked(made, since="HEAD~2")))
        assert len(page) < 65_536
        assert page.count("left out, for this report is long") == 60

    def test_what_differs_in_data_features_and_cost(self, project: Make, only: Only) -> None:
        only("lint")
        made = project()
        made.commit(**{"pipelines/churn.yaml": CHURN.replace("weekly", "daily")})
        found = check(asked(made, since="HEAD^"))
        tried = {"snapshot": {"rows": 1200, "fingerprint": "f" * 64}, "rows": {"train": 900, "holdout": 300}}
        tried |= {"columns": ["a", "b`|"], "features": {"a": "number", "b`|": "category"}, "gates": [], "metrics": {}}
        tried |= {"warnings": ["<b> is | constant"], "model": {"bytes": 3000}}
        tried["cost"] = {"wall_seconds": 3.0, "cpu_seconds": 0.5}
        then = {
            "data": {"rows": 1000, "there": 1000, "columns": ["a", "c"]},
            "features": {"a": "boolean", "c": "number"},
        }
        then |= {"model": {"bytes": 2000}, "cost": {"wall_seconds": 2.0, "cpu_seconds": 0.0}}
        (trial,) = found.trials
        trial.after, trial.before, trial.not_compared = tried, then, "other rows"
        for line in (
            "Not compared with the pipeline before: other rows.",
            "- Other data than before: 1,000 rows then; columns: + `` b`\\| ``, − `c`.",
            "- Features of the model: `` + b`\\| (category) ``, `− c (number)`, `a: boolean → number` (2).",
            "- ⚠️ \\<b\\> is \\| constant",
            "| wall-clock time, s | 2.00 | 3.00 | +50% |",
            "| processor time, s | 0.00 | 0.50 | – |",
            "| model file, kB | 2.00 | 3.00 | +50% |",
        ):
            assert line in markdown(found).splitlines()
        then["data"] = {"problem": "there is no file"}
        assert "- The data of before cannot be read here: there is no file" in markdown(found).splitlines()

    def test_a_secret_is_not_told(self, project: Make, only: Only) -> None:
        only("lint")
        notify = (
            "notify: {events: [failed], notifiers: [{class: airflow.providers.smtp.notifications.smtp.SmtpNotifier,"
        )
        text = CHURN + notify + " args: {to: a, token: hunter1}}]}\n"
        made = project(**{"pipelines/churn.yaml": text})
        made.commit(**{"pipelines/churn.yaml": text.replace("hunter1", "hunter2").replace("weekly", "daily")})
        found = check(asked(made, since="HEAD^"))
        assert "hunter" not in markdown(found) + json.dumps(as_json(found))
        assert [c.what for c in found.changes] == ["configuration"]

    def test_what_people_print_stays_text(self) -> None:
        evil = "```\n# a heading\n<img src=x>\x00\x1b[31m\ud800"
        cases = (Case('a"<b>', "failed", evil), Case("b", "skipped", "why"))
        parsed = ElementTree.fromstring(junit([Stage("test", "failed", (evil,), cases), Stage("build", "passed")]))
        assert parsed[0].attrib | {"time": ""} == {
            "name": "test", "tests": "2", "failures": "1", "errors": "0", "skipped": "1", "time": ""
        }  # fmt: skip
        assert parsed[0][0].attrib["name"] == 'a"<b>'
        assert parsed[0][0][0].attrib["message"] == "```\n# a heading\n<img src=x>??[31m?"
        assert parsed[1][0].attrib["name"] == "build"

    def test_a_long_failure_is_cut_and_fenced(self, project: Make, only: Only, monkeypatch: pytest.MonkeyPatch) -> None:
        only("lint")
        lines = ["first", *(f"``` line {i}" for i in range(5000)), "last"]
        broken = Stage("lint", "failed", tuple(lines))
        monkeypatch.setattr(stages, "STAGES", {"lint": lambda found, say: broken})
        page = markdown(check(asked(project())))
        assert len(page) < 10_000
        assert "````text\nfirst\n…\n" in page
        assert "``` line 4999\nlast\n````" in page
        assert dataclasses.replace(broken) == broken


class TestCommand:
    def args(self, project: Project, **given: object) -> Namespace:
        options = {"changed_since": None, "report": None, "junit": None, "bundle": None, "start": None, "end": None}
        options |= {"data_root": None, "environment": None, "sample": 100, "output": "text"}
        limits = {"test_timeout": 60.0, "train_timeout": 60.0}
        return Namespace(folder=str(project.folder), **options | limits | given)

    def ended(self, args: Namespace) -> object:
        with pytest.raises(SystemExit) as ended:
            ci(args)
        return ended.value.code

    def test_a_stage_that_fails(self, project: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        made = project(**{"pipelines/churn.yaml": CHURN + "\x1b: 1\n"})
        files = {name: str(tmp_path / name) for name in ("report", "junit", "bundle")}
        assert self.ended(self.args(made, **files)) == 3
        told = capsys.readouterr()
        assert "lint      failed" in told.out
        assert "lint failed: exit code 3" in told.out
        assert "\x1b" not in told.out + told.err
        assert "lint      failed, " in told.err
        assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["junit", "report"]
        assert self.ended(self.args(made, output="json")) == 3
        assert json.loads(capsys.readouterr().out)["failed"] == "lint"

    def test_what_cannot_be_checked(self, project: Make, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.ended(self.args(project(), changed_since="none")) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert "there is no commit 'none' in this repository\n  What to do: " in told.err

    def test_all_stages_pass(
        self, project: Make, only: Only, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        only("lint", "build")
        monkeypatch.setattr(stages, "run_task", lambda *_, **__: {"result": {"dags": DAGS, "errors": {}}})
        key = Signer.generate()
        (tmp_path / "key.pem").write_bytes(key.pem())
        (tmp_path / "key.pem").chmod(0o600)
        monkeypatch.setenv("AIRFLOW__MLOPS__SIGNING_KEY_FILE", str(tmp_path / "key.pem"))
        made = project()
        made.write(**{"new.txt": "x"})
        ci(self.args(made, bundle=str(tmp_path / "b.zip"), changed_since="HEAD"))
        told = capsys.readouterr().out
        bundle = read_bundle(tmp_path / "b.zip", verifier=Verifier((key.public,)))
        assert (bundle.signed_by, bundle.manifest["uncommitted"]) == (key.key_id, True)
        assert f"bundle {bundle.digest} in {tmp_path}/b.zip" in told
        assert "and 1 uncommitted change" in told
        assert ", and 0" not in told


def test_a_task_that_hangs_is_killed(project: Make, only: Only) -> None:
    only("build")
    text = "# airflow dag\nimport time\ntime.sleep(600)\n"
    found = check(asked(project(**{"loader.py": text}), limits=Limits(tests=3)))
    assert "it was killed after 3 seconds" in failed(found, "build")


def test_a_task_that_fills_the_disk_is_stopped(project: Make, only: Only) -> None:
    only("build")
    # A sparse file: it takes no room, where nothing stops it.
    text = "# airflow dag\nwith open('full', 'wb') as file:\n    file.truncate((1 << 30) + 1)\n"
    assert "File too large" in failed(check(asked(project(**{"loader.py": text}))), "build")


def test_a_test_that_fills_the_disk_is_stopped(project: Make, only: Only) -> None:
    only("test")
    text = "def test_it(tmp_path):\n    with open(tmp_path / 'full', 'wb') as f:\n        f.truncate((1 << 30) + 1)\n"
    assert "File too large" in failed(check(asked(project(**{"tests/test_full.py": text}))), "test")


def test_an_answer_that_is_too_large_is_not_read(project: Make, only: Only, monkeypatch: pytest.MonkeyPatch) -> None:
    only("build")
    monkeypatch.setattr(tasks, "LARGEST_ANSWER", 10)
    assert "bytes, and may have 10" in failed(check(asked(project())), "build")

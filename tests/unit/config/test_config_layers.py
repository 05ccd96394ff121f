"""What a file extends, the environment's overlay and placeholders: precedence, places, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mlops.config import InvalidPipeline, PipelineConfig
from airflow_mlops.config.issues import Issue
from airflow_mlops.config.loader import PipelineReader, load_pipeline, load_text
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.yaml_source import Source

BASE = """\
owner: platform
dag: {timezone: Europe/Berlin, tags: [shared], max_active_tasks: 4}
data:
  target: churned
  min_rows: 10
train:
  estimator: sklearn.linear_model.LogisticRegression
  params: {max_iter: 100, C: 2.0}
environments:
  staging:
    data: {min_rows: 1}
"""
CHILD = """\
pipeline: churn
level: 0
extends: base.yaml
dag: {tags: [mine]}
data:
  source: churn.csv
train:
  params: {max_iter: 300}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "churn.yaml").write_text(CHILD)
    return tmp_path


def load(folder: Path, **settings: object) -> PipelineConfig:
    return load_pipeline(folder / "churn.yaml", Settings(**settings))  # type: ignore[arg-type]


def issues(folder: Path, name: str = "churn.yaml", **settings: object) -> list[Issue]:
    with pytest.raises(InvalidPipeline) as caught:
        load_pipeline(folder / name, Settings(**settings))  # type: ignore[arg-type]
    return caught.value.issues


class TestExtends:
    def test_mappings_are_joined_and_the_rest_is_replaced(self, folder: Path) -> None:
        config = load(folder)
        assert config.owner == "platform"
        assert config.dag.timezone == "Europe/Berlin"
        assert config.dag.tags == ["mine"]
        assert config.train.params == {"max_iter": 300, "C": 2.0}
        assert config.data.source == "churn.csv"
        assert config.data.min_rows == 10

    def test_an_empty_value_takes_away_what_is_below(self, folder: Path) -> None:
        (folder / "churn.yaml").write_text(CHILD + "owner:\n")
        assert load(folder).owner == "airflow"

    def test_an_empty_value_with_nothing_below_is_nothing(self, folder: Path) -> None:
        (folder / "churn.yaml").write_text(CHILD.replace("tags: [mine]", "tags: [mine], end_date: null") + "notify:\n")
        assert load(folder).notify.events == ["failed", "rejected"]

    def test_places_are_right_whatever_was_read_before(self, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text("dag: {tags: [a]}\ndata:\n  split: {test: 0.3}\n  min_rows: 5\n")
        for i in range(30):
            extra = f"dag: {{tags: [t{i}]}}\n" * (i % 2) + "notify: {events: [failed]}\n" * (i % 3 == 0)
            text = CHILD.partition("dag:")[0] + extra + "data: {source: a.csv, target: y, split: {by: random}}\n"
            text += "train: {estimator: sklearn.linear_model.LogisticRegression}\n"
            (tmp_path / f"p{i}.yaml").write_text(text)
        reader = PipelineReader(root=tmp_path)

        def walk(source: Source, value: object) -> None:
            if isinstance(value, dict):
                assert set(source.where(value)) >= set(value)
                for inner in value.values():
                    walk(source, inner)

        for i in range(30):
            config, source = reader.read(tmp_path / f"p{i}.yaml")
            assert config is not None, source.issues
            walk(source, source.data)

    def test_a_long_row_of_files(self, folder: Path) -> None:
        (folder / "f0.yaml").write_text("owner: first\n")
        for i in range(1, 60):
            (folder / f"f{i}.yaml").write_text(f"extends: f{i - 1}.yaml\n")
        reader = PipelineReader()
        for name, fine in (("f59", False), ("f5", True), ("f30", False), ("f5", True)):
            (folder / "churn.yaml").write_text(
                CHILD.replace("extends: base.yaml", f"extends: [base.yaml, {name}.yaml]")
            )
            config, source = reader.read(folder / "churn.yaml")
            assert (config is not None) == fine, (name, source.issues)
            assert not any(Path(i.file).stem in ("f3", "f4", "f5") for i in source.issues)

    def test_files_that_are_named_many_times(self, folder: Path) -> None:
        (folder / "f0.yaml").write_text("owner: first\n")
        for i in range(1, 9):
            (folder / f"f{i}.yaml").write_text(f"extends: [{', '.join([f'f{i - 1}.yaml'] * 10)}]\n")
        (folder / "churn.yaml").write_text(CHILD.replace("extends: base.yaml", "extends: [base.yaml, f8.yaml]"))
        _, source = PipelineReader().read(folder / "churn.yaml")
        assert not source.issues
        assert len(source.texts) == 11

    def test_later_bases_go_before_earlier_ones(self, folder: Path) -> None:
        (folder / "team.yaml").write_text("extends: base.yaml\nowner: team\n")
        (folder / "more.yml").write_text("description: more\nowner: more\n")
        (folder / "churn.yaml").write_text(CHILD.replace("base.yaml", "[team.yaml, more.yml]"))
        config = load(folder)
        assert (config.owner, config.description, config.data.target) == ("more", "more", "churned")

    def test_a_name_is_not_inherited(self, folder: Path) -> None:
        (folder / "other.yaml").write_text("extends: churn.yaml\n")
        found = issues(folder, "other.yaml")
        assert [(Path(i.file).name, i.code, i.path) for i in found] == [("other.yaml", "missing", "pipeline")]

    def test_a_mistake_of_a_base_is_shown_in_the_base(self, folder: Path) -> None:
        (folder / "base.yaml").write_text(BASE.replace("min_rows: 10", "min_row: 10"))
        (issue,) = issues(folder)
        assert Path(issue.file).name == "base.yaml"
        assert (issue.line, issue.column, issue.text) == (5, 3, "  min_row: 10")
        assert issue.suggestion == "did you mean `min_rows`?"

    def test_both_layers_of_a_contradiction_can_be_told_apart(self, folder: Path) -> None:
        (folder / "churn.yaml").write_text(CHILD.replace("source: churn.csv", "source: churn.csv\n  target: 5"))
        (issue,) = issues(folder)
        assert (Path(issue.file).name, issue.line, issue.path) == ("churn.yaml", 7, "data.target")

    def test_a_base_below_and_one_above_within_the_root(self, folder: Path) -> None:
        (folder / "team").mkdir()
        (folder / "team" / "churn.yaml").write_text(CHILD.replace("base.yaml", "../base.yaml"))
        assert load_pipeline(folder / "team" / "churn.yaml", root=folder).owner == "platform"
        (issue,) = [i for i in issues(folder, "team/churn.yaml") if i.code == "extends"]
        assert "lies outside of" in issue.message

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ("missing.yaml", "there is no such file"),
            ("bas.yaml", "did you mean `base.yaml`?"),
            ("nowhere/bas.yaml", "there is no such file"),
            ("/etc/passwd", "not a YAML file by its name"),
            ("../../../../etc/x.yaml", "lies outside of"),
            ("5", "takes the name of a file"),
            ("{a: b}", "takes the name of a file"),
            ("[]", ""),
            ("churn.yaml", "in a circle: churn.yaml → churn.yaml"),
            ("[base.yaml, 7]", "takes the name of a file"),
            ('"${env:MLOPS_X}.yaml"', "no placeholder"),
            (f"{'x' * 5000}.yaml", "not a file name"),
            ('"a\\0b.yaml"', "not a file name"),
        ],
    )
    def test_what_cannot_be_extended(self, folder: Path, value: str, words: str) -> None:
        (folder / "churn.yaml").write_text(CHILD.replace("extends: base.yaml", f"extends: {value}"))
        found = issues(folder)
        assert words in found[0].message if words else found
        assert all(1 <= i.line <= 9 for i in found)

    def test_a_link_out_of_the_folder_is_not_followed(
        self, folder: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        secret = tmp_path_factory.mktemp("elsewhere") / "secret.yaml"
        secret.write_text("owner: secret\n")
        (folder / "base.yaml").unlink()
        (folder / "base.yaml").symlink_to(secret)
        assert "lies outside of" in issues(folder)[0].message

    def test_a_circle_over_several_files(self, folder: Path) -> None:
        (folder / "base.yaml").write_text("extends: third.yaml\n" + BASE)
        (folder / "third.yaml").write_text("extends: base.yaml\n")
        (issue,) = issues(folder)
        assert Path(issue.file).name == "third.yaml"
        assert "base.yaml → third.yaml → base.yaml" in issue.message

    def test_a_base_is_read_once_for_many_files(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow_mlops.config import layers

        read: list[str] = []
        monkeypatch.setattr(layers, "read_text", lambda p: read.append(p.name) or p.read_text())
        reader = PipelineReader()
        assert reader.load(folder / "churn.yaml") == reader.load(folder / "churn.yaml")
        assert read == ["churn.yaml", "base.yaml", "churn.yaml"]

    def test_a_text_without_a_file_extends_nothing(self) -> None:
        with pytest.raises(InvalidPipeline, match="needs a file to start from"):
            load_text(CHILD)


class TestEnvironments:
    def test_the_chosen_overlay_lies_on_top(self, folder: Path) -> None:
        text = CHILD + "environments: {staging: {owner: stage, dag: {tags: [s]}}, production: {}}\n"
        (folder / "churn.yaml").write_text(text)
        staging, production = load(folder, environment="staging"), load(folder, environment="production")
        assert (staging.owner, staging.dag.tags, staging.data.min_rows) == ("stage", ["s"], 1)
        assert (production.owner, production.dag.tags, production.data.min_rows) == ("platform", ["mine"], 10)
        assert load(folder) == production

    def test_an_environment_that_a_file_does_not_know(self, folder: Path) -> None:
        (issue,) = issues(folder, environment="stagin")
        assert "'stagin' is chosen, and the file has staging" in issue.message
        (folder / "base.yaml").write_text(BASE.partition("environments")[0])
        assert load(folder, environment="stagin").owner == "platform"

    def test_a_mistake_in_an_overlay_is_shown_there(self, folder: Path) -> None:
        (folder / "base.yaml").write_text(BASE.replace("{min_rows: 1}", "{min_rowz: 1}"))
        (issue,) = issues(folder, environment="staging")
        assert (Path(issue.file).name, issue.line) == ("base.yaml", 11)
        load(folder)

    def test_what_an_overlay_cannot_set(self, folder: Path) -> None:
        (folder / "churn.yaml").write_text(CHILD + "environments: {a: {pipeline: b, extends: x}, b: 5, c: null}\n")
        found = issues(folder)
        assert [i.path for i in found] == ["environments.a.pipeline", "environments.a.extends", "environments.b"]


class TestPlaceholders:
    @pytest.fixture(autouse=True)
    def variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLOPS_BUCKET", "lake")
        monkeypatch.setenv("MLOPS_ROWS", "12")
        monkeypatch.setenv("MLOPS_TEMPLATE", "{{ conn.x.password }}")
        monkeypatch.setenv("MLOPS_NESTED", "${env:MLOPS_BUCKET}")
        monkeypatch.setenv("MLOPS_DB_PASSWORD", "hunter2")
        monkeypatch.setenv("MLOPS_DATABASE", "postgres://u:hunter2@h/x")
        monkeypatch.setenv("HOME_OF_ALL", "x")

    def text(self, source: str = "a.csv", more: str = "") -> str:
        return (
            f"pipeline: p\nlevel: 0\ndata: {{target: y, source: {source}{more}}}\n"
            "train: {estimator: sklearn.linear_model.LogisticRegression}\n"
        )

    def test_a_variable_takes_the_placeholders_place(self) -> None:
        more = "train:\n  seed: ${env:MLOPS_ROWS}\n  estimator: sklearn.linear_model.LogisticRegression\n"
        text = self.text('"s3://${env:MLOPS_BUCKET}/$${x}/*.csv"').partition("train:")[0] + more
        config = load_text(text)
        assert config.data.source == "s3://lake/${x}/*.csv"
        assert config.train.seed == 12
        with pytest.raises(InvalidPipeline, match="put quotes around a placeholder"):
            load_text(self.text(more=", min_rows: ${env:MLOPS_ROWS}"))

    def test_in_quotes_it_stays_text(self) -> None:
        with pytest.raises(InvalidPipeline, match=r"must be a whole number, not the text \$\{env:MLOPS_ROWS\}"):
            load_text(self.text(more=', min_rows: "${env:MLOPS_ROWS}"'))

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ("${env:MLOPS_NONE}", "MLOPS_NONE is not set"),
            ("${env:HOME_OF_ALL}", "not one that pipeline files may use (allowed: MLOPS_*)"),
            ("${env:MLOPS_DB_PASSWORD}", "this name is one of a secret"),
            ("${env:AIRFLOW__CORE__FERNET_KEY}", "this name is one of a secret"),
            ("${env:MLOPS_NESTED}", "holds a placeholder or a template itself"),
            ("${env:MLOPS_TEMPLATE}", "holds a placeholder or a template itself"),
            ("${env:MLOPS_DATABASE}", "holds what looks like a password"),
            ("${env:MLOPS_PWD}", "this name is one of a secret"),
            ("$${conn:lake}/a", "would be read as a connection"),
            ("${HOME}", "is not a placeholder"),
            ("${env:MLOPS_BUCKET:-x}", "is not a placeholder"),
            ("${", "is not a placeholder"),
            ("$(id)${env:`id`}", "is not a placeholder"),
            ("a/${conn:lake}", "stands at the beginning of a location"),
        ],
    )
    def test_what_is_refused(self, value: str, words: str) -> None:
        with pytest.raises(InvalidPipeline) as caught:
            load_text(self.text(f"'{value}'"))
        (issue,) = caught.value.issues
        assert words in issue.message
        assert (issue.line, issue.path) == (3, "data.source")
        assert "hunter2" not in str(caught.value)

    def test_a_connection_is_left_to_the_task(self) -> None:
        assert load_text(self.text("'${conn:lake}/a/*.csv'")).data.source == "${conn:lake}/a/*.csv"
        with pytest.raises(InvalidPipeline, match="stands at the beginning of a location"):
            load_text(self.text() + "owner: '${conn:lake}'\n")

    def test_a_name_is_written_out(self) -> None:
        with pytest.raises(InvalidPipeline, match="name is written out"):
            load_text(self.text().replace("pipeline: p", "pipeline: ${env:MLOPS_BUCKET}"))

    def test_variables_that_are_not_needed_yet(self) -> None:
        reader = PipelineReader(Settings(need_variables=False))
        text = self.text() + "dag:\n  max_active_runs: ${env:MLOPS_NONE}\n"
        config, source = reader.read_text(text, "p.yaml")
        assert config is not None
        assert [(i.severity, i.code) for i in source.issues] == [("warning", "variable_unset")]

    def test_an_anchor_before_a_placeholder(self) -> None:
        text = self.text() + "dag:\n  max_active_runs: &runs ${env:MLOPS_ROWS}\n"
        assert load_text(text).dag.max_active_runs == 12

    def test_keys_are_written_out(self) -> None:
        with pytest.raises(InvalidPipeline, match="holds a placeholder"):
            load_text(self.text().replace("train: {", 'train: {params: {"${env:MLOPS_BUCKET}": 1}, '))

    def test_other_names_may_be_allowed(self) -> None:
        settings = Settings(allowed_variables=("HOME_OF_ALL",))
        assert load_text(self.text("'${env:HOME_OF_ALL}'"), settings=settings).data.source == "x"

    def test_what_is_written_is_kept_for_showing(self) -> None:
        _, source = PipelineReader().read_text(self.text("'${env:MLOPS_BUCKET}'"), "p.yaml")
        data = source.data["data"]
        assert source.placeholders[id(data), "source"] == "${env:MLOPS_BUCKET}"
        assert source.place(("data", "source")).line == 2


class TestPermissions:
    TEXT = "pipeline: p\nlevel: 0\ndata: {target: y, callable: my_pkg.data:load}\ntrain: {callable: my_pkg.fit:fit}\n"

    def test_code_outside_of_the_allowed_imports(self) -> None:
        with pytest.raises(InvalidPipeline) as caught:
            load_text(self.TEXT.replace("my_pkg.fit:fit", "os:system"), settings=Settings(allowed_imports=("my_pkg",)))
        (issue,) = caught.value.issues
        assert (issue.code, issue.line, issue.path) == ("import", 4, "train.callable")
        assert "os:system" in issue.message
        load_text(self.TEXT, settings=Settings(allowed_imports=("my_pkg",)))
        load_text(self.TEXT)

    def test_value_functions_are_code(self) -> None:
        text = self.TEXT + "evaluate: {gates: [{value: {callable: 'os:getcwd'}, at_least: 0}]}\n"
        with pytest.raises(InvalidPipeline) as caught:
            load_text(text, settings=Settings(allowed_imports=("my_pkg",)))
        assert [i.path for i in caught.value.issues] == ["evaluate.gates.0.value.callable"]

    def test_notifiers_of_airflow_are_allowed(self) -> None:
        notify = (
            "notify: {notifiers: [{class: airflow.providers.smtp.notifications.smtp.SmtpNotifier}, {class: a.B}]}\n"
        )
        with pytest.raises(InvalidPipeline) as caught:
            load_text(self.TEXT + notify, settings=Settings(allowed_imports=("my_pkg",)))
        assert [i.path for i in caught.value.issues] == ["notify.notifiers.1.class"]

    def test_commands(self) -> None:
        text = self.TEXT.replace("callable: my_pkg.fit:fit", "command: python t.py")
        with pytest.raises(InvalidPipeline, match="allow_commands"):
            load_text(text, settings=Settings(allow_commands=False))
        load_text(text, settings=Settings(allow_commands=True))

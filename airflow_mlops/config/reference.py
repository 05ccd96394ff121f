"""The reference page of pipeline files: ``python -m airflow_mlops.config.reference``.

With ``project`` behind it, that of ``project.yaml``.
"""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Iterator
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from airflow_mlops.config import types as values
from airflow_mlops.config.json_schema import ENVIRONMENTS, EXTENDS
from airflow_mlops.config.keys import models_in
from airflow_mlops.config.layers import MAX_FILES
from airflow_mlops.config.maturity import LEVELS, MaturityLevel
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.placeholders import LOCATIONS
from airflow_mlops.config.project import Project
from airflow_mlops.config.settings import Settings

_HEAD = """\
<!-- Made from the models by `python -m airflow_mlops.config.reference`; change them, not this page. -->
# Pipeline file

One YAML file is one pipeline. Unknown keys are errors, and so are values of another type: `"3"` is
not a number and `1.10` is not text. Only `true` and `false` are booleans, as in YAML 1.2; tags and
merge keys are refused. Every error names file, line and column.

The smallest file that works:

```yaml
pipeline: breast_cancer
level: 0
data: {source: breast_cancer.csv, target: malignant}
train: {estimator: sklearn.linear_model.LogisticRegression}
```

A level 1 pipeline that trains every week, and when inputs drift or the score falls:

```yaml
pipeline: flight_delays
level: 1
dag: {start_date: 2013-01-01, timezone: America/New_York}
data:
  source: "flights/{{ window.start }}.parquet"
  window: 90d
  target: delayed
  positive: 1
  id: flight_id
  timestamp: scheduled_departure
  exclude: [dep_time, air_time]
  split: {by: time, test: 0.2}
validate:
  expectations:
    - expect_column_values_to_be_between: {column: distance, min_value: 0, max_value: 6000}
train:
  estimator: sklearn.ensemble.HistGradientBoostingClassifier
  params: {max_iter: 200}
evaluate:
  metrics: [roc_auc, log_loss]
  gates:
    - {metric: roc_auc, at_least: 0.62}
    - {metric: roc_auc, versus: champion, not_worse_by: 0.005}
deploy:
  batch: {source: "scoring/{{ window.start }}.parquet", schedule: "@daily"}
monitor:
  labels: {source: "outcomes/{{ window.start }}.parquet", join_on: flight_id, delay: 1d}
  performance: {metric: roc_auc, max_drop: 0.03}
retrain:
  schedule: "@weekly"
  when: [drift, performance]
  cooldown: 7d
```

Durations are a number and `s`, `m`, `h`, `d` or `w`: `90d`, `26h`, `1d 12h`. Templates may use
`{{ window.start }}` and `{{ window.end }}`, with their attributes and methods, and nothing else.

## Layers and variables

A file may lie on top of others, and differ between environments:

```yaml
# pipelines/team.yaml
level: 0
owner: team
train: {estimator: sklearn.linear_model.LogisticRegression}
```

```yaml
# pipelines/churn.yaml
pipeline: churn
extends: team.yaml
data:
  source: churn.parquet
  target: churned
owner: null
environments:
  staging:
    data: {min_rows: 10}
  production:
    data:
      min_rows: ${env:MLOPS_MIN_ROWS}
```

From the lowest to the highest, a value comes from

1. the defaults on this page,
2. the files of `extends`, in their order, each on top of those it extends itself,
3. the file,
4. the entry of `environments` that `[mlops] environment` (`-e` on the command line) names.

Mappings are joined key by key; anything else, lists included, is replaced as a whole. An empty value or
`null` takes away what the layers below say ([RFC 7396](https://www.rfc-editor.org/rfc/rfc7396)).
`environments` are joined before one is chosen: an overlay in `team.yaml` goes before plain values of
`churn.yaml`. `pipeline` and `extends` are not inherited, and `schema`, `pipeline`, `extends` and
`environments` cannot differ between environments. `airflow mlops describe` prints where each value is set.

A file of `extends` lies in the folder that the loader reads, or below, and is YAML by its name; at most
{files} files may extend each other. One that is only there to be extended needs no `pipeline`.

| Placeholder | Stands for |
|---|---|
| `${env:NAME}` | the environment variable, as text |
| `${conn:ID}` | the location of an Airflow connection; alone or before a slash |
| `$${` | `${` itself |

`[mlops] allowed_variables` names the variables that may be used (default: {variables}); a name that sounds
like a secret's is refused. A value is never read as YAML; only where an unquoted placeholder is the whole
value, `12` is a number and `true` a boolean. Inside `{…}` and `[…]` a placeholder needs quotes, and so is text.
A connection may begin {locations}, and is looked up by the task.
"""

_PROJECT_HEAD = """\
<!-- Made from the models by `python -m airflow_mlops.config.reference project`; change them, not this page. -->
# Project file

`project.yaml`, at the top of a project, says where its pipelines are delivered from, and to
([how to](../how-to/deliver-pipelines.md)). It is read as strictly as a [pipeline file](pipeline.md), and
`airflow mlops lint` checks it with the others of its folder. It has neither layers nor variables: secrets are in the
connections that it names. For editors: [project.schema.json](../project.schema.json).

```yaml
project: crm
remote: https://git.example.org/ml/crm.git
conn_id: crm_git
environments:
  staging:
    branch: deploy/staging
    api: airflow_staging
    smoke: {}
  production:
    branch: deploy/production
    api: airflow_production
    approve: {required: true, by: [ml-lead]}
```\
"""

# A list: the aliases hold pydantic fields and cannot be hashed.
_NAMES: list[tuple[Any, str]] = [
    (values.Duration, "duration"), (values.PositiveDuration, "duration"),
    (values.Block, "duration, `none`"), (values.Template, "text, template"),
    (values.DottedPath, "dotted path"), (values.BehavioursFile, "file name"),
    (values.Rollout, "list of steps"), (values.CallablePath, "module:function"), (values.Day, "date"),
    (values.Cron, "cron"), (values.TimeZone, "time zone"), (values.Expectation, "expectation"),
    (str, "text"), (int, "whole number"), (float, "number"), (bool, "true, false"), (Any, "anything"),
]  # fmt: skip


def reference() -> str:
    """The page, in Markdown."""
    parts = [_head(), *_levels()]
    for path, model in _sections(PipelineConfig, ""):
        parts += _section(path, model)
        if not path:
            parts.append(f"| `extends` | text or list of text | – | {EXTENDS} |")
            parts.append(f"| `environments` | mapping | – | {ENVIRONMENTS} |")
    return "\n".join(parts) + "\n"


def project_reference() -> str:
    """The page of ``project.yaml``, in Markdown."""
    parts = [_PROJECT_HEAD]
    for path, model in _sections(Project, ""):
        parts += _section(path, model)
    return "\n".join(parts) + "\n"


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    yield from ("", f"## `{path}`" if path else "## Top level", "", (model.__doc__ or "").strip(), "")
    yield from ("| Key | Type | Default | Meaning |", "|---|---|---|---|")
    hints = typing.get_type_hints(model, include_extras=True)
    yield from (_row(info.alias or name, info, hints[name]) for name, info in model.model_fields.items())


def _head() -> str:
    known = {
        "{files}": str(MAX_FILES),
        "{variables}": ", ".join(f"`{name}`" for name in Settings.allowed_variables),
        "{locations}": ", ".join(f"`{'.'.join(path)}`" for path in LOCATIONS),
    }
    page = _HEAD
    for name, value in known.items():
        page = page.replace(name, value)
    return page


def _levels() -> Iterator[str]:
    yield "## Levels"
    yield ""
    yield "| | " + " | ".join(f"{level.number}: {level.name}" for level in LEVELS.values()) + " |"
    yield "|---" * (len(LEVELS) + 1) + "|"

    def row(title: str, cells: list[str]) -> str:
        return f"| {title} | " + " | ".join(cells) + " |"

    def keys(names: tuple[str, ...]) -> str:
        return ", ".join(f"`{name}`" for name in names) or "–"

    every: list[MaturityLevel] = list(LEVELS.values())
    yield row("DAGs", [keys(level.dags) for level in every])
    yield row("needs", [keys(level.requires) for level in every])
    yield row("may have too", [keys(level.adds) for level in every])
    yield row("a run starts by", [level.start for level in every])
    yield row("promotion", [level.promotion for level in every])
    yield row("monitoring", [level.monitoring for level in every])
    yield row("continuous delivery", [level.delivery for level in every])
    yield row("definition", [f"[Google Cloud]({level.source})" for level in every])


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, info in model.model_fields.items():
        # `resources` is the same everywhere; it is described once.
        if name == "resources" and path:
            continue
        inner = next(models_in(info.annotation), None)
        if inner is not None:
            items = {list: "[]", dict: ".NAME"}.get(typing.get_origin(info.annotation) or BaseModel, "")
            yield from _sections(inner, f"{path}.{info.alias or name}".lstrip(".") + items)


def _row(key: str, info: FieldInfo, hint: Any) -> str:
    cells = (f"`{key}`", _type(hint) + _limits(info), _default(info), info.description or "")
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _type(hint: Any) -> str:
    for known, name in _NAMES:
        if hint is known or hint == known:
            return name
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        names = dict.fromkeys(_type(i) for i in inner if i is not type(None))
        if "number" in names:
            names.pop("whole number", None)
        return " or ".join(names)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict or (isinstance(hint, type) and issubclass(hint, BaseModel)):
        return "mapping"
    raise TypeError(f"no words for the type {hint!r}; add it to _NAMES")


def _limits(info: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    flat = list(info.metadata)
    for inner in typing.get_args(info.annotation):
        for constraint in getattr(inner, "__metadata__", ()):
            flat += getattr(constraint, "metadata", [constraint])
    found = [f"{sign} {getattr(c, name)}" for c in flat for name, sign in signs.items() if hasattr(c, name)]
    return ", " + ", ".join(found) if found else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, date):
        return f"`{value.isoformat()}`"
    return "–" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def main() -> None:
    """Print the page of pipeline files, or with ``project`` that of a project's file."""
    sys.stdout.write(project_reference() if sys.argv[1:] == ["project"] else reference())


if __name__ == "__main__":
    main()

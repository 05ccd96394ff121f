"""Problems of a pipeline file, and the error that carries all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from airflow_mlops.config.harmless import harmless
from airflow_mlops.exceptions import ConfigError

Severity = Literal["error", "warning"]

MAX_SHOWN = 100
_WIDTH = 100


@dataclass(frozen=True)
class Issue:
    """One problem, with the place in the file where it is to be mended.

    A warning may be right elsewhere, such as a name that only a newer library knows.

    ``line`` and ``column`` count from 1, columns in characters. ``path`` is dotted, with list
    positions from 0 (``evaluate.gates.0.metric``). ``text`` is the line as it stands in the file.
    """

    file: str
    line: int
    column: int
    path: str
    code: str
    message: str
    suggestion: str | None = None
    text: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        start = max(0, self.column - _WIDTH // 2) if len(self.text) > _WIDTH else 0
        shown = self.text[start : start + _WIDTH].replace("\t", " ")
        kind = "" if self.severity == "error" else f"{self.severity}: "
        lines = [f"{self.file}:{self.line}:{self.column}: {kind}{self.message}"]
        if self.text.strip():
            margin = f"{self.line:>5} | "
            lines += [margin + shown, " " * (len(margin) - 2) + "| " + " " * (self.column - 1 - start) + "^"]
        if self.suggestion:
            lines.append(f"  What to do: {self.suggestion}")
        return "\n".join(map(harmless, lines))


class InvalidPipeline(ConfigError):
    """A pipeline file has problems; ``issues`` has all of them, in the order of their places."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        self.issues = sorted(issues, key=lambda i: (i.file, i.line, i.column))
        more = len(self.issues) - MAX_SHOWN
        shown = [str(issue) for issue in self.issues[:MAX_SHOWN]]
        super().__init__("\n\n".join(shown + ([f"… and {more} more problems"] if more > 0 else [])))

    def __reduce__(self) -> tuple[type[InvalidPipeline], tuple[list[Issue]]]:
        # Airflow carries errors between processes; the default would rebuild this one from its message.
        return InvalidPipeline, (self.issues,)

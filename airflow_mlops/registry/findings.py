"""What a check of the store found, as advice."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["note", "derived", "damage"]

_TITLES: dict[Severity, str] = {
    "damage": "DAMAGED",
    "derived": "WORN (harmless: made again from the records)",
    "note": "NOTED",
}
_WIDTH = 80


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    :param severity: ``damage``: something is lost unless it is restored; ``derived``: it is made again from the
        records by the next writer; ``note``: nothing depends on it.
    :param key: the object.
    :param what: what it is, and what is wrong with it.
    :param sound: what is still good.
    :param do: what to do about it.
    """

    severity: Severity
    key: str
    what: str
    sound: str = ""
    do: str = ""
    repaired: bool = False

    def text(self) -> str:
        """Lines of at most 80 columns, but for the key."""
        said = [("", self.what), ("Still good: ", self.sound), ("What to do: ", self.do)]
        lines = [self.key]
        for label, words in said:
            if words:
                lines += textwrap.wrap(
                    label + words, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_long_words=False,
                    break_on_hyphens=False,
                )  # fmt: skip
        if self.repaired:
            lines.append("    Repaired.")
        return "\n".join(lines)


@dataclass
class Report:
    """What :func:`~airflow_mlops.registry.fsck.check` found.

    :param pipelines: one sentence about each, by name.
    """

    uri: str
    deep: bool
    objects: int = 0
    bytes: int = 0
    pipelines: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def status(self) -> int:
        """Exit status of a command: 0 sound, 1 something harmless that was not repaired, 2 damage."""
        if any(f.severity == "damage" for f in self.findings):
            return 2
        return int(any(f.severity == "derived" and not f.repaired for f in self.findings))

    @property
    def sentence(self) -> str:
        """For people."""
        if not (self.objects or self.pipelines or self.findings):
            return f"{self.uri}: there is nothing in it. If there should be, check [mlops] store."
        how = f"{self.bytes:,} bytes verified" if self.deep else "contents not verified"
        words: dict[Severity, str] = {"damage": "damaged", "derived": "worn", "note": "noted"}
        found = {word: sum(f.severity == severity for f in self.findings) for severity, word in words.items()}
        said = [f"{n} {word}" for word, n in found.items() if n]
        return f"{self.uri}: {self.objects:,} objects, {how}: {', '.join(said) or 'all sound'}."

    def text(self) -> str:
        """For a terminal of 80 columns: the worst first."""
        blocks = ["\n".join(textwrap.wrap(line, _WIDTH, subsequent_indent="  ")) for line in self.pipelines.values()]
        for severity, title in _TITLES.items():
            found = [f for f in self.findings if f.severity == severity]
            if found:
                blocks.append("\n".join(["", title, *(f.text() for f in found)]))
        blocks += ["", self.sentence]
        return "\n".join(blocks)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "uri": self.uri,
            "deep": self.deep,
            "status": self.status,
            "objects": self.objects,
            "bytes": self.bytes,
            "sentence": self.sentence,
            "pipelines": self.pipelines,
            "findings": [vars(f) for f in self.findings],
        }

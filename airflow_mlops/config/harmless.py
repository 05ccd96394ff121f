"""Text of other people, made fit for a terminal, a page and a database."""

from __future__ import annotations


def harmless(text: str) -> str:
    """``text`` with everything escaped that a terminal would obey or not show; a line break is a space."""
    return "".join(map(shown_char, text.replace("\n", " ")))


def harmless_lines(text: str) -> str:
    """As :func:`harmless`, line by line."""
    return "\n".join(map(harmless, text.split("\n")))


def shown_char(char: str) -> str:
    """One character as it may be shown."""
    if char == "\t":
        return " "
    return char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()

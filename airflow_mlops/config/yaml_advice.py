"""What to do about a file that is not valid YAML, in the words of who wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PLACEHOLDER = "inside {…} and […] put quotes around a placeholder; what is not text stands on a line of its own"
_ADVICE = {
    "did not find expected key": "check the indentation of this line and the brackets and quotes before it",
    "could not find expected ':'": "put a colon and a space after the key",
    "expected alphabetic or numeric character": "put quotes around a text that begins with `*` or `&`",
    "end of stream": "close the quote or bracket that is open",
}


def advice(message: str, lines: Sequence[str], line: int, column: int, opened: int | None) -> str | None:
    """What most likely has to be done at ``line`` and ``column``, both from 0.

    :param message: the parser's.
    :param opened: line, from 0, of the bracket or quote that the parser was inside of.
    """
    text = lines[line] if line < len(lines) else ""
    for number in range(max(0, line - 2), min(line + 1, len(lines))):
        if odd := re.search("[\u00a0\u2000-\u200b\u202f\u3000]", lines[number]):
            what = f"U+{ord(odd[0]):04X}, which looks like a space and is none"
            return f"line {number + 1}, column {odd.start() + 1} holds {what}: type a space there"
    if "${" in text:
        return _PLACEHOLDER
    if "{{" in text:
        return "put quotes around a value with {{ … }}"
    if "cannot start any token" in message:
        if text[column : column + 1] == "\t" or text[:column].endswith("\t"):
            return "indent with spaces, not tabs"
        return f"put quotes around a text that begins with `{text[column : column + 1]}`"
    if "mapping values are not allowed" in message:
        return _colon(lines, line, column)
    if "expected ',' or" in message and opened is not None:
        return f"close the bracket of line {opened + 1} before this place, or put a comma between two items"
    return next((hint for part, hint in _ADVICE.items() if part in message), None)


def _colon(lines: Sequence[str], line: int, column: int) -> str:
    """A colon that ends no key: the value has it, or the line above is not finished."""
    if re.search(r":\s", lines[line][:column]):
        return "quote a value that contains a colon and a space"
    above = next((text for text in reversed(lines[:line]) if text.strip() and not text.lstrip().startswith("#")), "")
    if not re.search(r":(\s|$)", above):
        return "in the line above, put a space after the colon" if ":" in above else "check the line above"
    return "give this line the indentation of the line above, which has a value already"

"""What looks like a secret, and text and data without it: for pages, logs and terminals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

HIDDEN = "***"

# As whole words of a name, or at the end of one that is written together: max_tokens and monkey are none.
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "key", "credential", "credentials"}
    | {"auth", "authorization", "dsn", "cookie", "signature", "sig", "pat", "pass", "pw", "cred", "creds"}
    | {"jwt", "bearer", "sas", "webhook", "hook", "private", "login", "conn", "connection"}
)
_SECRET_END = re.compile(r"(?:password|passwd|secret|authtoken|apikey|accesskey|privatekey|secretkey)$")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_USERINFO = re.compile(r"(?<=://)[^/\s?#@]*(?:@[^/\s?#@]*)*@")
# What may be the name of a secret, and what stands after it. From the beginning of a word, so that it stays linear.
_NAMED = re.compile(r"(?<![\w.\-])(?P<name>[\w.\-]+)(?P<sign>[\"']?\s*[=:]\s*|\s+)")
_VALUE = re.compile(r"(?:(?:bearer|basic)\s+)?(?:\"[^\"]*\"|'[^']*'|[^\s&;,'\"]+)", re.IGNORECASE)


def looks_secret(name: str) -> bool:
    """Whether a key of this name is likely to hold a secret: ``api_key``, ``dbPassword``, not ``max_tokens``."""
    if name.lower().endswith("conn_id"):  # names a secret's place, not the secret
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    return any(word in _SECRET_WORDS or _SECRET_END.search(word) for word in words)


def masked(value: Any) -> Any:
    """Plain data without what looks like a secret in it."""
    if isinstance(value, Mapping):
        # {name: PASSWORD, value: …}, as Kubernetes writes an environment.
        named = isinstance(value.get("name"), str) and looks_secret(value["name"])
        return {
            key: HIDDEN if looks_secret(str(key)) or (named and key == "value") else masked(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        # ["--password", "hunter2"], as a program's arguments are written.
        before = [None, *value]
        return [
            HIDDEN if isinstance(b, str) and b.startswith("-") and looks_secret(b) else masked(item)
            for b, item in zip(before, value, strict=False)
        ]
    if isinstance(value, date):
        return value.isoformat()
    return masked_text(value) if isinstance(value, str) else value


def masked_text(text: str) -> str:
    """A text without the credentials of its URIs and the secrets of its arguments (``--token abc``, ``?sig=abc``)."""

    text, parts, end = _USERINFO.sub("", text), [], 0
    while match := _NAMED.search(text, end):
        # After a space only an option has an argument: "the key column" is prose.
        given = bool(match["sign"].strip()) or match["name"].startswith("-")
        value = _VALUE.match(text, match.end()) if given and looks_secret(match["name"]) else None
        after = value.end() if value else match.end("name")
        parts += [text[end : match.end()], HIDDEN] if value else [text[end:after]]
        end = after
    return "".join([*parts, text[end:]])

"""A pipeline file on top of the files it extends, with the overlay of an environment above.

Lowest first: the models' defaults; the files of ``extends`` in their order, each on top of those it
extends itself; the file; the chosen entry of ``environments``. Mappings are joined key by key, anything
else is replaced as a whole, and an empty value (``null``) takes away what the layers below say: a JSON
merge patch (RFC 7396, https://www.rfc-editor.org/rfc/rfc7396). ``environments`` are joined over the
files before one is chosen, so an overlay of a base goes before plain values of the file.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.placeholders import fill
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.text import read_text
from airflow_mlops.config.yaml_source import Source, parse

MAX_FILES = 20
SUFFIXES = (".yaml", ".yml")
# What a file says about itself and nobody else can say for it.
OWN = ("pipeline", "extends")
FIXED = ("schema", "pipeline", "extends", "environments")


_ADVICE = {
    "circle": "remove one of them",
    "lies outside": "move it there; a command may also be started in a folder above, or be given one",
    "no such file": "check the name; it is relative to this file",
}


class _TooDeep(Exception):
    """A row of files that extend each other is too long to follow."""


class Layers:
    """Reads files with all their layers; a base that many files extend is read once.

    :param root: the folder that no file of ``extends`` may lie outside of; ``None``: the file's own.
    """

    def __init__(self, settings: Settings | None = None, root: Path | None = None) -> None:
        self.settings = settings or Settings()
        self.root = root
        self._bases: dict[tuple[Path, Path | None], Source] = {}

    def read(self, path: Path) -> Source:
        """Return the file's data with its layers; what is wrong is in its ``issues``, nothing is raised."""
        try:
            text = read_text(path)
        except InvalidPipeline as e:
            source = parse("", str(path))
            source.issues[:] = e.issues
            return source
        return self.layered(parse(text, str(path)), path)

    def layered(self, source: Source, path: Path | None) -> Source:
        """Put the layers of ``source`` together; without a ``path`` there is nothing it could extend."""
        data = source.data
        if not isinstance(data, dict):
            return source
        if "extends" in data:
            root = (self.root or path.parent).resolve() if path else None
            try:
                source = self._extended(source, path, root, (path.resolve(),) if path else ())
            except _TooDeep:
                message = f"files extend each other more than {2 * MAX_FILES} times in a row"
                source.add(source.place(("extends",)), "extends", message, "write fewer, larger files", "extends")
                source = _without(source, ("extends",))
            data = source.data
        if "environments" in data:
            self._overlay(source)
        if any("${" in line for text in source.texts for line in text.lines):
            fill(source, self.settings)
        return source

    def _extended(self, source: Source, path: Path | None, root: Path | None, chain: tuple[Path, ...]) -> Source:
        """``source`` on top of what it extends; ``chain`` has the files that extend it, and itself."""
        given = source.data["extends"]
        below: Source | None = None
        for i, name in enumerate(given if isinstance(given, list) else [given]):
            place = source.place(("extends", i) if isinstance(given, list) else ("extends",))
            found: Path | str = "`extends` needs a file to start from, and this is a text without one"
            if i >= MAX_FILES:
                found = f"`extends` names more than {MAX_FILES} files"
            elif path is not None and root is not None:
                found = _base_file(name, path, root, chain)
            if isinstance(found, str):
                advice = next((hint for part, hint in _ADVICE.items() if part in found), "name a YAML file")
                source.add(place, "extends", found, advice, "extends")
                if i >= MAX_FILES:
                    break
                continue
            base = self._base(found, root, (*chain, found))
            if base.failed:
                known = {(i.file, i.line, i.column, i.code) for i in source.issues}
                source.issues += [i for i in base.issues if (i.file, i.line, i.column, i.code) not in known]
            if isinstance(base.data, dict):
                below = join(below, base) if below else base
        if below is None:
            return _without(source, ("extends",))
        joined = join(below, source, drop=OWN)
        if len(joined.texts) > MAX_FILES:
            message = f"{len(joined.texts)} files are laid on top of each other; at most {MAX_FILES} may be"
            joined.add(source.place(("extends",)), "extends", message, "write fewer, larger files", "extends")
        return _without(joined, ("extends",))

    def _base(self, path: Path, root: Path | None, chain: tuple[Path, ...]) -> Source:
        """A file that another extends; what is wrong with it follows from it and what it extends alone."""
        if (path, root) not in self._bases:
            if len(chain) > 2 * MAX_FILES:
                raise _TooDeep
            try:
                base = parse(read_text(path), str(path))
            except InvalidPipeline as e:
                base = parse("", str(path))
                base.issues[:] = e.issues
            if isinstance(base.data, dict) and "extends" in base.data:
                base = self._extended(base, path, root, chain)
            self._bases[path, root] = base
        return self._bases[path, root]

    def _overlay(self, source: Source) -> None:
        """Join the overlay of the environment into ``source.data``, and take ``environments`` away."""
        overlays, chosen = source.data["environments"], self.settings.environment
        if not isinstance(overlays, dict):
            message = "`environments` must be a mapping of names to settings"
            source.add(source.place(("environments",)), "environments", message, "write {staging: {…}}", "environments")
            overlays = {}
        source.environments = {name: overlay for name, overlay in overlays.items() if isinstance(name, str)}
        for name, overlay in overlays.items():
            where = f"environments.{name}"
            if not isinstance(name, str):
                message = f"`{where}`: the name of an environment is text"
                source.add(source.place(("environments", name), key=True), "environments", message, "quote it", where)
            if overlay is not None and not isinstance(overlay, dict):
                message = f"`{where}` must be a mapping of settings"
                source.add(source.place(("environments", name)), "environments", message, None, where)
            for key in FIXED if isinstance(overlay, dict) else ():
                if key in overlay:
                    place = source.place(("environments", name, key), key=True)
                    message = f"`{key}` cannot differ between environments"
                    source.add(place, "environments", message, "remove it here", f"{where}.{key}")
        if chosen is not None and overlays and chosen not in overlays:
            message = f"the environment {chosen!r} is chosen, and the file has {', '.join(map(str, overlays))}"
            advice = f"add `{chosen}: {{}}`, or correct [mlops] environment"
            source.add(source.place(("environments",), key=True), "environments", message, advice, "environments")
        overlay = overlays.get(chosen)
        if isinstance(overlay, dict):
            plain = {key: value for key, value in overlay.items() if key not in FIXED}
            source.put(plain, source.where(overlay))
            source.data = _join(source.data, plain, source)
        _without(source, ("environments",))


def _base_file(name: Any, path: Path, root: Path, chain: tuple[Path, ...]) -> Path | str:
    """The file that ``extends: name`` in ``path`` means, or what is wrong with it."""
    if not isinstance(name, str) or not name:
        return "`extends` takes the name of a file, or a list of them"
    if "${" in name or "{{" in name:
        return "`extends` takes a plain name: no placeholder, no template"
    if not name.endswith(SUFFIXES):
        return f"`extends: {name[:80]}` is not a YAML file by its name"
    try:
        found = (path.parent / name).resolve()
        exists = found.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, a NUL in it, a circle of links
        return f"`extends: {name[:80]}` is not a file name"
    if not found.is_relative_to(root):
        return f"`extends: {name[:80]}` lies outside of {root}"
    if not exists:
        near = difflib.get_close_matches(found.name, _yaml_names(found.parent), 1)
        meant = f"; did you mean `{near[0]}`?" if near else ""
        return f"`extends: {name[:80]}`: there is no such file in {path.parent}{meant}"
    if found in chain:
        circle = " → ".join(p.name for p in (*chain[chain.index(found) :], found))
        return f"files extend each other in a circle: {circle}"
    return found


def _yaml_names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir() if entry.name.endswith(SUFFIXES)][:1000]
    except OSError:  # no folder, or none that may be listed
        return []


def join(below: Source, above: Source, drop: tuple[str, ...] = ()) -> Source:
    """``above`` on top of ``below``, without the top-level keys ``drop`` of ``below``."""
    joined = Source(above.text)
    joined.texts = tuple({text.filename: text for text in (*below.texts, *above.texts)}.values())
    joined.places = below.places | above.places
    joined.issues = list(above.issues)
    base = {key: value for key, value in below.data.items() if key not in drop}
    joined.put(base, below.where(below.data))
    joined.data = _join(base, above.data, joined)
    return joined


def _join(below: dict[Any, Any], above: dict[Any, Any], source: Source) -> dict[Any, Any]:
    data, where = dict(below), dict(source.where(below))
    for key, value in above.items():
        lower = data.get(key)
        if value is None:
            data.pop(key, None)
            where.pop(key, None)
            continue
        if isinstance(value, dict):
            if not isinstance(lower, dict):
                source.put(lower := {}, {})
            value = _join(lower, value, source)
        data[key] = value
        where[key] = source.where(above)[key]
    source.put(data, where)
    return data


def _without(source: Source, keys: tuple[str, ...]) -> Source:
    """Take top-level keys out of ``source.data``, in a new mapping."""
    data = {key: value for key, value in source.data.items() if key not in keys}
    source.put(data, source.where(source.data))
    source.data = data
    return source

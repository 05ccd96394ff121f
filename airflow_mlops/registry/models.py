"""The models of a registry by their keys, in stored pages of some hundred keys each; one is read when it is needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.registry.pages import UnusablePage, read_page, write_page
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.registry.rollout import begun, moved
from airflow_mlops.store.base import Store

KEYS = 256


@dataclass
class Model:
    """Versions and aliases of one model key.

    :param places: rows of its versions in the table of all, by number.
    :param before: former champions that a rollback would return to, the latest last.
    :param rollout: what :func:`~airflow_mlops.registry.rollout.rollout_of` takes, while one is under way.
    """

    key: str | None
    places: list[int] = field(default_factory=list)
    champion: int | None = None
    challenger: int | None = None
    before: list[int] = field(default_factory=list)
    rollout: dict[str, Any] | None = None

    def crown(self, number: int) -> None:
        """Make a version the champion."""
        if self.champion not in (None, number):
            self.before.append(self.champion)
        self.champion = number
        self.challenger = None if self.challenger == number else self.challenger
        self.end_rollout()

    def step_back(self, number: int) -> None:
        """Make ``number``, the last of ``before``, the champion again."""
        while self.before and self.before.pop() != number:
            pass
        self.champion = number
        self.challenger = None if self.challenger == number else self.challenger
        self.end_rollout()

    def try_out(self, number: int) -> None:
        """Make a version the challenger; one that rolls out stays it."""
        if self.rollout is None:
            self.challenger = number

    def roll(self, seq: int, payload: dict[str, Any]) -> None:
        """Begin a rollout, take it a step further, or end it."""
        if payload["kind"] == "begin":
            self.rollout, self.challenger = begun(seq, payload), payload["version"]
        elif self.rollout is not None and (kept := moved(self.rollout, payload)) is not None:
            self.rollout = kept
        else:
            self.end_rollout()

    def end_rollout(self) -> None:
        """Free the challenger that was rolled out: it was judged against a champion that is none any more, or fell."""
        if self.rollout is not None:
            self.rollout = self.challenger = None

    def retire(self, number: int) -> None:
        """Never return to a version, nor try it; without its champion a model has nothing to return to or to try."""
        if number == self.champion:
            self.champion = self.challenger = self.rollout = None
            self.before = []
            return
        if self.rollout is not None and self.rollout["version"] == number:
            self.end_rollout()
        self.challenger = None if self.challenger == number else self.challenger
        kept: list[int] = []
        for n in self.before:
            if n != number and (not kept or kept[-1] != n):
                kept.append(n)
        # Without the one between them, a champion could stand before itself.
        while kept and kept[-1] == self.champion:
            kept.pop()
        self.before = kept


@dataclass
class _Page:
    """Models of neighbouring keys.

    :param first: the least key, as it is ordered; of the first page, less than any.
    :param digest: of the stored page; None: it is not stored as it is.
    :param found: the models by key; None: they were not read yet.
    """

    first: tuple[bool, str]
    rows: int
    digest: str | None
    found: dict[str | None, Model] | None


class Models:
    """The table.

    :param stored: first key, number of rows and digest of each page, in order of the keys.
    """

    def __init__(self, store: Store, stored: Collection[tuple[str | None, int, str]] = ()) -> None:
        self._store = store
        self._pages = [_Page(_order(first), rows, digest, None) for first, rows, digest in stored]
        self._saved = {page.digest for page in self._pages}

    def __len__(self) -> int:
        return sum(page.rows for page in self._pages)

    def __iter__(self) -> Iterator[str | None]:
        return (model.key for model in self.values())

    def get(self, key: str | None) -> Model | None:
        """Return the model of a key, if there is one.

        :raises UnusablePage: when its page is missing or damaged.
        """
        return self._loaded(self._page(key)).get(key) if self._pages else None

    def peek(self, key: str | None) -> Model:
        """Return the model of a key, to be looked at.

        :raises KeyError: when there is none.
        """
        if (model := self.get(key)) is None:
            raise KeyError(key)
        return model

    def change(self, key: str | None) -> Model:
        """Return the model of a key, to be changed.

        :raises KeyError: when there is none.
        """
        model = self.peek(key)
        self._page(key).digest = None
        return model

    def make(self, key: str | None) -> Model:
        """Return the model of a key, to be changed; a new one where there is none."""
        if not self._pages:
            self._pages.append(_Page(_order(None), 0, None, {}))
        page = self._page(key)
        found = self._loaded(page)
        if key not in found:
            found[key] = Model(key)
            page.rows += 1
        page.digest = None
        return found[key]

    def values(self) -> list[Model]:
        """Return every model, in order of the keys."""
        missing = [page for page in self._pages if page.found is None]
        for page, found in zip(missing, parallel(self._read, missing, self._store), strict=True):
            page.found = found
        return [model for page in self._pages for model in _sorted(self._loaded(page))]

    def save(self, *, mend: bool = False) -> list[tuple[str | None, int, str]]:
        """Store the pages that are new or changed, and return what the constructor takes.

        :param mend: write over a page that is already there: it may be damaged.
        """
        pages: list[_Page] = []
        for page in self._pages:
            pages += [page] if page.digest is not None else self._parts(page)
        for page in pages:
            if page.digest is None:
                rows = [_row(model) for model in _sorted(self._loaded(page))]
                page.digest = write_page(self._store, rows, self._saved, mend)
        self._pages, self._saved = pages, {page.digest for page in pages}
        return [(page.first[1] if page.first[0] else None, page.rows, page.digest or "") for page in pages]

    def _parts(self, page: _Page) -> list[_Page]:
        """A changed page, in two or more where it has become too long."""
        if page.rows <= 2 * KEYS:
            return [page]
        every = _sorted(self._loaded(page))
        cut = [every[first : first + KEYS] for first in range(0, len(every), KEYS)]
        firsts = [page.first, *(_order(part[0].key) for part in cut[1:])]
        return [
            _Page(first, len(part), None, {model.key: model for model in part})
            for first, part in zip(firsts, cut, strict=True)
        ]

    def _page(self, key: str | None) -> _Page:
        return self._pages[max(bisect_right(self._pages, _order(key), key=lambda page: page.first) - 1, 0)]

    def _loaded(self, page: _Page) -> dict[str | None, Model]:
        if page.found is None:
            page.found = self._read(page)
        return page.found

    def _read(self, page: _Page) -> dict[str | None, Model]:
        rows = read_page(self._store, page.digest, page.rows)
        try:
            found = {row[0]: Model(*row) for row in rows}
        except (TypeError, IndexError) as e:
            raise UnusablePage(f"page {page.digest} of a checkpoint does not hold models") from e
        if len(found) != page.rows:
            raise UnusablePage(f"page {page.digest} of a checkpoint has a key twice")
        return found


def _order(key: str | None) -> tuple[bool, str]:
    return key is not None, key or ""


def _sorted(models: dict[str | None, Model]) -> list[Model]:
    return sorted(models.values(), key=lambda model: _order(model.key))


def _row(model: Model) -> list[Any]:
    row = [model.key, model.places, model.champion, model.challenger, model.before]
    return [*row, model.rollout] if model.rollout is not None else row

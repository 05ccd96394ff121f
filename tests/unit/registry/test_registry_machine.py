"""The registry against a simple model, while store calls fail, replies get lost, and writers die between calls."""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_mlops.exceptions import (
    ObjectExists,
    ObjectNotFound,
    PromotionConflict,
    RegistryError,
    StoreUnavailable,
)
from airflow_mlops.registry import Registry

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "25"))
STEPS = int(os.environ.get("MACHINE_STEPS", "25"))
LOG = "pipelines/p/log/"
KEYS = [None, "a", "b"]


class Killed(BaseException):
    """The process is gone; nothing may catch it."""


class Stormy:
    """A store in memory; at call ``at`` (from 0) of an operation, what ``kind`` says goes wrong, ``times`` times."""

    uri = "file:///in/memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.calm()

    def calm(self) -> None:
        self.at, self.kind, self.times = -1, "", 0
        self.overtake: Callable[[], None] | None = None

    def _call(self, action: Callable[[], Any]) -> Any:
        self.at -= 1
        hit = self.times > 0 and self.at < 0
        if hit:
            self.times -= 1
        if hit and self.kind == "request lost":
            raise StoreUnavailable("request lost")
        if hit and self.kind == "killed before":
            raise Killed
        result = action()
        if hit and self.kind == "reply lost":
            raise StoreUnavailable("reply lost")
        if hit and self.kind == "killed after":
            raise Killed
        return result

    def get(self, key: str) -> bytes:
        def action() -> bytes:
            if key not in self.objects:
                raise ObjectNotFound(key)
            return self.objects[key]

        return self._call(action)

    def put(self, key: str, data: bytes) -> None:
        self._call(lambda: self.objects.__setitem__(key, data))

    def put_if_absent(self, key: str, data: bytes) -> None:
        if self.overtake is not None and key.startswith(LOG):
            overtake, self.overtake = self.overtake, None
            overtake()

        def action() -> None:
            if key in self.objects:
                raise ObjectExists(key)
            self.objects[key] = data

        self._call(action)

    def exists(self, key: str) -> bool:
        return self._call(lambda: key in self.objects)

    def touch(self, key: str) -> None:
        self.get(key)

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(k for k in self.objects if k.startswith(prefix)))

    def delete(self, key: str) -> None:
        self._call(lambda: self.objects.pop(key, None))


class Clock:
    """In place of ``datetime``: the same sequence of times in every run, so that digests are the same too."""

    def __init__(self) -> None:
        self.ticks = 0

    def now(self, tz: tzinfo) -> datetime:
        self.ticks += 1
        return datetime(2026, 1, 1, tzinfo=tz) + timedelta(seconds=self.ticks)


class Refused(Exception):
    pass


def noted(notes: dict[str, list[dict[str, Any]]]) -> dict[str, list[Any]]:
    """Notes as the model has them: of a rollback only where to."""
    own = ("rollback", "retirement")
    return {kind: [n.get("to") if kind in own else n for n in found] for kind, found in notes.items()}


@dataclass
class One:
    """One model key, as simply as can be; ``line`` are the champions, the present one last."""

    versions: list[dict[str, Any]] = field(default_factory=list)
    line: list[int] = field(default_factory=list)
    challenger: int | None = None

    @property
    def champion(self) -> int | None:
        return self.line[-1] if self.line else None

    def need(self, number: int) -> dict[str, Any]:
        if not 1 <= number <= len(self.versions):
            raise Refused
        return self.versions[number - 1]

    def register(self, record: Any) -> int:
        self.versions.append({"record": record, "tags": {}, "notes": {}, "retired": False})
        return len(self.versions)

    def annotate(self, number: int, kind: str, note: Any) -> int:
        self.need(number)["notes"].setdefault(kind, []).append(note)
        return number

    def tag(self, number: int, name: str, value: Any) -> int:
        tags = self.need(number)["tags"]
        tags.pop(name, None)
        if value is not None:
            tags[name] = value
        return number

    def promote(self, number: int, expected: int | None) -> int:
        if self.need(number)["retired"] or expected != self.champion:
            raise Refused
        if number != self.champion:
            self.line.append(number)
        self.challenger = None if self.challenger == number else self.challenger
        return number

    def rollback(self, expected: int) -> int:
        self.need(expected)
        if expected != self.champion:
            raise Refused
        line = self.line[:-1]
        while line and (self.versions[line[-1] - 1]["retired"] or line[-1] == expected):
            line.pop()
        if not line:
            raise Refused
        self.line = line
        self.challenger = None if self.challenger == line[-1] else self.challenger
        self.need(expected)["notes"].setdefault("rollback", []).append(line[-1])
        return line[-1]

    def retire(self, number: int) -> int:
        version = self.need(number)
        if number == self.champion:
            raise Refused
        version["retired"] = True
        version["notes"].setdefault("retirement", []).append(None)
        self.challenger = None if self.challenger == number else self.challenger
        return number

    def vanish(self, number: int) -> int:
        version = self.need(number)
        if number != self.champion:
            raise Refused
        version["retired"] = True
        version["notes"].setdefault("retirement", []).append(None)
        self.line, self.challenger = [], None
        return number

    def challenge(self, number: int) -> int:
        if self.need(number)["retired"]:
            raise Refused
        self.challenger = number
        return number

    def status(self, number: int) -> str:
        if number == self.champion:
            return "champion"
        if number == self.challenger:
            return "challenger"
        return "retired" if self.versions[number - 1]["retired"] else "candidate"


@dataclass
class Op:
    """An operation and what it came to, once it is in the log: a number, or numbers by key (None: left out)."""

    id: str
    name: str
    key: str | None
    args: dict[str, Any]
    result: Any = None
    committed: bool = False

    def call(self, registry: Registry) -> Any:
        """Do it; return numbers as in ``result``."""
        more = {"op_id": self.id} | ({} if self.name.endswith("_many") else {"key": self.key})
        if self.name in ("promote", "promote_many", "rollback", "retire", "retire_many"):
            more["reason"] = "r"
        found = getattr(registry, "set_challenger" if self.name == "challenge" else self.name)(
            *self.args.get("args", ()), **self.args.get("more", {}), **more
        )
        if isinstance(found, dict):
            return {k: None if isinstance(v, PromotionConflict) else v.number for k, v in found.items()}
        return found.number

    def on(self, models: dict[str | None, One]) -> Any:
        """What the model makes of it; Refused leaves it as it was."""
        args = self.args.get("args", ())
        if self.name == "register_many":
            return {k: models.setdefault(k, One()).register(r) for k, r in args[0].items()}
        if self.name == "annotate_many":
            for k, (number, _, _) in args[0].items():
                models.get(k, One()).need(number)
            return {k: models[k].annotate(*said) for k, said in args[0].items()}
        if self.name in ("promote_many", "retire_many"):
            todo = {k: said if isinstance(said, tuple) else (said,) for k, said in args[0].items()}
            for k, (number, *_) in todo.items():
                models.get(k, One()).need(number)
            done = {}
            for k, said in todo.items():
                try:
                    done[k] = models[k].promote(*said) if self.name == "promote_many" else models[k].vanish(*said)
                except Refused:
                    done[k] = None
            if not any(done.values()):
                raise Refused
            return done
        one = models.setdefault(self.key, One()) if self.name == "register" else models.get(self.key, One())
        return getattr(one, self.name)(*args, **self.args.get("more", {}))


number = st.integers(1, 4)
maybe = st.none() | number
shards = st.lists(st.sampled_from(KEYS[1:]), unique=True, min_size=1)
faults = st.tuples(
    st.integers(0, 12),
    st.sampled_from(["", "request lost", "reply lost", "killed before", "killed after", "overtaken"]),
    st.sampled_from([1, 1, 2, 9]),
)
singles = st.one_of(
    st.builds(lambda x: ("register", {"args": [{"x": x, "metrics": {"auc": x}}]}), st.integers(0, 9)),
    st.builds(lambda n, e: ("promote", {"args": [n], "more": {"expected": e}}), number, maybe),
    st.builds(lambda e: ("rollback", {"more": {"expected": e}}), number),
    st.builds(lambda n: ("retire", {"args": [n]}), number),
    st.builds(lambda n: ("challenge", {"args": [n]}), number),
    st.builds(lambda n, v: ("tag", {"args": [n, "t", v]}), number, st.sampled_from(["x", "y", None])),
    st.builds(lambda n, k, v: ("annotate", {"args": [n, k, {"v": v}]}), number, st.sampled_from("gh"), number),
)


steps = st.tuples(
    st.sampled_from(["register", "promote", "promote", "rollback", "rollback", "retire", "challenge", "stale"]),
    st.integers(0, 5),
    st.integers(0, 2),
)


class Machine(RuleBasedStateMachine):
    """Three writers with caches of their own; which one works, and what goes wrong, is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(time, "sleep", lambda _: None)
        for module in ("log", "chain"):  # what they warn of is what this test does to them
            self.patch.setattr(logging.getLogger(f"airflow_mlops.registry.{module}"), "disabled", True)
        self.patch.setattr("airflow_mlops.registry.log.datetime", Clock())
        self.patch.setattr("airflow_mlops.registry.log._CHECKPOINT", 3)
        self.patch.setattr("airflow_mlops.registry.log._PACK", 4)
        self.patch.setattr("airflow_mlops.registry.log._AHEAD", 3)
        self.patch.setattr("airflow_mlops.registry.pages.ROWS", 4)
        self.patch.setattr("airflow_mlops.registry.models.KEYS", 1)
        self.patch.setattr("airflow_mlops.store.content._LONG", 200)
        self.store = Stormy()
        self.models: dict[str | None, One] = {}
        self.ops: dict[str, Op] = {}
        self.seen: list[bytes] = []
        self.writers: list[Registry] = []

    @initialize()
    def open(self) -> None:
        self.writers = [Registry(self.store, "p") for _ in range(3)]
        self.reader = Registry(self.store, "p")

    def teardown(self) -> None:
        try:
            if self.writers:
                self.store.calm()
                for writer in [*self.writers, Registry(self.store, "p")]:
                    self.compare(writer)
                with_checkpoint = self.whole(Registry(self.store, "p"))
                self.store.objects.pop(f"{LOG}HEAD", None)
                assert self.whole(Registry(self.store, "p")) == with_checkpoint
                ids = [json.loads(raw)["op_id"] for raw in self.seen]
                assert len(ids) == len(set(ids))
        finally:
            self.patch.undo()

    # --- what may happen -------------------------------------------------------------------------

    @rule(who=st.integers(0, 2), what=singles, key=st.sampled_from(KEYS), fault=faults)
    def one(self, who: int, what: tuple[str, dict[str, Any]], key: str | None, fault: tuple[int, str, int]) -> None:
        name, args = what
        self.run(self.new(name, key, args), who, fault)

    @rule(todo=st.lists(steps, min_size=4, max_size=16), key=st.sampled_from(KEYS), fault=faults)
    def a_while(self, todo: list[tuple[str, int, int]], key: str | None, fault: tuple[int, str, int]) -> None:
        """Much that fits what is there, and then something goes wrong with the last of it."""
        for turn, (name, pick, who) in enumerate(todo):
            one = self.models.get(key, One())
            newest = len(one.versions)
            more = {"expected": one.champion}
            if name == "register" or not newest:
                op = self.new("register", key, {"args": [{"x": turn}]})
            elif name == "stale":
                op = self.new("promote", key, {"args": [1 + pick % newest], "more": {"expected": pick or None}})
            elif name == "rollback" and one.champion is not None:
                op = self.new("rollback", key, {"more": more})
            elif name in ("promote", "rollback"):
                op = self.new("promote", key, {"args": [1 + pick % newest], "more": more})
            else:
                op = self.new(name, key, {"args": [1 + pick % newest]})
            self.run(op, who, fault if turn == len(todo) - 1 else (0, "", 0))

    @rule(who=st.integers(0, 2), keys=shards, fault=faults)
    def register_shard(self, who: int, keys: list[str], fault: tuple[int, str, int]) -> None:
        records = {k: {"x": i, "batch": len(self.ops)} for i, k in enumerate(keys)}
        self.run(self.new("register_many", None, {"args": [records]}), who, fault)

    @precondition(lambda self: set(self.models) - {None})
    @rule(data=st.data(), who=st.integers(0, 2), fault=faults)
    def promote_shard(self, data: st.DataObject, who: int, fault: tuple[int, str, int]) -> None:
        keys = self.shard(data)
        expected = st.sampled_from(["now", None, 1])
        promotions = {}
        for k in keys:
            then = data.draw(expected)
            newest = len(self.models[k].versions)
            promotions[k] = (
                data.draw(st.integers(1, newest)), self.models[k].champion if then == "now" else then,
            )  # fmt: skip
        self.run(self.new("promote_many", None, {"args": [promotions]}), who, fault)

    @precondition(lambda self: set(self.models) - {None})
    @rule(data=st.data(), who=st.integers(0, 2), fault=faults)
    def annotate_shard(self, data: st.DataObject, who: int, fault: tuple[int, str, int]) -> None:
        said = {
            k: (data.draw(st.integers(1, len(self.models[k].versions) + 1)), data.draw(st.sampled_from("gh")), {"v": k})
            for k in self.shard(data)
        }
        self.run(self.new("annotate_many", None, {"args": [said]}), who, fault)

    @precondition(lambda self: set(self.models) - {None})
    @rule(data=st.data(), who=st.integers(0, 2), fault=faults)
    def retire_shard(self, data: st.DataObject, who: int, fault: tuple[int, str, int]) -> None:
        """Keys that vanish; some have no champion, or another one."""
        stale = data.draw(st.booleans())
        gone = {k: 1 if stale else self.models[k].champion or 1 for k in self.shard(data)}
        self.run(self.new("retire_many", None, {"args": [gone]}), who, fault)

    def shard(self, data: st.DataObject) -> list[str]:
        known = [k for k in KEYS[1:] if k in self.models]
        return data.draw(st.lists(st.sampled_from(known), unique=True, min_size=1))

    @precondition(lambda self: self.ops)
    @rule(data=st.data(), who=st.integers(0, 2), fault=faults)
    def again(self, data: st.DataObject, who: int, fault: tuple[int, str, int]) -> None:
        """A retry: of what was committed, or of what was not."""
        self.run(self.ops[data.draw(st.sampled_from(sorted(self.ops)))], who, fault)

    @rule(who=st.integers(0, 2))
    def restart(self, who: int) -> None:
        self.writers[who] = Registry(self.store, "p")

    @rule(data=st.data())
    def lose_what_is_a_hint(self, data: st.DataObject) -> None:
        """HEAD, packs and checkpoints may go at any time; the items of batches may not."""
        items = {json.loads(raw)["payload"].get("items") for raw in self.seen}
        hints = sorted(
            k for k in self.store.objects
            if k == f"{LOG}HEAD" or (k.startswith("blobs/") and k.rpartition("/")[2] not in items)
        )  # fmt: skip
        if hints:
            for key in data.draw(st.lists(st.sampled_from(hints), unique=True)):
                del self.store.objects[key]

    @rule(who=st.integers(0, 2), fault=faults)
    def read_in_a_storm(self, who: int, fault: tuple[int, str, int]) -> None:
        self.store.at, self.store.kind, self.store.times = fault
        try:
            self.compare(self.writers[who])
        except StoreUnavailable:
            pass
        except Killed:
            self.writers[who] = Registry(self.store, "p")
        finally:
            self.store.calm()
        self.compare(self.writers[who])

    # --- how it is judged ------------------------------------------------------------------------

    def new(self, name: str, key: str | None, args: dict[str, Any]) -> Op:
        op = Op(f"op{len(self.ops):03}", name, key, args)
        self.ops[op.id] = op
        return op

    def run(self, op: Op, who: int, fault: tuple[int, str, int]) -> None:
        self.store.at, self.store.kind, self.store.times = fault
        if self.store.kind == "overtaken":
            self.store.times = 0
            rival = self.new("register", op.key, {"args": [{"x": "rival"}]})
            self.store.overtake = lambda: rival.call(Registry(self.store, "p")) and None
        before = op.committed
        try:
            result = op.call(self.writers[who])
        except StoreUnavailable:
            self.absorb()
            return
        except Killed:
            self.writers[who] = Registry(self.store, "p")
            self.absorb()
            return
        except RegistryError:
            self.absorb()
            assert not op.committed, "refused, and yet done"
            with pytest.raises(Refused):
                op.on(copy.deepcopy(self.models))
            return
        finally:
            self.store.calm()
        count = len(self.seen)
        self.absorb()
        if not op.committed:
            # Nothing could be promoted: every key is reported, and nothing is written.
            assert op.name in ("promote_many", "retire_many")
            assert not any(result.values())
            with pytest.raises(Refused):
                op.on(copy.deepcopy(self.models))
            return
        assert result == op.result
        assert not before or count == len(self.seen) or fault[1] == "overtaken"

    def absorb(self) -> None:
        """Replay on the model what has come to the log, entry by entry; the past must be as it was."""
        keys = sorted(k for k in self.store.objects if k.startswith(LOG) and k.endswith(".json"))
        entries = [self.store.objects[k] for k in keys]
        assert entries[: len(self.seen)] == self.seen, "history was rewritten"
        for raw in entries[len(self.seen) :]:
            op = self.ops[json.loads(raw)["op_id"]]
            assert not op.committed, f"{op} was committed twice"
            # Refused here: the entry does not fit the state it follows.
            op.result = op.on(self.models)
            op.committed = True
        self.seen = entries

    @invariant()
    def a_reader_sees_it(self) -> None:
        if self.writers:
            self.compare(self.reader)

    def compare(self, registry: Registry) -> None:
        assert registry.keys() == sorted(self.models, key=lambda k: k or "")
        for key, one in self.models.items():
            champion, challenger = registry.champion(key), registry.challenger(key)
            assert (champion and champion.number) == one.champion
            assert (challenger and challenger.number) == one.challenger
            found = registry.versions(key)
            assert [v.record for v in found] == [v["record"] for v in one.versions]
            assert [v.status for v in found] == [one.status(n + 1) for n in range(len(one.versions))]
            assert [v.tags for v in found] == [v["tags"] for v in one.versions]
            assert [noted(v.notes) for v in found] == [v["notes"] for v in one.versions]

    @staticmethod
    def whole(registry: Registry) -> Any:
        return registry.log.view(
            lambda state: (
                [vars(m) for m in state.models.values()],
                [vars(row) for m in state.models.values() for row in state.rows(m)],
                (state.seq, state.checksum, state.at, state.action),
                [state.checksum_of(seq) for seq in range(1, state.seq + 1)],
            )
        )


TestStorm = Machine.TestCase
TestStorm.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)

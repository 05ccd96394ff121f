"""Rows that are tests of ``make test`` at a larger size."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.chaos.rows import Row

ROOT = Path(__file__).parents[2]


def suite(fault: str, unit: str, least: int, test: str, more: str = "", **sizes: int) -> Row:
    """Run one test with these environment variables.

    :param least: how many tries that makes; 0: as many as tests were passed.
    """
    row = Row(fault, unit, least, more=more)

    def work() -> None:
        command = [sys.executable, "-m", "pytest", "-q", "--timeout=0", "-p", "no:cacheprovider", test]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True,
            env=os.environ | {name: str(size) for name, size in sizes.items()},
        )  # fmt: skip
        passed = re.search(r"(\d+) passed", done.stdout)
        if done.returncode or not passed or re.search(r"\d+ (skipped|failed|error)", done.stdout):
            row.wrong("other", f"{test} with {sizes}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        elif passed:
            row.tried = least or int(passed[1])

    return row.timed(work)


def machine(examples: int = 2000, steps: int = 50) -> Row:
    """The registry against a simple model."""
    return suite(
        "Hypothesis state machine, a crash or lost reply in any store call", "histories", examples,
        "tests/unit/registry/test_registry_machine.py", f"of up to {steps} steps",
        MACHINE_EXAMPLES=examples, MACHINE_STEPS=steps,
    )  # fmt: skip


def corruptions(turns: int = 10_000) -> Row:
    """Damage of any object."""
    test = "tests/unit/registry/test_registry.py::test_damage_is_detected_or_harmless"
    return suite("log, blob or HEAD corrupted", "corruptions", turns, test, "detected or harmless", CORRUPTIONS=turns)


def tampered(attempts: int = 1000) -> Row:
    """Models that somebody changed on purpose."""
    test = "tests/unit/registry/test_tampering.py"
    return suite("model artefact tampered with", "artefacts", attempts, test, "none deserialised", TAMPERED=attempts)


def scan() -> Row:
    """The package's own source."""
    return suite("scan of the package's source for unsafe loads", "tests", 0, "tests/unit/test_source_scan.py")

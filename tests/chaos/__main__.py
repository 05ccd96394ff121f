"""``python -m tests.chaos [--small] [ROW …]``: let everything fail, and print a table of what came of it.

Exit status 1 when a row does not hold. All is repeatable but for the order in which processes run.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable

from tests.chaos import delivery, local, races, s3, suites
from tests.chaos.rows import HEAD, Row, line

# By name: the row as `make chaos` runs it, and as `make test` does; None: `make test` has it anyway.
ROWS: dict[str, tuple[Callable[[], Row], Callable[[], Row] | None]] = {
    "kill-local": (local.killed, lambda: local.killed(2)),
    "full-disk": (local.full, lambda: local.full(2)),
    "kill-s3": (s3.killed, lambda: s3.killed(1)),
    "faulty-s3": (s3.faulty, lambda: s3.faulty(16)),
    "promotions": (races.promotions, lambda: races.promotions(5)),
    "copies": (races.copies, lambda: races.copies(20)),
    "kill-delivery": (delivery.killed, lambda: delivery.killed(2)),
    "cut-delivery": (delivery.cut, lambda: delivery.cut(1)),
    "deliveries": (delivery.races, lambda: delivery.races(2, 4)),
    "machine": (suites.machine, None),
    "corruptions": (suites.corruptions, None),
    "tampered": (suites.tampered, None),
    "scan": (suites.scan, None),
}

_TOLD = 20


def main(arguments: list[str] | None = None) -> int:
    """Run the rows, and print each as it ends; what was wrong goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--small", action="store_true", help="a few tries of each")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    os.nice(5)
    # What the package warns of is what is done to it here.
    logging.disable(logging.CRITICAL)
    print(line(HEAD), line(["---"] * len(HEAD)), sep="\n", flush=True)
    failed = False
    for name, (full, small) in ROWS.items():
        run = small if chosen.small else full
        if run is None or (chosen.rows and name not in chosen.rows):
            continue
        row = run()
        print(line(row.cells()), flush=True)
        failed |= not row.ok
        for problem in row.problems[:_TOLD]:
            print(f"\n{name}: {problem}", file=sys.stderr, flush=True)
        if len(row.problems) > _TOLD:
            print(f"\n{name}: and {len(row.problems) - _TOLD} more", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""How a command ends that cannot do what it was asked."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from airflow_mlops.config.harmless import harmless_lines
from airflow_mlops.exceptions import MLOpsError

_PACKAGE = str(Path(__file__).parents[1])


def clear_errors(function: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """End with one clear message and exit code 1 instead of a traceback.

    Where the message promises the traceback of the pipeline's own code, that follows it.
    """

    @functools.wraps(function)
    def command(args: Namespace) -> None:
        try:
            function(args)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has enough (`| head`). Python would complain again when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except MLOpsError as e:
            print(f"airflow mlops: {harmless_lines(str(e))}", file=sys.stderr)
            if e.__cause__ is not None and "traceback" in (e.hint or ""):
                _print_own(e.__cause__)
            raise SystemExit(1) from None

    return command


def _print_own(error: BaseException) -> None:
    """Print a traceback without the calls of this package that led to the pipeline's code."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None and at.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        at = at.tb_next
    traceback.print_exception(type(error), error, at)

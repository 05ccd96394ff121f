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
from airflow_mlops.exceptions import ConfigError, MLOpsError

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
        except KeyboardInterrupt:
            print("\nairflow mlops: stopped", file=sys.stderr)
            raise SystemExit(130) from None
        except OSError as e:
            if e.filename is None:  # not about a file that somebody named
                raise
            said = f"{os.fsdecode(e.filename)}: {e.strerror}\n  What to do: check the path, and the rights on it"
            print(f"airflow mlops: {harmless_lines(said)}", file=sys.stderr)
            raise SystemExit(1) from None

    return command


def utf8(text: str, what: str) -> str:
    """``text`` of a command line, if it is UTF-8; other bytes cannot be recorded, nor sent to Airflow.

    :raises ConfigError: it is not.
    """
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise ConfigError(f"{what} {text!r} is not UTF-8", hint="write it in UTF-8") from e
    return text


def _print_own(error: BaseException) -> None:
    """Print a traceback without the calls of this package that led to the pipeline's code."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None and at.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        at = at.tb_next
    traceback.print_exception(type(error), error, at)

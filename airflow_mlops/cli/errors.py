"""How a command ends that cannot do what it was asked."""

from __future__ import annotations

import functools
import sys
from argparse import Namespace
from collections.abc import Callable

from airflow_mlops.exceptions import MLOpsError


def clear_errors(function: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """End with one clear message and exit code 1 instead of a traceback."""

    @functools.wraps(function)
    def command(args: Namespace) -> None:
        try:
            function(args)
        except MLOpsError as e:
            print(f"airflow mlops: {e}", file=sys.stderr)
            raise SystemExit(1) from None

    return command

"""The command ``inst-align``.

Everything but the arguments is imported when a command runs, so that ``inst-align --help`` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from inst_align.cli._options import parser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from argparse import Namespace

__all__ = ["main"]

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130
"""Exit codes; 2 is also argparse's, and 130 what shells give for Ctrl-C."""

FOR_DEVELOPERS = (DeprecationWarning, FutureWarning, ImportWarning, PendingDeprecationWarning, ResourceWarning)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments, without the command's name; None takes those of the process.

    Returns
    -------
    The exit code: 0, or 2 for input that cannot be used (one sentence on stderr says why), or 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version``, and when the arguments are not understood.
    """
    arguments = parser()
    options = arguments.parse_args(argv)
    if options.command is None:
        arguments.print_help(sys.stderr)
        return BAD_INPUT
    try:
        with _warnings_as_lines():
            _run(options)
    except KeyboardInterrupt:
        print("inst-align: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (KeyError, MemoryError, OSError, TypeError, ValueError) as error:
        if options.debug:
            raise
        print(f"inst-align: error: {_sentence(error)}", file=sys.stderr)
        return BAD_INPUT
    return DONE


def _run(options: Namespace) -> None:
    if options.command == "demo":
        from inst_align.cli._demo import demo

        demo(options)
    elif options.command == "report":
        from inst_align.cli._report import report

        report(options)
    else:
        from inst_align.cli._align import align

        align(options)


def _sentence(error: Exception) -> str:
    """Return an error's message on one line. A KeyError's own str() would put it in quotes."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split()) or type(error).__name__


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each warning as one line on stderr, and none that only developers can act on."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for category in FOR_DEVELOPERS:
            warnings.simplefilter("ignore", category)
        warnings.showwarning = show
        yield

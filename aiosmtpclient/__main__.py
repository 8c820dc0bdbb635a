"""The front door of the command line: `aiosmtpclient`, or `python -m aiosmtpclient`.

Rules of this room:

* What can be expected to fail ends in one line on standard error and an exit code, never in a
  traceback (unless `--debug` asks for it). Anything else is a bug, and shows itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from . import __version__
from .cli import bulk, check, demo, send
from .cli.exits import EPILOG, Exit, Failure, exit_of
from .cli.options import Parser, in_options
from .cli.printing import PROGRAM, complain, trace_back
from .errors import SMTPException


def parser() -> Parser:
    """Return the parser of all commands."""
    top = Parser(
        prog=PROGRAM,
        description="Send mail over SMTP or LMTP, and know exactly what became of it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in (send, bulk, check, demo):
        command.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line.

    Args:
        argv: the arguments without the program's name; None for those of this process.

    Returns:
        What to exit with: 0, or a number of sysexits.h.
    """
    try:
        return _carry_out(parser().parse_args(argv))
    except SystemExit as leaving:  # argparse, after --help, --version or a complaint
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        complain("interrupted")
        return Exit.INTERRUPTED


def _carry_out(arguments: argparse.Namespace) -> Exit:
    try:
        code: Exit = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except (Failure, SMTPException) as error:
        _explain(error, arguments)
        return exit_of(error)
    except OSError as error:  # every other one became a Failure: our output cannot be written
        if not isinstance(error, BrokenPipeError):
            _explain(error, arguments)
        _silence()
        return Exit.IOERR


def _explain(error: Exception, arguments: argparse.Namespace) -> None:
    if arguments.debug:
        trace_back(error)
    complain(in_options(str(error)))


def _silence() -> None:
    """Whoever read our output is gone: what is still buffered must not fail once more at exit."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())

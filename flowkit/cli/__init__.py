"""The command `flowkit`: reads the arguments, loads the one command asked for, and turns errors into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

FINISHED, FAILED, USAGE, TIMEOUT, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code: 0 done, 1 failed, 2 bad usage or graph, 3 timeout, 130 interrupted."""
    from flowkit.cli.parser import make_parser

    try:
        args, unknown = make_parser().parse_known_args(argv)
        if unknown:
            args.parser.error(getattr(args, "surplus", "") or f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit as end:  # argparse has said what is wrong, or was asked for help
        return end.code if isinstance(end.code, int) else USAGE
    debug = getattr(args, "debug", False)
    try:
        code: int = import_module(args.home).main(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _pipe_closed()
    except Exception as error:  # the command's last line: one sentence and an exit code, not a traceback
        if debug:
            raise
        from flowkit.cli.console import report

        return report(error)


def _pipe_closed() -> int:
    """Whoever read us has gone (`flowkit tasks list | head`): not an error, and nothing more to be written."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED

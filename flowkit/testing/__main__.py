"""`python -m flowkit.testing run|trace|guards`: simulate seeds, show one, take each guard away in turn."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flowkit.testing import runner, teeth
from flowkit.testing.guards import GUARDS, HARMLESS, find, removed
from flowkit.testing.world import MODES


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return int(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flowkit.testing", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="run | trace | guards")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--mode", choices=MODES, default="chaos")
    common.add_argument("--without", action="append", default=[], metavar="GUARD", help="take this guard away")
    common.add_argument("--directed", action="append", default=[], metavar="FAULT", help="add this directed fault")

    run = commands.add_parser("run", parents=[common], help="simulate seeds and sum up")
    run.add_argument("--seeds", type=_seeds, default=range(100), metavar="A:B", help="from A to B, B excluded")
    run.add_argument("--jobs", type=int, default=None, help="processes (default: one per core)")
    run.add_argument("--json", action="store_true", help="the figures as JSON")
    run.set_defaults(run=_run)

    trace = commands.add_parser("trace", parents=[common], help="show the history of one seed")
    trace.add_argument("seed", type=int)
    trace.set_defaults(run=_trace)

    guards = commands.add_parser("guards", help="list the guards that --without takes away, or see who misses them")
    guards.add_argument("names", nargs="*", metavar="GUARD", help="these only")
    guards.add_argument("--measure", action="store_true", help="take each away until a seed breaks a promise")
    guards.add_argument("--most", type=int, default=teeth.MOST_SEEDS, metavar="N", help="give up after so many seeds")
    guards.add_argument("--write", type=Path, metavar="FILE", help="measure, and write the result there as JSON")
    guards.add_argument("--jobs", type=int, default=None, help="processes (default: one per core)")
    guards.set_defaults(run=_guards)
    return parser


def _seeds(text: str) -> range:
    parts = [int(part) for part in text.split(":")]
    return range(parts[0], parts[0] + 1) if len(parts) == 1 else range(*parts)


def _run(options: argparse.Namespace) -> int:
    seeds: range = options.seeds
    if options.jobs == 1 or len(seeds) < 20 or seeds.step != 1:
        tally = runner.run_seeds(seeds, options.mode, without=options.without, directed=options.directed)
    else:
        tally = runner.run_in_processes(
            seeds.start, seeds.stop, options.mode, without=options.without, directed=options.directed, jobs=options.jobs
        )
    _say(runner.to_json(tally) if options.json else runner.describe(tally))
    return 1 if tally.bad else 0


def _trace(options: argparse.Namespace) -> int:
    from flowkit.testing.play import simulate

    with removed(options.without) as in_store:
        report = simulate(options.seed, options.mode, without=in_store, directed=options.directed, trace=True)
    for line in [*report.trace, *report.ends, *map(str, report.violations)]:
        _say(line)
    _say(f"trace hash {report.digest}, {report.steps} callbacks, recovered in {report.recover_sec:.1f} s")
    return 1 if report.violations else 0


def _guards(options: argparse.Namespace) -> int:
    names = options.names or list(GUARDS)
    if not options.measure and options.write is None:
        for guard in map(find, names):
            _say(f"{guard.name:20s} rule {guard.rule:2d}  {guard.about}")
        return 0

    def note(one: teeth.Bite) -> None:
        _say_bite(one)
        if options.write is not None:
            teeth.write(options.write, {**teeth.read(options.write), one.guard: one})

    found = teeth.bite_all(names, options.most, options.jobs or os.cpu_count() or 1, note)
    return 0 if all(one.kinds or one.guard in HARMLESS for one in found) else 1


def _say_bite(one: teeth.Bite) -> None:
    noticed = f"{', '.join(one.kinds)}: {one.command}" if one.kinds else "nobody noticed"
    _say(f"{one.guard:20s} {one.seeds:5d} seeds  {noticed}")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # A seed must replay byte for byte, also where the order of a set matters.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "flowkit.testing", *sys.argv[1:]])  # noqa: S606
    from flowkit.testing import play  # noqa: F401

    gc.freeze()  # what has been imported lasts, and each seed ends with a look at all that may be garbage
    sys.exit(main())

"""The command line: ``python -m benchmarks``, from the checkout's root."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import machine, plots, report
from .findings import find
from .runner import Runner, Settings
from .works import WORKS


def main() -> int:
    """Measure, and write the report."""
    arguments = _parser().parse_args()
    keys = [work.key for work in WORKS]
    if arguments.list:
        print("\n".join(f"{work.key:16} {work.title}" for work in WORKS))
        return 0
    unknown = sorted(set(arguments.only) - set(keys))
    if unknown:
        print(f"no such row: {', '.join(unknown)}; there are: {', '.join(keys)}", file=sys.stderr)
        return 2
    settings = Settings(arguments.quick, arguments.rounds, arguments.seconds, arguments.python_sink)
    _run(settings, set(arguments.only) or set(keys), arguments.out)
    return 0


def _run(settings: Settings, keys: set[str], out: Path) -> None:
    begin, load = time.monotonic(), machine.load()
    runner = Runner(
        settings, lambda line: print(f"{time.monotonic() - begin:5.0f} s  {line}", file=sys.stderr)
    )
    records = runner.run(work for work in WORKS if work.key in keys)
    about = {
        "kind of run": "quick: one short round, only to see that it works" if settings.quick else "full",
        "load before and after": f"{load}, {machine.load()}",
        "took": f"{time.monotonic() - begin:.0f} s",
    }
    findings = find(records, runner.notes, machine.describe(), about)
    out.mkdir(parents=True, exist_ok=True)
    report.write_json(out / "results.json", findings, records)
    drawn = plots.draw(out, findings) if plots.available() else []
    report.write_markdown(out / "report.md", findings, drawn)
    print(f"{out / 'report.md'} ({time.monotonic() - begin:.0f} s)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="SMTP clients side by side.")
    parser.add_argument("--quick", action="store_true", help="one short round, in under a minute")
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="may be given again")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="build/bench")
    parser.add_argument("--rounds", type=int, default=0, help="instead of what each row says")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long each run measures")
    parser.add_argument("--python-sink", action="store_true", help="use the sink that needs no compiler")
    parser.add_argument("--list", action="store_true", help="list the rows")
    return parser


if __name__ == "__main__":
    sys.exit(main())

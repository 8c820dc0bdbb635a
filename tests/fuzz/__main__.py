"""Long runs: `python -m tests.fuzz TARGET --runs 1000000`, or `all` for one target after the other.

With atheris installed (`pip install "aiosmtpclient[fuzz]"`) the octets are chosen by what they
reach in the package; without it, or with `--plain`, they are mutated by chance, from `--seed`. What
a target fails on is written to a file in `.fuzz/`, and `--replay FILE` shows it once more.

Rules of this room:

* One line of figures a target, at the end. The exit code is 0 if nothing was found.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

# As under pytest: what is in tests/ is found by its name.
sys.path.insert(0, str(Path(__file__).parents[1]))

TARGETS = ("replies", "hellos", "challenges", "callers", "verbs", "bodies", "conversations")
FOUND = Path(".fuzz")
ENOUGH = 5
"""Findings of different kinds after which a run ends."""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=5321)
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so many; 0 for no limit")
    parser.add_argument("--plain", action="store_true", help="without atheris, also where it is installed")
    parser.add_argument("--replay", type=Path, help="a file that was written before")
    given = parser.parse_args(arguments)
    if given.target == "all":
        return _all(sys.argv[1:] if arguments is None else arguments)
    if given.replay is not None:
        _target(given.target).check(given.replay.read_bytes())
        return 0
    if given.plain or importlib.util.find_spec("atheris") is None:
        return drive(given.target, given.runs, given.seed, given.seconds)
    return _guided(given.target, given.runs, given.seed, given.seconds)


def _target(name: str) -> ModuleType:
    return importlib.import_module(f"fuzz.{name}")


def _all(arguments: list[str]) -> int:
    rest = [argument for argument in arguments if argument != "all"]
    codes = [subprocess.call([sys.executable, "-m", "tests.fuzz", name, *rest]) for name in TARGETS]
    return max(codes)


def drive(name: str, runs: int, seed: int, seconds: float = 0.0) -> int:
    """Without atheris; returns the exit code."""
    from fuzz.mutations import octets_for

    target, found, started, done = _target(name), dict[str, bytes](), time.monotonic(), 0
    for octets in octets_for(target.SEEDS, seed):
        if done == runs or len(found) == ENOUGH or (seconds and time.monotonic() - started > seconds):
            break
        done += 1
        try:
            target.check(octets)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
            if kind not in found:
                found[kind] = octets
                _show(name, octets)
    _close()
    elapsed = time.monotonic() - started
    print(
        f"{name:<14}{done:>9} runs (by chance, seed {seed}), {len(found)} findings, {elapsed:.0f} s",
        flush=True,
    )
    return 1 if found else 0


def _show(name: str, octets: bytes) -> None:
    FOUND.mkdir(exist_ok=True)
    file = FOUND / f"{name}-{hashlib.sha256(octets).hexdigest()[:12]}"
    file.write_bytes(octets)
    traceback.print_exc()
    print(f"found: python -m tests.fuzz {name} --replay {file}", flush=True)


def _close() -> None:
    from fuzz import counter

    counter.close()


def _guided(name: str, runs: int, seed: int, seconds: float) -> int:
    """With atheris, which ends the process: libFuzzer prints the figures."""
    import atheris

    with atheris.instrument_imports(include=["aiosmtpclient"]):
        target = _target(name)
    FOUND.mkdir(exist_ok=True)
    corpus = FOUND / f"corpus-{name}"
    corpus.mkdir(exist_ok=True)
    for seed_octets in target.SEEDS:
        (corpus / hashlib.sha256(seed_octets).hexdigest()[:12]).write_bytes(seed_octets)
    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        "-max_len=400",
        "-timeout=60",
        f"-max_total_time={int(seconds)}",
    ]
    options += ["-print_final_stats=1", f"-artifact_prefix={FOUND}/{name}-", str(corpus)]
    atheris.Setup([sys.argv[0], *options], target.check)
    with contextlib.suppress(KeyboardInterrupt):
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())

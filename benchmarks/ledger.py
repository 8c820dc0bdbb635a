"""The ledger at full length: a million messages to a server that fails, and what became of each.

``python -m benchmarks.ledger`` sends them from many tasks through one pool. The server closes, resets
or says 421 on one connection of a hundred, at a random octet of what it reads or writes; one caller of
a thousand is cancelled at a random moment; one message of thirty is refused. At the end every message
must be in exactly one class, and

* what was accepted, the server has, and a reply said so: nothing is *lost*;
* the server has nothing twice: nothing is *duplicated*;
* what was refused or not sent, the server does not have: nothing is *stray*;
* of what is unknown the end had left, and no reply to it was read: nothing is *unexplained*.

It exits with 1 if one of these does not hold. The work is done by `tests/ledger.py`, of which the
tests run a small part.

Rules of this room:

* A message costs a few octets of memory, however many there are.
* The server is in the same process: both take turns in one loop, so a busy machine makes a run
  longer and no less random.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1] / "tests"
_CLASSES = ("accepted", "refused", "not_sent", "unknown")
_FAULTS = ("lost", "duplicated", "stray", "unexplained", "unclassified")


def main() -> int:
    """Read the command line, run."""
    sys.path.insert(0, str(_TESTS))  # as for the tests themselves, which are no package
    from ledger import MODES, run

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ledger", description="A million messages, and an exact account."
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--mode", choices=[*MODES, "all"], default="message", help="all: one after the other")
    parser.add_argument("--by", choices=["tasks", "bulk"], default="tasks", help="bulk cancels nobody")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--max-messages", type=int, default=20, help="on one connection")
    parser.add_argument("--faults", type=float, default=0.01, help="share of the connections")
    parser.add_argument("--cancels", type=float, default=0.001, help="share of the callers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    right = True
    for mode in MODES if arguments.mode == "all" else [arguments.mode]:
        print(f"{arguments.messages:,} messages, {mode}, seed {arguments.seed} …", flush=True)
        figures = run(
            arguments.messages,
            mode,
            arguments.seed,
            by=arguments.by,
            connections=arguments.connections,
            max_messages=arguments.max_messages,
            faults=arguments.faults,
            cancels=arguments.cancels,
        )
        counts = figures._asdict()
        print("  " + ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in _CLASSES))
        print("  " + ", ".join(f"{counts[name]} {name}" for name in _FAULTS), end="")
        print(": right" if figures.right else ": WRONG")
        print(
            f"  {figures.connections:,} connections, {figures.cut} cut, at most {figures.most_at_once} at "
            f"once; {figures.cancelled:,} callers cancelled; {figures.retried:,} further attempts; "
            f"{figures.seconds:.0f} s; highest memory {_highest():.0f} MiB",
            flush=True,
        )
        right = right and figures.right
    return 0 if right else 1


def _highest() -> float:
    """MiB that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())

"""The page that a run writes: server × feature, what each server advertises, and what surprised.

Rules of this room:

* The page says what was seen, nothing from memory: a cell that no test filled is empty.
* Nothing that differs from run to run (ports, times, counts) gets into it.
* docs/interop.md is rewritten, between its two markers, only by a whole run in which every
  server took part and nothing failed; any other run prints what it saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MODES = ("off", "message", "stream")
CHUNKS = ("off", "auto", "eager")
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
FEATURES = (
    "EHLO or LHLO read exactly",
    "STARTTLS",
    "TLS from the first octet",
    "AUTH",
    "Unix socket",
    "a plain message",
    "8-bit octets",
    "encoded header fields",
    "an address that is not ASCII",
    "a domain that is not ASCII",
    "10 MiB attached",
    "dots, bare CR and LF",
    "a line of 3000 octets",
    "200 recipients, every third refused",
    "a refused sender, then the next message",
    "SIZE exceeded, known before",
    "SIZE exceeded, found by the server",
    "DSN parameters",
    "the defaults",
    "110 messages on one connection",
    *(f'`pipelining="{one}"`, `chunking="{two}"`' for one in MODES for two in CHUNKS),
    "BDAT proven, before and after AUTH",
    "300 messages through a pool of 5",
    "the blocking classes",
    *(f'killed and resumed, `pipelining="{one}"`' for one in MODES[1:]),
)
PAGE = Path(__file__).parents[2] / "docs/interop.md"


class Matrix:
    """What the tests found out.

    Attributes:
        servers: name → version, of those that took part.
        absent: name → reason, of those that did not.
        offers: name → what it answers to EHLO or LHLO, by circumstance.
    """

    def __init__(self) -> None:
        self.servers: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self.offers: dict[str, dict[str, str]] = {}
        self._cells: dict[str, dict[str, str]] = {}
        self._surprises: dict[str, list[tuple[str, str]]] = {}

    def fill(self, server: str, feature: str, what: str) -> None:
        """Fill one cell."""
        if feature not in FEATURES:
            raise ValueError(f"no such row: {feature}")
        self._cells.setdefault(feature, {})[server] = what

    def surprise(self, server: str, feature: str, text: str) -> None:
        """Note that a server does other than it says; the feature's cell points to it."""
        noted = self._surprises.setdefault(server, [])
        if (feature, text) not in noted:
            noted.append((feature, text))

    def lines(self) -> Iterator[str]:
        """The page, in Markdown."""
        notes = self._notes()
        yield f"| | {' | '.join(f'{name} {version}' for name, version in self.servers.items())} |"
        yield "|---" * (len(self.servers) + 1) + "|"
        for feature in FEATURES:
            cells = self._cells.get(feature, {})
            row = (cells.get(name, "") + self._pointers(notes, name, feature) for name in self.servers)
            yield f"| {feature} | {' | '.join(row)} |"
        yield ""
        yield '"–": the server does not offer it. "one by one", "by DATA": it does not offer PIPELINING or'
        yield "CHUNKING, so all went well without. A number: see the findings."
        yield ""
        yield from self._findings(notes)
        yield "### What they advertise"
        yield ""
        for name, said in self.offers.items():
            for circumstance, words in said.items():
                yield f"* **{name}**, {circumstance}: {words}"

    def _notes(self) -> dict[tuple[str, str], int]:
        """(server, text) → number."""
        pairs = dict.fromkeys(
            (name, text) for name in self.servers for _, text in self._surprises.get(name, ())
        )
        return {pair: number for number, pair in enumerate(pairs, 1)}

    def _pointers(self, notes: dict[tuple[str, str], int], server: str, feature: str) -> str:
        here = sorted(
            notes[server, text] for where, text in self._surprises.get(server, ()) if where == feature
        )
        return f" ({', '.join(map(str, here))})" if here else ""

    def _findings(self, notes: dict[tuple[str, str], int]) -> Iterator[str]:
        yield "### Findings"
        yield ""
        for (server, text), number in notes.items():
            yield f"{number}. **{server} {self.servers[server]}**: {text}"
        yield ""

    def report(self) -> Iterator[str]:
        """The page, and who took part."""
        yield from self.lines()
        yield ""
        yield f"{len(self.servers)} took part: {', '.join(self.servers) or 'none'}"
        for name, why in self.absent.items():
            yield f"{name} did not: {why}"

    def write(self) -> bool:
        """Put it into the documentation; True if that changed anything."""
        before = PAGE.read_text()
        head, _, rest = before.partition(BEGIN)
        tail = rest.partition(END)[2]
        after = "\n".join([head + BEGIN, "", *self.lines(), "", END]) + tail
        if after != before:
            PAGE.write_text(after)
        return after != before

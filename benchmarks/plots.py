"""The plots, as SVG: throughput over round-trip time, size and recipients, and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .findings import Findings, Table
from .works import KIB, Contender, Work

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One colour a client and way, in every plot; the markers are for print.
_LOOKS = {
    ("smtplib", ""): ("#7f7f7f", "s"),
    ("aiosmtplib", ""): ("#d62728", "o"),
    ("aiosmtpclient", "message"): ("#1f77b4", "^"),
    ("aiosmtpclient", "one-write"): ("#17becf", "v"),
    ("aiosmtpclient", "stream-bdat-tasks"): ("#2ca02c", "D"),
    ("limit", "one-write"): ("#bbbbbb", "x"),
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot of lines.

    Attributes:
        name: of the file, and what the works name in `Work.plots`.
        across: what is on the x axis for a work.
        scale: of the x axis; the y axis is logarithmic.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    across: Callable[[Work], float]
    scale: str
    per_octet: bool = False


PLOTS = (
    Plot(
        "rtt",
        "1 KiB, 1 recipient, asyncio's own loop",
        "round trip, ms",
        "messages/s",
        lambda work: work.rtt,
        "linear",
    ),
    Plot(
        "size",
        "1 recipient, loopback, asyncio's own loop",
        "KiB",
        "MB/s",
        lambda work: work.size / KIB,
        "log",
        per_octet=True,
    ),
    Plot(
        "recipients",
        "1 KiB, loopback, asyncio's own loop",
        "recipients",
        "messages/s",
        lambda work: work.recipients,
        "log",
    ),
)


def available() -> bool:
    """True if matplotlib is installed."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return False
    matplotlib.use("svg")
    # The same figures make the same file: no random ids in it.
    matplotlib.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9})
    return True


def draw(folder: Path, findings: Findings) -> list[str]:
    """Draw what there are points for; returns the names of the files."""
    names = []
    for plot in PLOTS:
        lines = _lines(plot, findings.tables)
        if any(len(points) > 1 for points in lines.values()):
            _draw_lines(folder / f"{plot.name}.svg", plot, lines, _footer(findings))
            names.append(f"{plot.name}.svg")
    bars = [table for table in findings.tables if "memory" in table.work.plots and table.rows]
    if bars:
        _draw_bars(folder / "memory.svg", bars, _footer(findings))
        names.append("memory.svg")
    return names


def _lines(plot: Plot, tables: Sequence[Table]) -> dict[Contender, list[tuple[float, float]]]:
    """The points of each contender on the stock loop: x, median."""
    lines: dict[Contender, list[tuple[float, float]]] = {}
    for table in tables:
        if plot.name not in table.work.plots:
            continue
        for row in table.rows:
            contender = row.contender
            if (contender.client, contender.way) in _LOOKS and contender.loop != "uvloop":
                y = row.value.median
                if plot.per_octet and table.work.unit != "MB/s":
                    y *= table.work.size / 1e6
                lines.setdefault(contender, []).append((plot.across(table.work), y))
    return {contender: sorted(points) for contender, points in lines.items() if len(points) > 1}


def _draw_lines(
    path: Path, plot: Plot, lines: dict[Contender, list[tuple[float, float]]], footer: str
) -> None:
    figure, axes = _figure(plot.title, footer)
    for contender, points in lines.items():
        colour, marker = _LOOKS[contender.client, contender.way]
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=colour, marker=marker, label=_label(contender))
    axes.set_xscale(plot.scale)
    axes.set_yscale("log")
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def _draw_bars(path: Path, tables: Sequence[Table], footer: str) -> None:
    figure, axes = _figure("extra memory, MiB", footer)
    names, values, colours = [], [], []
    for table in reversed(tables):
        for row in reversed(table.rows):
            contender = row.contender
            what = "file" if table.work.kind == "file" else "message"
            names.append(f"{table.work.size >> 20} MiB {what}: {contender.key}")
            values.append(row.value.median)
            colours.append(_LOOKS.get((contender.client, contender.way), ("#999999", ""))[0])
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_xlim(right=max(values) * 1.15 or 1.0)
    _save(figure, path)


def _figure(title: str, footer: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    figure.supxlabel(footer, fontsize=6, color="#666666")
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})


def _label(contender: Contender) -> str:
    how = contender.how.replace("`", "") if contender.way else ""
    return f"{contender.client}: {how}" if how else contender.client


def _footer(findings: Findings) -> str:
    machine = findings.machine
    versions = [f"{name} {machine[name]}" for name in ("aiosmtpclient", "aiosmtplib")]
    return "; ".join([machine["processor"], machine["python"], *versions, "medians"])

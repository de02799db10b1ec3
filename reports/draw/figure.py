"""Panels of lines and points in one style; every figure of the report is drawn here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.draw import numbers
from reports.draw.looks import look

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "rwkv-bench",  # the same data, the same file
}
PANEL_INCHES = (5.6, 3.6)
GRID_INCHES = 2.7  # the height of a heat map, which has no legend
LONE_INCHES = 8.4  # the width of a figure with a single panel
LEGEND_CHARACTERS = 15  # an inch
LEGEND_MARK = 9  # characters that a legend's mark and the gaps take
FILLS = ("full", "left", "bottom", "right", "top")  # of one family's markers in one panel
MOST_APART = 12  # marks of repeats apart in one line; of neighbours the largest is drawn
APART = "x: a repeat far from the others; ▲ at the edge: beyond the axis"
CROSSED = "crossed in black: disturbed while it was measured"


@dataclass(frozen=True)
class Series:
    """One line. family: a name whose look draw.looks knows. low and high: the spread of the repeats, drawn as a band.
    apart: (x, y) of repeats outside it, each a mark of its own. crossed: which points were disturbed. hollow: an open
    marker, for what is published or causal. Without a label the line is not in the legend.
    """

    label: str
    family: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    hollow: bool = False
    markers: bool = True
    dashed: bool = False
    joined: bool = True  # a line from point to point
    apart: Sequence[tuple[float, float]] = ()
    crossed: Sequence[bool] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes, units in the axis titles. log_x, log_y: the logarithm's base, 0 for a linear axis."""

    title: str
    x_title: str
    y_title: str
    series: list[Series]
    log_x: int = 0
    log_y: int = 0
    note: str = ""
    signed: bool = False  # values may be below zero
    x_names: Sequence[str] = ()  # of the places 0, 1, 2, ... where x is no quantity

    def legend_columns(self, inches: float) -> int:
        """As many as the longest label leaves room for in so wide a panel, at most 4 or 3."""
        longest = max((len(series.label) for series in self.series), default=0)
        return max(1, min(4 if self.x_names else 3, int(inches * LEGEND_CHARACTERS / (longest + LEGEND_MARK))))


@dataclass(frozen=True)
class HeatMap:
    """Percentages [y][x] on a grid of named places, drawn with their numbers; None where there is none. ratios: they
    are of another quantity, and 100 is the middle of the colours.
    """

    title: str
    x_title: str
    y_title: str
    x_names: Sequence[str]
    y_names: Sequence[str]
    percent: Sequence[Sequence[float | None]]
    ratios: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure of the report: file name, title, panels, and the line that says what it was measured on."""

    name: str
    title: str
    panels: Sequence[Panel | HeatMap]
    footer: str
    columns: int = 0  # 0: two panels a row, three where there are many

    def draw(self) -> Figure:
        """Panels side by side; each legend below its panel, where it hides nothing."""
        columns = self.columns or (3 if len(self.panels) > 6 else min(2, len(self.panels)))
        rows = -(-len(self.panels) // columns)
        inches = PANEL_INCHES[0] if columns > 1 else LONE_INCHES
        legend_lines = max(
            -(-len(panel.series) // min(3, panel.legend_columns(inches))) if isinstance(panel, Panel) else 0
            for panel in self.panels
        )
        grids = all(isinstance(panel, HeatMap) for panel in self.panels)
        height = rows * (GRID_INCHES if grids else PANEL_INCHES[1] + 0.22 * legend_lines) + 0.7
        with matplotlib.rc_context(STYLE):
            layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)  # inches; ticks may widen once laid out
            figure = Figure(figsize=(columns * inches, height), layout=layout)
            FigureCanvasAgg(figure)
            figure.suptitle(self.title, fontsize=12, fontweight="bold", x=0.01, ha="left")
            axes = figure.subplots(rows, columns, squeeze=False).flatten()
            for ax, panel in zip(axes, self.panels, strict=False):
                ax.set_title(panel.title, loc="left")
                ax.set_xlabel(panel.x_title)
                ax.set_ylabel(panel.y_title)
                _draw_lines(ax, panel, inches) if isinstance(panel, Panel) else _draw_grid(ax, panel)
            for ax in axes[len(self.panels) :]:
                ax.set_visible(False)
            lines = "\n".join([self.footer, *self._marks()])
            figure.supxlabel(lines, fontsize=7.5, color="#555555", x=0.01, ha="left")
        return figure

    def _marks(self) -> Iterator[str]:
        """What the marks mean that stand in some panel."""
        series = [series for panel in self.panels if isinstance(panel, Panel) for series in panel.series]
        if any(one.apart for one in series):
            yield APART
        if any(any(one.crossed) for one in series):
            yield CROSSED


def _span_a_decade(axis: Axis) -> None:
    """At least a factor of ten, so that small differences do not look large."""
    low, high = axis.get_view_interval()
    missing = 10 * low / high
    if missing > 1:
        axis.set_view_interval(low / missing**0.5, high * missing**0.5, ignore=True)


def _draw_grid(ax: Axes, panel: HeatMap) -> None:
    values = np.array(panel.percent, dtype=float)
    colours, most = ("RdBu_r", 200) if panel.ratios else ("cividis", 100)
    ax.imshow(values, cmap=colours, vmin=0, vmax=most, aspect="auto")
    ax.grid(False)
    ax.set_xticks(range(len(panel.x_names)), panel.x_names)
    ax.set_yticks(range(len(panel.y_names)), panel.y_names)
    for (y, x), value in np.ndenumerate(values):
        if not np.isnan(value):
            light = 50 < value < 150 if panel.ratios else value > 50
            ax.text(x, y, f"{value:.0f}", ha="center", va="center", color="black" if light else "white")


def _draw_apart(ax: Axes, panel: Panel) -> None:
    """Drawn when lines and bands have set the limits, which these marks do not move."""
    ax.autoscale(False)
    low, high = ax.get_ylim()
    for series in panel.series:
        colour, _ = look(series.family)
        each = -(-len(series.apart) // MOST_APART) or 1
        for begin in range(0, len(series.apart), each):
            x, y = max(series.apart[begin : begin + each], key=lambda point: point[1])
            marker = "^" if y > high else "v" if y < low else "x"
            ax.plot(x, min(max(y, low), high), marker, color=colour, markersize=5, clip_on=False)


def _draw_lines(ax: Axes, panel: Panel, inches: float) -> None:
    drawn: dict[str, int] = {}
    for i, series in enumerate(panel.series):
        colour, marker = look(series.family)
        again = drawn[series.family] = drawn.get(series.family, -1) + 1
        style = "--" if series.dashed else ("-", "-.", ":")[again % 3]
        every = max(1, len(series.x) // 8) if series.joined else 1
        ax.plot(
            series.x,
            series.y,
            linestyle=style if series.joined else "none",
            color=colour,
            linewidth=1.4,
            marker=marker if series.markers else "",
            markersize=4.5,
            markevery=(i * every // len(panel.series), every),  # no marker hides another's
            markerfacecolor="white" if series.hollow else colour,
            fillstyle="full" if series.joined else FILLS[again % len(FILLS)],  # lines differ in their dashes
            label=series.label or "_nolegend_",
        )
        if series.low is not None and series.high is not None:
            if len(series.x) == 1 or not series.joined:  # a band has no width there
                ax.vlines(series.x, series.low, series.high, color=colour, linewidth=1.0)
            else:
                ax.fill_between(series.x, series.low, series.high, color=colour, alpha=0.15, linewidth=0)
        for x, y, cross in zip(series.x, series.y, series.crossed, strict=False):
            if cross:
                ax.plot(x, y, "X", color="#000000", markersize=8, markerfacecolor="none")
    if panel.x_names:
        ax.set_xticks(range(len(panel.x_names)), panel.x_names, rotation=30, ha="right")
        ax.set_xlim(-0.6, len(panel.x_names) - 0.4)  # so that few names are not spread over all the width
    if panel.signed:
        ax.axhline(0, color="#555555", linewidth=0.8)
    elif not panel.log_y:
        ax.set_ylim(0, ax.get_ylim()[1] * (1.1 if panel.note else 1))  # the note stands above the points
    for axis, set_scale, base in ((ax.xaxis, ax.set_xscale, panel.log_x), (ax.yaxis, ax.set_yscale, panel.log_y)):
        if base:
            set_scale("log", base=base)
            _span_a_decade(axis)
            axis.set_major_locator(LogLocator(base, subs=(1.0, 2.0, 5.0) if base == 10 else (1.0,)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: numbers.tick(value)))
            axis.set_minor_formatter(NullFormatter())
    _draw_apart(ax, panel)
    ax.text(0.02, 0.97, panel.note, transform=ax.transAxes, fontsize=7.5, va="top", color="#333333")
    below = -0.34 if panel.x_names else -0.18  # below the slanted names too
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, below),
        ncols=panel.legend_columns(inches),
        fontsize=8,
        handlelength=2.6,
    )

"""The one picture of a study: accuracy against what an erasure costs. Imports matplotlib lazily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.pareto import pareto_front

STYLES = {  # guarantee -> colour (apart for the colour blind) and marker
    "oblivious": ("#0072b2", "o"),
    "frozen": ("#d55e00", "s"),
    "rederived": ("#009e73", "^"),
}
FRONT_COLOUR = "#666666"
SIZE_INCHES, DPI = (11.0, 7.0), 130
LABEL_POINTS, STEP_PIXELS, GAP_PIXELS = 7.5, 3.0, 9.0
LABEL_GROUND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}


@dataclass(frozen=True)
class Spot:
    """One point of the picture.

    Attributes:
        label: text beside it.
        cost: expected cost of one erasure, in trainings of one model; above 0.
        accuracy: between 0 and 1.
        guarantee: decides colour and marker.
    """

    label: str
    cost: float
    accuracy: float
    guarantee: str


def draw_front(spots: Sequence[Spot], path: Path, *, title: str, accuracy: str) -> None:
    """Write a PNG: labelled points on a logarithmic cost axis, the front as a step line.

    Args:
        spots: the points.
        path: file to write; its folder is made.
        title: above the picture.
        accuracy: which accuracy the vertical axis shows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    front = pareto_front([(spot.cost, spot.accuracy) for spot in spots])
    _draw_steps(axes, [spot for spot, on in zip(spots, front, strict=True) if on])
    for guarantee, (colour, marker) in STYLES.items():
        mine = [spot for spot in spots if spot.guarantee == guarantee]
        if mine:
            x, y = [spot.cost for spot in mine], [100 * spot.accuracy for spot in mine]
            axes.scatter(x, y, s=45, c=colour, marker=marker, label=guarantee, zorder=3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("expected cost of one erasure, in trainings of one model without shards")
    axes.set_ylabel(f"{accuracy} accuracy, %")
    axes.set_title(title, loc="left")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.margins(x=0.08, y=0.08)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.25)  # room for labels, right of their points
    axes.legend(loc="lower right", title="guarantee")
    canvas.draw()
    _place_labels(axes, canvas.get_renderer(), spots, front)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _draw_steps(axes: Any, front: Sequence[Spot]) -> None:
    """The best accuracy that is to be had up to each cost."""
    x, y = zip(*sorted((spot.cost, 100 * spot.accuracy) for spot in front), strict=True)
    style = {"color": FRONT_COLOUR, "linewidth": 1.3, "label": "Pareto front"}
    axes.step(x, y, where="post", zorder=2, **style)


def _place_labels(axes: Any, renderer: Any, spots: Sequence[Spot], front: Sequence[bool]) -> None:
    """Put each label right of its point, and up until it covers no label and no point."""
    from matplotlib.transforms import Bbox

    pixels = axes.transData.transform([(spot.cost, 100 * spot.accuracy) for spot in spots])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in pixels.tolist()]
    to_points = 72 / axes.figure.dpi
    for i in sorted(range(len(spots)), key=lambda i: (pixels[i][1], pixels[i][0])):
        text = axes.annotate(
            spots[i].label,
            (spots[i].cost, 100 * spots[i].accuracy),
            xytext=(GAP_PIXELS * to_points, -LABEL_POINTS / 2),
            textcoords="offset points",
            fontsize=LABEL_POINTS,
            fontweight="bold" if front[i] else "normal",
            zorder=2.5,
            bbox=None if front[i] else LABEL_GROUND,
        )
        box = text.get_window_extent(renderer)
        rise = box.height * 0.6 if front[i] else 0.0  # clear of the step line
        while any(box.translated(0, rise).overlaps(other) for other in taken):
            rise += STEP_PIXELS
        x, y = text.get_position()
        text.set_position((x, y + rise * to_points))
        taken.append(box.translated(0, rise))
        if rise > box.height:  # a label that moved away is tied to its point
            start, end = pixels[i], (box.x0, (box.y0 + box.y1) / 2 + rise)
            inverse = axes.transData.inverted().transform([start, end])
            axes.plot(*inverse.T, color=FRONT_COLOUR, linewidth=0.5, zorder=1)

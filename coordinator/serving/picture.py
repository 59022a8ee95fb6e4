"""The shard graph as a picture: shards on a ring, an edge where boundary edges join two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

WIDTH, HEIGHT = 680, 460
RING_X, RING_Y = 230, 160
SMALLEST, LARGEST = 9.0, 34.0  # radius of a shard
THINNEST, THICKEST = 0.75, 7.0  # width of an edge
GAP = 11.0  # between a shard and its label
LINE = 15.0  # height of a line of a label
MOST_LABELLED: Final = 24  # with more shards only what is not as usual has a label
USUAL: Final = "ready"
SVG: Final = "http://www.w3.org/2000/svg"
STATES: Final = {  # fill and dashes of the rim, where no style sheet says them
    "ready": ("#5b8c5a", "none"),
    "stale": ("#c9a227", "6 3"),
    "retraining": ("#3f7cac", "2 3"),
    "silent": ("#8d8d8d", "1 4"),
}

Point = tuple[float, float]


def draw(graph: Mapping[str, Any], link: str) -> Markup:
    """The picture for a page, with a link on every shard; classes carry the colours.

    Args:
        graph: ``shards`` of ``shard, nodes, state`` and ``arcs`` of ``from, to, weight``.
        link: address of a shard's page before its number.
    """
    return Markup(tostring(_drawn(graph, link), encoding="unicode"))


def draw_alone(graph: Mapping[str, Any]) -> str:
    """The picture as a document of its own, without links; states show by fill, rim and word.

    Args:
        graph: as in :func:`draw`.
    """
    root = _drawn(graph, "")
    root.attrib |= {"xmlns": SVG, "role": "img", "font-family": "sans-serif", "font-size": "13"}
    root.attrib |= {"text-anchor": "middle", "stroke": "#7f7f7f"}
    for shard in root.iter("a"):
        fill, dash = STATES.get(shard.attrib["class"].removeprefix("shard is-"), STATES["silent"])
        shard.tag = "g"
        del shard.attrib["href"]
        for part in shard:
            if part.tag == "circle":
                part.attrib |= {"fill": fill, "stroke": "#202020", "stroke-dasharray": dash}
            else:
                is_inside = part.get("class") == "number"
                part.attrib |= {"fill": "#ffffff" if is_inside else "#7f7f7f", "stroke": "none"}
                part.attrib |= {"dy": "0.35em"} if is_inside else {}
    return tostring(root, encoding="unicode")


def _drawn(graph: Mapping[str, Any], link: str) -> Element:
    shards = sorted(graph["shards"], key=lambda item: item["shard"])
    places = {item["shard"]: _place(i, len(shards)) for i, item in enumerate(shards)}
    arcs = undirected(graph["arcs"])
    root = Element(
        "svg",
        {
            "viewBox": f"0 0 {WIDTH} {HEIGHT}",
            "class": "shard-graph",
            "role": "group",
            "aria-label": f"Shard graph: {len(shards)} shards, {len(arcs)} pairs that share edges",
        },
    )
    heaviest = max((weight for _, _, weight in arcs), default=1.0) or 1.0
    for one, other, weight in arcs:
        _edge(root, places[one], places[other], THINNEST, weight / heaviest)
        SubElement(root[-1], "title").text = f"{one} and {other}: {weight:g} boundary edges"
    largest = max((item["nodes"] for item in shards), default=1) or 1
    for item in shards:
        radius = _radius(item["nodes"] / largest, len(shards))
        _shard(root, item, places[item["shard"]], radius, link, len(shards) <= MOST_LABELLED)
    return root


def undirected(arcs: Iterable[Mapping[str, Any]]) -> list[tuple[int, int, float]]:
    """Arcs of both directions added up, smaller shard first, loops left out."""
    weights: dict[tuple[int, int], float] = {}
    for arc in arcs:
        one, other = sorted((int(arc["from"]), int(arc["to"])))
        if one != other:
            weights[one, other] = weights.get((one, other), 0.0) + arc["weight"]
    return [(one, other, weight) for (one, other), weight in sorted(weights.items())]


def _place(index: int, count: int) -> Point:
    if count == 1:
        return WIDTH / 2, HEIGHT / 2
    angle = 2 * math.pi * index / count - math.pi / 2
    return WIDTH / 2 + RING_X * math.cos(angle), HEIGHT / 2 + RING_Y * math.sin(angle)


def _radius(share: float, count: int) -> float:
    room = 0.8 * RING_Y * math.sin(math.pi / max(count, 2))
    largest = max(min(LARGEST, room), SMALLEST / 2)
    return max(largest * math.sqrt(share), min(SMALLEST, largest))


def _edge(root: Element, one: Point, other: Point, thinnest: float, share: float) -> None:
    width = thinnest + (THICKEST - thinnest) * share
    numbers = {"x1": one[0], "y1": one[1], "x2": other[0], "y2": other[1], "stroke-width": width}
    SubElement(root, "line", {name: f"{value:.1f}" for name, value in numbers.items()})


def _shard(
    root: Element, item: Mapping[str, Any], at: Point, radius: float, link: str, labelled: bool
) -> None:
    number, state, nodes = item["shard"], str(item["state"]), item["nodes"]
    anchor = SubElement(
        root,
        "a",
        {
            "href": f"{link}{number}",
            "class": f"shard is-{state}",
            "aria-label": f"Shard {number}, {state}, {nodes} nodes",
        },
    )
    circle = {"cx": at[0], "cy": at[1], "r": radius}
    SubElement(anchor, "circle", {name: f"{value:.1f}" for name, value in circle.items()})
    _text(anchor, str(number), at, "number")
    lines = [(f"{nodes} nodes", "label")] if labelled else []
    if state != USUAL:
        lines.append((state, "label word"))
    for line, where in zip(lines, _label_places(at, radius, len(lines)), strict=True):
        _text(anchor, line[0], where, line[1])


def _label_places(at: Point, radius: float, count: int) -> list[Point]:
    """Above a shard of the upper half, below one of the lower."""
    if at[1] < HEIGHT / 2:
        top = at[1] - radius - GAP - LINE * (count - 1)
    else:
        top = at[1] + radius + GAP + LINE / 2
    return [(at[0], top + LINE * i) for i in range(count)]


def _text(parent: Element, text: str, at: Point, name: str) -> None:
    place = {"x": f"{at[0]:.1f}", "y": f"{at[1]:.1f}", "class": name}
    SubElement(parent, "text", place).text = text

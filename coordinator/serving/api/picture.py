"""The shard graph as SVG: shards on a circle, area by nodes, width of lines by boundary edges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

SIZE: Final = 640
RING: Final = 230.0
LARGEST: Final = 46.0  # radius
WIDEST: Final = 10.0
FILL: Final = {"ready": "#5b8c5a", "stale": "#c9a227", "retraining": "#3f7cac", "silent": "#8d8d8d"}
DASH: Final = {"ready": "", "stale": "6 3", "retraining": "2 3", "silent": "1 4"}


def draw_shard_graph(found: Mapping[str, Any]) -> str:
    """A picture without script or style sheet; states show by colour, by outline and in words.

    Args:
        found: what :meth:`Office.shard_graph` answered.
    """
    shards, arcs = found["shards"], found["arcs"]
    places = {item["shard"]: _place(i, len(shards)) for i, item in enumerate(shards)}
    most = max((item["nodes"] for item in shards), default=1) or 1
    heaviest = max((arc["weight"] for arc in arcs), default=1) or 1
    lines = [_line(places[a["from"]], places[a["to"]], a, heaviest) for a in arcs]
    circles = [_circle(*places[item["shard"]], item, most) for item in shards]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" role="img" '
        f'font-family="sans-serif" font-size="13" text-anchor="middle">'
        f"<title>{len(shards)} shards and their boundary edges</title>"
        + "".join(lines)
        + "".join(circles)
        + "</svg>"
    )


def _place(number: int, count: int) -> tuple[float, float]:
    angle = 2 * math.pi * number / max(count, 1) - math.pi / 2
    ring = RING if count > 1 else 0.0
    return SIZE / 2 + ring * math.cos(angle), SIZE / 2 + ring * math.sin(angle)


def _line(
    start: tuple[float, float], end: tuple[float, float], arc: Mapping[str, Any], heaviest: int
) -> str:
    width = 0.5 + WIDEST * arc["weight"] / heaviest
    title = f"{arc['weight']} edges between shards {arc['from']} and {arc['to']}"
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="#7f7f7f" stroke-opacity="0.6" stroke-width="{width:.1f}">'
        f"<title>{title}</title></line>"
    )


def _circle(x: float, y: float, item: Mapping[str, Any], most: int) -> str:
    state = str(item["state"])
    radius = 10 + (LARGEST - 10) * math.sqrt(item["nodes"] / most)
    words = escape(f"shard {item['shard']}: {item['nodes']} nodes, {state}")
    fill, dash = FILL.get(state, FILL["silent"]), DASH.get(state, "")
    return (
        f'<g><circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{fill}" '
        f'stroke="#202020" stroke-width="2" stroke-dasharray="{dash}">'
        f"<title>{words}</title></circle>"
        f'<text x="{x:.1f}" y="{y + 4:.1f}" fill="#ffffff">{item["shard"]}</text>'
        f'<text x="{x:.1f}" y="{y + radius + 15:.1f}" fill="#7f7f7f">{escape(state)}</text></g>'
    )

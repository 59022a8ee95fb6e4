"""Files of the console: vendored bytes, own templates and scripts, the picture."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from coordinator.serving.console.render import (
    FOLDER,
    show_count,
    show_records,
    show_seconds,
    show_until,
)
from coordinator.serving.console.static import FOLDER as STATIC
from coordinator.serving.console.static import read_static
from coordinator.serving.picture import draw, undirected
from tools.vendor import VENDOR, as_toml, digest, read_list

ELSEWHERE = re.compile(r"""(?:https?:)?//[\w.-]+\.\w""")
NAMESPACES = {"http://www.w3.org/2000/svg"}
INLINE = re.compile(r"""\sstyle\s*=|\son\w+\s*=\s*["']|<style|javascript:|\bhx-on""", re.IGNORECASE)
UNSAFE = re.compile(r"\beval\(|new Function|innerHTML|document\.write")


def own_files() -> list[Path]:
    """Templates, styles and scripts that are ours."""
    return [*sorted(FOLDER.glob("*.html")), *sorted(p for p in STATIC.iterdir() if p.is_file())]


def test_vendored_files_are_what_the_list_says() -> None:
    listed = read_list()

    for item in listed:
        assert digest((VENDOR / item["name"]).read_bytes()) == item["sha256"], item["name"]
        assert item["version"] and item["licence"] and item["package"]
    names = {item["name"] for item in listed}
    assert {path.name for path in VENDOR.iterdir()} == names | {"VENDOR.toml"}
    assert (VENDOR / "VENDOR.toml").read_text() == as_toml(listed)


def test_every_vendored_package_brings_its_licence() -> None:
    listed = read_list()

    for package in {item["package"] for item in listed}:
        names = [item["name"] for item in listed if item["package"] == package]
        assert any(name.endswith(".LICENSE") for name in names), package


@pytest.mark.parametrize("path", own_files(), ids=lambda path: path.name)
def test_no_file_names_another_host_or_has_anything_inline(path: Path) -> None:
    text = path.read_text()

    found = [match[0] for match in re.finditer(r"(?:https?:)?//[\w./-]+", text)]
    assert not [item for item in found if ELSEWHERE.match(item) and item not in NAMESPACES]
    if path.suffix == ".html":
        assert not INLINE.search(text)
    if path.suffix == ".js":
        assert not UNSAFE.search(text)


def test_only_files_of_a_known_type_are_served() -> None:
    served = read_static()

    assert {"console.css", "console.js", "htmx.min.js", "uPlot.iife.min.js"} <= served.keys()
    assert "VENDOR.toml" not in served and "htmx.LICENSE" not in served


def test_the_own_sheet_stays_small() -> None:
    assert (STATIC / "console.css").stat().st_size < 12_000


# ---- the picture

GRAPH = {
    "shards": [
        {"shard": 0, "nodes": 100, "state": "ready"},
        {"shard": 1, "nodes": 25, "state": "stale"},
        {"shard": 2, "nodes": 0, "state": "silent"},
    ],
    "arcs": [
        {"from": 0, "to": 1, "weight": 3},
        {"from": 1, "to": 0, "weight": 1},
        {"from": 1, "to": 1, "weight": 9},
        {"from": 0, "to": 2, "weight": 1},
    ],
}


def test_arcs_of_both_directions_are_one_edge_and_loops_are_none() -> None:
    assert undirected(GRAPH["arcs"]) == [(0, 1, 4.0), (0, 2, 1.0)]


def test_the_picture_links_every_shard_and_says_its_state_in_words() -> None:
    root = fromstring(draw(GRAPH, "/console/shards/"))

    links = {anchor.attrib["href"]: anchor for anchor in root.iter("a")}
    assert set(links) == {f"/console/shards/{shard}" for shard in range(3)}
    assert links["/console/shards/1"].attrib["aria-label"] == "Shard 1, stale, 25 nodes"
    assert "stale" in [text.text for text in links["/console/shards/1"].iter("text")]
    assert "ready" not in [text.text for text in links["/console/shards/0"].iter("text")]


def test_size_is_by_nodes_and_width_by_weight() -> None:
    root = fromstring(draw(GRAPH, "/"))

    radii = [float(circle.attrib["r"]) for circle in root.iter("circle")]
    widths = [float(line.attrib["stroke-width"]) for line in root.iter("line")]
    assert radii[0] == pytest.approx(2 * radii[1], abs=0.1)  # a quarter of the nodes, by area
    assert widths == [7.0, pytest.approx(0.75 + 6.25 / 4, abs=0.05)]


@pytest.mark.parametrize("count", [1, 2, 100])
def test_few_and_many_shards_fit_into_the_picture(count: int) -> None:
    shards = [{"shard": i, "nodes": i + 1, "state": "ready"} for i in range(count)]

    root = fromstring(draw({"shards": shards, "arcs": []}, "/"))

    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for circle in root.iter("circle"):
        x, y, r = (float(circle.attrib[name]) for name in ("cx", "cy", "r"))
        assert r <= x <= width - r and r <= y <= height - r


def test_a_picture_without_shards_is_empty_and_not_an_error() -> None:
    assert not list(fromstring(draw({"shards": [], "arcs": []}, "/")))


# ---- words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.042, "0.04 s"),
        (12.3, "12 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90_000, "1 d 1 h"),
        (None, "–"),
    ],
)
def test_times_have_a_unit(seconds: float | None, text: str) -> None:
    assert show_seconds(seconds) == text


def test_counts_have_a_unit_in_its_number() -> None:
    assert show_count(1, "nodes") == "1 node"
    assert show_count(12_345, "nodes") == "12\u202f345 nodes"
    assert show_records({"nodes": 1, "edges": 3, "labels": 0, "unknown": 2}) == "1 node, 3 edges"
    assert show_records({"nodes": 0}) == "nothing is held"


def test_what_is_due_counts_down() -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 3, 2, 9, tzinfo=UTC)

    assert show_until("2026-03-04T10:00:00Z", now) == "in 2 d 1 h"
    assert show_until("2026-03-02T08:30:00Z", now) == "30 min ago"

"""Overview, shard graph, one shard, models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final

from fastapi import Response

from coordinator.requests.states import OPEN
from coordinator.serving.console.access import STAFF
from coordinator.serving.console.desk import Desk, Visit
from coordinator.serving.console.refusals import refusal
from coordinator.serving.console.render import (
    NOTHING,
    parse,
    show_count,
    show_seconds,
)
from coordinator.serving.console.sessions import path_of
from coordinator.serving.office import Office
from coordinator.serving.picture import draw, undirected

NUMBER: Final = re.compile(r"[0-9]{1,9}")
OPEN_LIMIT: Final = 200  # open requests looked through for one shard


async def overview(desk: Desk, visit: Visit) -> Response:
    """Tiles, shards, and the shard graph in small."""
    status = await desk.ask(Office.status)
    graph = await desk.ask(Office.shard_graph)
    return desk.page(
        visit,
        "overview.html",
        status=status,
        home=PurePath(status["home"]).name,
        tiles=_tiles(status),
        shards=status["shards"],
        picture=draw(graph, f"{path_of(visit.request)}/shards/"),
    )


async def overview_live(desk: Desk, visit: Visit) -> Response:
    """The tiles alone, for htmx."""
    tiles = _tiles(await desk.ask(Office.status))
    return desk.page(visit, "overview_live.html", tiles=tiles)


async def shard_graph(desk: Desk, visit: Visit) -> Response:
    """The picture in large and its tables."""
    graph = await desk.ask(Office.shard_graph)
    return desk.page(
        visit,
        "shards.html",
        shards=await desk.ask(Office.shards),
        picture=draw(graph, f"{path_of(visit.request)}/shards/"),
        arcs=sorted(undirected(graph["arcs"]), key=lambda arc: (-arc[2], arc)),
    )


async def shard(desk: Desk, visit: Visit) -> Response:
    """One shard: its numbers, its neighbours, and the open requests that reach it."""
    text = visit.request.path_params["number"]
    if not NUMBER.fullmatch(text):
        raise refusal(404, "No such shard", "a shard has a number")
    number = int(text)
    found = await desk.ask(Office.shard, number)
    requests = None
    if visit.may(STAFF):
        requests = [item for item in await _open(desk) if number in item["shards"]]
    return desk.page(
        visit,
        "shard.html",
        shard=found,
        facts=_facts(found),
        arcs=_neighbours(found["arcs"], number),
        requests=requests,
    )


async def models(desk: Desk, visit: Visit) -> Response:
    """What is published, by whom it is served, and every submodel's key and cost."""
    status = await desk.ask(Office.status)
    return desk.page(
        visit,
        "models.html",
        status=status,
        shards=status["shards"],
        replicas=status.get("replicas", []),
    )


def _tiles(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    counts = status["requests"]
    waits = counts.get("needs_approval", 0)
    return [
        _tile("open requests", sum(counts.get(str(state), 0) for state in OPEN)),
        _tile("need approval", waits, "warn" if waits else ""),
        _tile("on hold", counts.get("on_hold", 0)),
        _tile("failed", counts.get("failed", 0), "bad" if counts.get("failed") else ""),
        _tile("stale shards", len(status["stale_shards"]), "warn" * bool(status["stale_shards"])),
        _first_due(status["oldest_due"]),
        _tile("completed", counts.get("completed", 0)),
    ]


def _first_due(due_at: str | None) -> dict[str, Any]:
    if due_at is None:
        return _tile("first due", NOTHING)
    left_s = (parse(due_at) - datetime.now(UTC)).total_seconds()
    late = left_s < 0
    return _tile("late" if late else "to the first due", show_seconds(abs(left_s)), "bad" * late)


def _tile(name: str, value: Any, look: str = "") -> dict[str, Any]:
    return {"name": name, "value": value, "look": look}


def _facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("State", row["state"]),
        ("Nodes", show_count(row["nodes"], "nodes")),
        ("Halo", f"{show_count(row['halo'], 'nodes')} of other shards that it reads"),
        ("Last training", show_seconds(row["training_s"])),
        ("Key of its submodel", row["key"] or "none: it has no training nodes, and no vote"),
    ]


def _neighbours(arcs: Sequence[Mapping[str, Any]], number: int) -> list[tuple[int, float]]:
    found = [
        (other if one == number else one, weight)
        for one, other, weight in undirected(arcs)
        if number in (one, other)
    ]
    return sorted(found, key=lambda item: -item[1])


async def _open(desk: Desk) -> list[dict[str, Any]]:
    page = await desk.ask(Office.find, state="open", limit=OPEN_LIMIT)
    return list(page["items"])

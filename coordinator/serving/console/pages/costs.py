"""Cost and latency: tables, and the same numbers as JSON for the plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from coordinator.serving.console.desk import Desk, Visit
from coordinator.serving.console.render import NOTHING, show_seconds
from coordinator.serving.office import Office


async def costs(desk: Desk, visit: Visit) -> Response:
    """Tables under the places of the plots."""
    history = await desk.ask(Office.history, desk.settings.history_days)
    metrics = await desk.ask(Office.metrics)
    batches = list(history["batches"])
    latencies, count = latency_rows(metrics["erasure_latency_seconds"])
    return desk.page(
        visit,
        "costs.html",
        tiles=_tiles(history, batches),
        days=list(reversed(history["per_day"])),
        batches=[row | {"saved": saved(row)} for row in reversed(batches)],
        history_days=desk.settings.history_days,
        latencies=latencies,
        latency_count=count,
    )


async def costs_data(desk: Desk, visit: Visit) -> Response:
    """Columns as uPlot takes them; times in seconds since 1970."""
    history = await desk.ask(Office.history, desk.settings.history_days)
    days, batches = history["per_day"], history["batches"]
    return JSONResponse(
        {
            "per_day": [
                [_stamp(row["day"]) for row in days],
                [row["requests"] for row in days],
                [row["erased"] for row in days],
            ],
            "batches": [
                [_stamp(row["at"]) for row in batches],
                [row["seconds"] for row in batches],
                [row["full_retrain_s"] for row in batches],
            ],
        }
    )


def saved(row: Mapping[str, Any]) -> str:
    """Share of a full retrain that a batch did not cost."""
    whole, seconds = row["full_retrain_s"], row["seconds"]
    return f"{1 - seconds / whole:.0%}" if whole and seconds is not None else NOTHING


def _tiles(
    history: Mapping[str, Any], batches: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    spent = sum(row["seconds"] or 0.0 for row in batches)
    whole = sum(row["full_retrain_s"] or 0.0 for row in batches)
    return [
        {"name": "requests", "value": sum(row["requests"] for row in history["per_day"])},
        {"name": "completed", "value": sum(row["erased"] for row in history["per_day"])},
        {"name": "batches", "value": len(batches)},
        {"name": "spent retraining", "value": show_seconds(spent)},
        {"name": "full retrains instead", "value": show_seconds(whole)},
    ]


def latency_rows(histogram: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Rows of a cumulative histogram, up to the first that has them all."""
    buckets = histogram["buckets"]
    total, rows = int(buckets[-1][1]), []
    if not total:
        return [], 0
    for bound, count in buckets:
        within = "any time" if math.isinf(float(bound)) else show_seconds(float(bound), rough=True)
        rows.append({"within": within, "count": int(count), "share": f"{count / total:.0%}"})
        if count == total:
            break
    return rows, total


def _stamp(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()

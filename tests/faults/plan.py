"""A seeded run of forty mixed requests, as plain steps that a driver carries out one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.coordinator.systems import Records, planted

SEED = 4
OVERRIDES = {
    "aggregator.kind": "optimal",
    "erasure.cancel_window": "2m",
    "erasure.batch_window": "1m",
    "erasure.approve_above": 4,
}  # a step of the run is a minute of its clock
SHARED_KINDS = ("nodes", "labels", "features", "cells")

Step = dict[str, Any]


def records() -> Records:
    """What the system of the run is fitted on."""
    return planted(10, 90)


def one_request(records: Records, count: int = 2) -> dict[str, Any]:
    """A request of every kind, as ``tests.faults.driver.erasure_of`` reads it."""
    ids = sorted(records.labels, key=str)[5:]
    edge = next(e for e in sorted(records.edges) if not {*e} & {*ids[:3]})
    return {
        "nodes": ids[:1],
        "labels": ids[1:count],
        "features": [[ids[2], None]],
        "edges": [list(edge)],
    }


def forty_requests(records: Records, seed: int = SEED, number: int = 40) -> list[Step]:
    """Normal, urgent, cancelled, held, approved, rejected and repeated requests.

    Every request names records of its own, so that the last state depends on no order.
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(sorted(records.labels, key=str)).tolist()
    makers = {
        "submit": 0.58,
        "erase": 0.06,
        "cancel": 0.1,
        "hold": 0.1,
        "approve": 0.06,
        "reject": 0.05,
        "repeat": 0.05,
    }
    drawn = rng.choice(list(makers), number, p=list(makers.values())).tolist()
    drawn[: len(makers)] = list(makers)
    steps: list[Step] = []
    held: list[Step] = []
    for at, kind in enumerate(drawn):
        name = f"r{at:02d}"
        what = _records(kind, rng, ids)
        if kind == "erase":
            steps.append({"do": "erase", "what": what})
        elif kind == "repeat":
            steps.append({"do": "submit", "id": name, "what": steps[0]["what"]})
        else:
            steps.append({"do": "submit", "id": name, "what": what})
        if kind in ("cancel", "hold", "approve", "reject"):
            steps.append({"do": kind, "id": name})
        if kind == "hold":
            held.append({"do": "release", "id": name})
        if at % 13 == 12:
            steps += [{"do": "predict"}, {"do": "run"}]
        if at % 16 == 15:
            steps, held = steps + held, []
    return [*steps, *held, {"do": "finish"}]


def _records(kind: str, rng: np.random.Generator, ids: list[Any]) -> dict[str, Any]:
    if kind == "repeat":
        return {}
    if kind in ("approve", "reject"):
        return {"features": [[ids.pop(), ["f0"]] for _ in range(5)]}
    node = ids.pop()
    shapes: list[dict[str, Any]] = [
        {"nodes": [node]},
        {"labels": [node]},
        {"features": [[node, None]]},
        {"features": [[node, ["f1", "f4"]]]},
    ]
    return shapes[int(rng.integers(len(shapes)))]

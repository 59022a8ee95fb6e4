"""The main job: train, compare, forget one record of each kind, verify."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from cluster.graph import TRAIN, UNLABELLED, Graph
from cluster.partition import quality
from coordinator.config import Config, load_config
from coordinator.erasure import Erasure
from coordinator.pools import Pool
from coordinator.reconcile import Progress
from coordinator.system import System


def run_demo(
    dataset: str, graph: Graph, config: Config, home: Path | None, pool: str, progress: Progress
) -> dict[str, Any]:
    """Run the main job and return its figures as plain JSON."""
    home = home or _free_home()
    with System.fit(graph, config, home, pool=pool, progress=progress) as system:
        cut = quality(system.graph, system.partition)
        accuracy = {
            "unsharded": unsharded_accuracy(graph, config, system.pool),
            "ensemble": system.accuracy("test"),
            "gate": system.accuracy("test", "gate"),
            "mean": system.accuracy("test", "mean"),
        }
        erasures = []
        for kind, erasure in one_of_each(system):
            receipt = system.erase(erasure)
            erasures.append(
                {
                    "kind": kind,
                    "shards_retrained": list(receipt.shards_retrained),
                    "seconds": receipt.seconds,
                }
            )
        scratch_seconds, same = from_scratch(system)
        report = system.verify("all")
        return {
            "dataset": dataset,
            "nodes": graph.num_nodes,
            "edges": graph.num_edges,
            "shards": system.partition.num_shards,
            "partition": {
                "method": config.partition.method,
                "cut": round(cut.cut, 4),
                "balance": round(cut.balance, 4),
            },
            "aggregator": config.aggregator.kind,
            "accuracy": {name: round(value, 4) for name, value in accuracy.items()},
            "erasures": erasures,
            "from_scratch_seconds": round(scratch_seconds, 4),
            "verify": {
                "ok": report.ok and same,
                "replayed": len(report.replayed),
                "same_as_scratch": same,
            },
            "home": str(home),
        }


def _free_home() -> Path:
    numbers = range(1, 1_000_000)
    return next(path for n in numbers if not (path := Path("runs") / f"demo-{n}").exists())


def unsharded_accuracy(graph: Graph, config: Config, pool: Pool, role: str = "test") -> float:
    """Accuracy of one GCN trained on the whole training graph, by the same training function."""
    settings = config.model_dump(exclude={"partition", "aggregator", "storage"})
    settings |= {"partition": {"method": "hash", "num_shards": 1}, "aggregator": {"kind": "mean"}}
    settings["shards"] |= {"model": "gcn", "hidden": 64, "backend": "torch"}
    with (
        tempfile.TemporaryDirectory() as folder,
        System.fit(graph, load_config(settings), folder, pool=pool) as system,
    ):
        return system.accuracy(role)


def from_scratch(system: System) -> tuple[float, bool]:
    """Fit the same system on what is left, on the same pool.

    Returns:
        Wall seconds, and whether it gives the same generation key.
    """
    frozen = system.partition.guarantee == "frozen"
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        fitted = System.fit(
            system.graph,
            system.config,
            folder,
            pool=system.pool,
            partition=system.partition if frozen else None,
        )
        seconds = time.perf_counter() - started
        same = fitted.generation.key == system.generation.key
        fitted.close()
    return seconds, same


def one_of_each(system: System) -> list[tuple[str, Erasure]]:
    """One training node with its edges, one edge, one feature set, one label; from the shards."""
    graph, owner = system.graph, system.partition.owners(system.graph)
    labelled = np.flatnonzero((graph.roles(system.config.roles) == TRAIN) & (graph.y != UNLABELLED))
    ids = graph.ids[labelled].tolist()
    inside = np.flatnonzero((owner[graph.src] == owner[graph.dst]) & (owner[graph.src] >= 0))
    taken = set(ids[:3])
    u, v = next(
        (u, v)
        for u, v in zip(
            graph.ids[graph.src[inside]].tolist(),
            graph.ids[graph.dst[inside]].tolist(),
            strict=True,
        )
        if not {u, v} & taken
    )
    return [
        ("node", Erasure(nodes=[ids[0]])),
        ("edge", Erasure(edges=[(u, v)])),
        ("features", Erasure(features={ids[1]: None})),
        ("label", Erasure(labels=[ids[2]])),
    ]

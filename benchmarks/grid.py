"""Every partitioner x aggregator under one submodel: ``python -m benchmarks.accuracy --grid``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.harness import load, markdown, provenance
from cluster.graph import Graph
from cluster.partition import quality
from cluster.partitioners import PARTITIONERS
from coordinator.aggregators import AGGREGATORS
from coordinator.config import Config, load_config
from coordinator.screens import mean_sd
from coordinator.trial import fitted, inline_pool, seeded

UNFITTED = [kind for kind, aggregator in AGGREGATORS.items() if not aggregator.needs_fit]
FITTED = [kind for kind, aggregator in AGGREGATORS.items() if aggregator.needs_fit]

Found = dict[str, list[float]]


def measure_grid(name: str, shards: int, seeds: int) -> str:
    """The table of one data set as Markdown; submodels are those of the preset ``cora``."""
    base = load_config("communities", {"partition.num_shards": shards})
    found: Found = {}
    with inline_pool(base) as pool:
        for seed in range(seeds):
            for method in PARTITIONERS:
                _measure_partition(load(name), base, method, seed, pool, found)
    model, data = base.shards.model, Path(name).name
    return (
        f"# Partitioner x aggregator on {data}, {shards} shards, {model}\n\n"
        f"`python -m benchmarks.accuracy --grid --data {name} --shards {shards} --seeds {seeds}`, "
        f"{provenance()}.\nTest accuracy in %, mean ± sd over {seeds} seeds; one setting for all: "
        f"lr {base.shards.lr:g}, {base.shards.training_epochs} epochs.\n\n{_table(found)}"
    )


def _measure_partition(
    graph: Graph, base: Config, method: str, seed: int, pool: object, found: Found
) -> None:
    """All aggregators on one partition; those without parameters share one system."""
    partition = None
    for kind in FITTED:
        config = seeded(base, seed, {"partition.method": method, "aggregator.kind": kind})
        with fitted(graph, config, pool, partition=partition) as system:
            if partition is None:
                partition, figures = system.partition, quality(graph, system.partition)
                found.setdefault(f"{method}/cut", []).append(figures.cut)
                found.setdefault(f"{method}/balance", []).append(figures.balance)
                for other in UNFITTED:
                    found.setdefault(f"{method}/{other}", []).append(system.accuracy("test", other))
            found.setdefault(f"{method}/{kind}", []).append(system.accuracy("test"))


def _table(found: Found) -> str:
    rows = [
        {
            "partitioner": method,
            "cut": f"{np.mean(found[f'{method}/cut']):.3f}",
            "balance": f"{np.mean(found[f'{method}/balance']):.2f}",
            **{kind: mean_sd(found[f"{method}/{kind}"]) for kind in AGGREGATORS},
        }
        for method in PARTITIONERS
    ]
    return markdown(rows)

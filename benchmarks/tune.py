"""Choose training settings on validation accuracy alone: ``python -m benchmarks.tune --data cora``.

The same grid is tried for one unsharded model and for the gated ensemble; test labels are not read.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import numpy as np
import yaml

from benchmarks.harness import fitted, inline_pool, load, markdown, provenance, seeded
from coordinator.config import load_config

GRID = [
    "shards.lr=0.03,0.1,0.2",
    "shards.weight_decay=0,1e-4",
    "shards.training_epochs=50,100,200",
]


def parse_grid(items: list[str]) -> dict[str, list[Any]]:
    """``["shards.lr=0.01,0.1"]`` to field -> values."""
    pairs = (item.partition("=") for item in items)
    return {name: [yaml.safe_load(v) for v in values.split(",")] for name, _, values in pairs}


def main() -> None:
    """Print validation accuracy of every point of the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora")
    parser.add_argument("--config", default="cora", help="where the other fields come from")
    parser.add_argument("--grid", nargs="+", default=GRID, help="field=value,value ...")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    graph, grid, rows = load(options.data), parse_grid(options.grid), []
    for point in itertools.product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        ours = load_config(options.config, values)
        whole = load_config(
            ours.model_dump(exclude={"partition", "aggregator"})
            | {"partition": {"method": "hash", "num_shards": 1}, "aggregator": {"kind": "mean"}}
        )
        found: dict[str, list[float]] = {"gate": [], "unsharded": []}
        for seed in range(options.seeds):
            with inline_pool(ours) as pool:
                for name, config in (("gate", ours), ("unsharded", whole)):
                    with fitted(graph, seeded(config, seed), pool) as system:
                        found[name].append(system.accuracy("val"))
        row = {name: str(value) for name, value in values.items()}
        rows.append(row | {name: f"{100 * np.mean(v):.2f}" for name, v in found.items()})
        print(rows[-1], flush=True)
    print(provenance())
    print(markdown(rows))


if __name__ == "__main__":
    main()

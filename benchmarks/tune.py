"""Choose training settings on validation accuracy alone: ``python -m benchmarks.tune --data cora``.

The same grid is tried for one unsharded model and for the gated ensemble; test labels are not read.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np

from benchmarks.harness import fitted, inline_pool, load, markdown, provenance, seeded

GRID = {
    "shards.lr": [0.01, 0.03, 0.1],
    "shards.weight_decay": [0.0, 1e-4, 5e-4],
    "shards.training_epochs": [100, 200],
}


def main() -> None:
    """Print validation accuracy of every point of the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora")
    parser.add_argument("--model", default="gcn")
    parser.add_argument("--method", default="louvain")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    graph, rows = load(options.data), []
    for point in itertools.product(*GRID.values()):
        values = dict(zip(GRID, point, strict=True))
        found: dict[str, list[float]] = {"unsharded": [], "gate": []}
        for seed in range(options.seeds):
            shards = {name.partition(".")[2]: value for name, value in values.items()}
            base = {"shards": {"model": options.model, **shards}}
            cut = {"method": options.method, "num_shards": options.shards}
            ours = seeded(base | {"partition": cut}, seed)
            whole = {
                "partition": {"method": "hash", "num_shards": 1},
                "aggregator": {"kind": "mean"},
            }
            with inline_pool(ours) as pool:
                for name, config in (("gate", ours), ("unsharded", seeded(base | whole, seed))):
                    with fitted(graph, config, pool) as system:
                        found[name].append(system.accuracy("val"))
        row = {name: f"{value:g}" for name, value in values.items()}
        rows.append(row | {name: f"{100 * np.mean(v):.2f}" for name, v in found.items()})
        print(rows[-1], flush=True)
    print(provenance())
    print(markdown(rows))


if __name__ == "__main__":
    main()

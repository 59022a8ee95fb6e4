"""Accuracy of every partitioner x aggregator: ``python -m benchmarks.accuracy``.

60/20/20 roles by keyed hash, 5 seeds (each seeds roles, partition and trainings). Beside them
stands one model trained on the whole training graph, once with the shards' settings and once with
its own. Both settings have the best validation accuracy in ``benchmarks.tune``, of the gate and of
the one model. Writes ``benchmarks/results/accuracy-DATA.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import (
    fitted,
    inline_pool,
    load,
    markdown,
    mean_sd,
    provenance,
    seeded,
)
from cluster.graph import Graph
from cluster.partition import quality
from cluster.partitioners import PARTITIONERS
from coordinator.aggregators import AGGREGATORS
from coordinator.config import Config, load_config, parse_overrides

UNFITTED = [kind for kind, aggregator in AGGREGATORS.items() if not aggregator.needs_fit]
RESULTS = Path(__file__).parent / "results"


def measure(graph: Graph, base: Config, whole: Sequence[str], seeds: int) -> dict[str, list[float]]:
    """Test accuracy by row name, one value a seed, and the partitions' cut and balance.

    Args:
        graph: the data.
        base: configuration of the shards.
        whole: settings of the one model beside them, as ``field=value``.
        seeds: number of seeds.
    """
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    one = {"partition.method": "hash", "partition.num_shards": 1, "aggregator.kind": "mean"}
    for seed in range(seeds):
        with inline_pool(base) as pool:
            for name, own in (("same settings", {}), ("own settings", parse_overrides([*whole]))):
                with fitted(graph, seeded(base, seed, one | own), pool) as system:
                    note(name, system.accuracy("test"))
            for method in PARTITIONERS:
                cut = {"partition.method": method, "aggregator.kind": "optimal"}
                with fitted(graph, seeded(base, seed, cut), pool) as system:
                    partition, figures = system.partition, quality(graph, system.partition)
                    note(f"{method}/cut", figures.cut)
                    note(f"{method}/balance", figures.balance)
                    for kind in (*UNFITTED, "optimal"):
                        note(f"{method}/{kind}", system.accuracy("test", kind))
                cut["aggregator.kind"] = "similarity"
                again = seeded(base, seed, cut)
                with fitted(graph, again, pool, partition=partition) as system:
                    note(f"{method}/similarity", system.accuracy("test"))
                print(seed, method, {k: round(found[f"{method}/{k}"][-1], 3) for k in AGGREGATORS})
    return found


def table(found: dict[str, list[float]], seeds: int) -> str:
    """Markdown table: one row a partitioner, one column an aggregator."""
    rows = []
    for method in PARTITIONERS:
        row = {
            "partitioner": method,
            "cut": f"{np.mean(found[f'{method}/cut']):.3f}",
            "balance": f"{np.mean(found[f'{method}/balance']):.2f}",
        }
        rows.append(row | {kind: mean_sd(found[f"{method}/{kind}"]) for kind in AGGREGATORS})
    lines = [markdown(rows), f"Test accuracy in %, mean ± sd over {seeds} seeds.\n"]
    for name in ("same settings", "own settings"):
        gap = [a - b for a, b in zip(found[name], found["louvain/gate"], strict=True)]
        lines.append(
            f"One model on the whole training graph, {name}: {mean_sd(found[name])}; "
            f"paired difference to louvain/gate {mean_sd(gap)} points.\n"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora")
    parser.add_argument("--config", default="cora", help="file or preset")
    parser.add_argument("--set", nargs="*", default=[], help="field=value")
    parser.add_argument(
        "--whole",
        nargs="*",
        default=["shards.lr=0.2", "shards.weight_decay=1e-4", "shards.training_epochs=200"],
        help="own settings of the one model",
    )
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    name = Path(options.data).name
    base = load_config(options.config, parse_overrides(options.set))
    found = measure(load(options.data), base, options.whole, options.seeds)
    shards = base.shards
    text = (
        f"# Accuracy on {name}, {base.partition.num_shards} shards, {shards.model}\n\n"
        f"`python -m benchmarks.accuracy --data {options.data}`, {provenance()}.\n"
        f"Shards: lr {shards.lr:g}, weight decay {shards.weight_decay:g}, "
        f"{shards.training_epochs} epochs; one model's own: {', '.join(options.whole)}.\n\n"
        + table(found, options.seeds)
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"accuracy-{name}.md"
    path.write_text(text)
    print(text, f"\nwritten to {path}")


if __name__ == "__main__":
    main()

"""Accuracy of every partitioner x aggregator: ``python -m benchmarks.accuracy``.

60/20/20 roles by keyed hash, 5 seeds (each seeds roles, partition and trainings), beside one model
trained on the whole training graph with the same settings and seed. Training settings were chosen
on validation accuracy by ``benchmarks.tune``. Writes ``benchmarks/results/accuracy-DATA.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

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
from cluster.partitioners import PARTITIONERS
from coordinator.aggregators import AGGREGATORS

RESULTS = Path(__file__).parent / "results"


def measure(graph: Any, base: dict[str, Any], shards: int, seeds: int) -> dict[str, list[float]]:
    """Test accuracy by row name, one value a seed, and the partition's cut and balance."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for seed in range(seeds):
        whole = {"partition": {"method": "hash", "num_shards": 1}, "aggregator": {"kind": "mean"}}
        with inline_pool(seeded(base, seed)) as pool:
            with fitted(graph, seeded(base | whole, seed), pool) as system:
                note("unsharded", system.accuracy("test"))
            for method in PARTITIONERS:
                cut = {"method": method, "num_shards": shards}
                config = seeded(base | {"partition": cut, "aggregator": {"kind": "optimal"}}, seed)
                with fitted(graph, config, pool) as system:
                    note(f"{method}/cut", float(system.partition.info["cut"]))
                    note(f"{method}/balance", float(system.partition.info["balance"]))
                    for kind in AGGREGATORS:
                        note(f"{method}/{kind}", system.accuracy("test", kind))
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
    unsharded = found["unsharded"]
    gap = [a - b for a, b in zip(unsharded, found["louvain/gate"], strict=True)]
    return (
        markdown(rows)
        + f"\nOne model on the whole training graph: {mean_sd(unsharded)} (test accuracy in %, "
        + f"mean ± sd over {seeds} seeds). Paired difference to louvain/gate: {mean_sd(gap)}.\n"
    )


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora")
    parser.add_argument("--model", default="gcn")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--training-epochs", type=int, default=200)
    options = parser.parse_args()
    base = {
        "shards": {
            "model": options.model,
            "lr": options.lr,
            "weight_decay": options.weight_decay,
            "training_epochs": options.training_epochs,
        }
    }
    name = Path(options.data).name
    found = measure(load(options.data), base, options.shards, options.seeds)
    text = (
        f"# Accuracy on {name}, {options.shards} shards, {options.model}\n\n"
        f"`python -m benchmarks.accuracy --data {name} --model {options.model} "
        f"--shards {options.shards} --seeds {options.seeds}`, {provenance()}.\n\n"
        + table(found, options.seeds)
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"accuracy-{name}.md"
    path.write_text(text)
    print(text, f"\nwritten to {path}")


if __name__ == "__main__":
    main()

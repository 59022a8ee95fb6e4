"""What slices cost and save: ``python -m benchmarks.slices --data cora --config communities``.

For each number of slices: fit, test accuracy over some seeds, then one-node erasures of the same
random training nodes (first seed), with the CPU seconds their training took. Beside them stands
SISA's expectation for a shard whose epochs cost as much as they visit rows, 2/3 + 1/(3R).
Writes ``benchmarks/results/slices-DATA.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.harness import load, markdown, provenance
from cluster.graph import Graph
from coordinator.config import Config, load_config, parse_overrides
from coordinator.erasure import Erasure
from coordinator.screens import mean_sd
from coordinator.system import System
from coordinator.trial import fitted, inline_pool, seeded

RESULTS = Path(__file__).parent / "results"
WARM_UP, ERASURES = 2, 20


def training_cpu(system: System, seed: int) -> float:
    """Mean CPU seconds of training in a one-node erasure."""
    rng = np.random.default_rng(seed)
    nodes = rng.choice(system.partition.ids, WARM_UP + ERASURES, replace=False).tolist()
    receipts = [system.erase(Erasure(nodes=[node])) for node in nodes]
    return mean(receipt.breakdown["train"]["cpu_seconds"] for receipt in receipts[WARM_UP:])


def measure(graph: Graph, configs: list[Config]) -> tuple[list[float], float]:
    """Test accuracy under each configuration, training CPU of an erasure under the first."""
    accuracies, cpu = [], 0.0
    for config in configs:
        with inline_pool(config) as pool, fitted(graph, config, pool) as system:
            accuracies.append(system.accuracy("test"))
            cpu = cpu or training_cpu(system, config.seed)
    return accuracies, cpu


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora")
    parser.add_argument("--config", default=None, help="file or preset")
    parser.add_argument("--slices", default="1,2,4,8")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="section.field=value")
    options = parser.parse_args()
    name, graph = Path(options.data).name, load(options.data)
    base: dict[str, Any] = load_config(options.config, parse_overrides(options.set)).model_dump()
    rows, without = [], 0.0
    for slices in map(int, options.slices.split(",")):
        change = {"shards.slices": slices}
        accuracies, cpu = measure(graph, [seeded(base, s, change) for s in range(options.seeds)])
        without = without or cpu
        rows.append(
            {
                "slices": str(slices),
                "test accuracy %": mean_sd(accuracies),
                "erasure's training, CPU s": f"{cpu:.3f}",
                "of one without slices": f"{cpu / without:.2f}",
                "SISA's expectation": f"{2 / 3 + 1 / (3 * slices):.2f}",
            }
        )
        print(rows[-1], flush=True)
    chosen = f" --config {options.config}" if options.config else ""
    extra = "".join(f" --set {text}" for text in options.set)
    text = (
        f"# Slices on {name}, {base['partition']['num_shards']} shards\n\n"
        f"`python -m benchmarks.slices --data {options.data}{chosen} --slices {options.slices}"
        f" --seeds {options.seeds}{extra}`, {provenance()}.\n"
        f"Means over {ERASURES} one-node erasures of the same nodes; accuracy over "
        f"{options.seeds} seeds.\n\n" + markdown(rows)
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"slices-{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""What one erasure costs beside a fit from scratch, on Ray: ``python -m benchmarks.erasure``.

For each model: fit, then 10 one-node erasures (random training nodes), each timed as a whole, from
the plan to the purge that ends it, then 3 fits from scratch of what is left, on the same warm
pool. Community shards without a learned aggregator; ``benchmarks.refit`` measures the default.
Starting Ray and importing torch are outside all of them. The fits from scratch are given the
partition, so the time to make one does not count against them. CPU seconds are those of this
process and of all shard actors. Medians. Writes ``benchmarks/results/erasure-DATA.md``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness import load, markdown, provenance
from cluster.graph import TRAIN, Graph
from coordinator.config import Config
from coordinator.erasure import Erasure
from coordinator.pools import Pool
from coordinator.pools.ray import RayPool
from coordinator.system import System
from coordinator.trial import seeded
from shards.recipe import choose_profile

RESULTS = Path(__file__).parent / "results"
ERASURES, FITS = 10, 3


def timed(pool: Pool, work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, CPU seconds of this process and the actors, and the result."""
    cpu = time.process_time() + pool.cpu_seconds()
    wall = time.perf_counter()
    result = work()
    wall = time.perf_counter() - wall
    return wall, time.process_time() + pool.cpu_seconds() - cpu, result


def measure(graph: Graph, config: Config, pool: Pool) -> dict[str, Any]:
    """Medians of one configuration, and the breakdown of the median erasure."""
    with tempfile.TemporaryDirectory() as folder:
        system = System.fit(graph, config, Path(folder) / "home", pool=pool)
        train = graph.ids[graph.roles(config.roles) == TRAIN]
        chosen = np.random.default_rng(config.seed).choice(train, ERASURES + 1, replace=False)
        system.erase(Erasure(nodes=[chosen[0]]))  # statement caches and page faults, not counted
        runs = [
            timed(pool, lambda node=node: system.erase(Erasure(nodes=[node])))
            for node in chosen[1:].tolist()
        ]
        fits = [
            timed(pool, lambda n=n: _scratch(system, Path(folder) / f"{n}")) for n in range(FITS)
        ]
        same = all(key == system.generation.key for _, _, key in fits)
        system.close()
    middle = sorted(runs, key=lambda run: run[1])[ERASURES // 2][2]
    return {
        "wall": median(run[0] for run in runs),
        "cpu": median(run[1] for run in runs),
        "scratch_wall": median(fit[0] for fit in fits),
        "scratch_cpu": median(fit[1] for fit in fits),
        "same": same,
        "breakdown": middle.breakdown,
    }


def _scratch(system: System, home: Path) -> str:
    fitted = System.fit(
        system.graph, system.config, home, pool=system.pool, partition=system.partition
    )
    key = str(fitted.generation.key)
    fitted.close()
    return key


def row(model: str, kind: str, found: dict[str, Any]) -> dict[str, str]:
    """One line of the table."""
    return {
        "model": model,
        "aggregator": kind,
        "erasure CPU s": f"{found['cpu']:.3f}",
        "scratch CPU s": f"{found['scratch_cpu']:.3f}",
        "CPU ratio": f"1/{found['scratch_cpu'] / found['cpu']:.1f}",
        "erasure wall s": f"{found['wall']:.3f}",
        "scratch wall s": f"{found['scratch_wall']:.3f}",
        "wall ratio": f"1/{found['scratch_wall'] / found['wall']:.1f}",
        "same keys": "yes" if found["same"] else "NO",
    }


def breakdown(found: dict[str, Any]) -> str:
    """Where the median erasure's time went."""
    stages = found["breakdown"].items()
    return ", ".join(f"{s} {t['seconds']:.3f} s ({t['cpu_seconds']:.3f} CPU)" for s, t in stages)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--models", default="gcn,sage,gat,gin")
    parser.add_argument("--aggregators", default="gate,optimal")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    name, graph = Path(options.data).name, load(options.data)
    rows, details = [], []
    for model in options.models.split(","):
        training = {"hidden": 64, "lr": 0.01, "weight_decay": 5e-4, "training_epochs": 100}
        base = {
            "shards": {"model": model, **training},
            "partition": {"method": "louvain", "num_shards": options.shards},
        }
        config = seeded(base, options.seed)
        pool = RayPool(choose_profile(config.shards), config.shards, options.shards)
        for kind in options.aggregators.split(","):
            found = measure(
                graph, seeded(base | {"aggregator": {"kind": kind}}, options.seed), pool
            )
            rows.append(row(model, kind, found))
            details.append(f"- {model}, {kind}: {breakdown(found)}")
            print(rows[-1], details[-1], sep="\n", flush=True)
        pool.close()
    text = (
        f"# One-node erasure on {name}, {options.shards} shards\n\n"
        f"`python -m benchmarks.erasure --data {options.data} --shards {options.shards}`, "
        f"{provenance()}.\n"
        f"Medians of {ERASURES} erasures and {FITS} fits from scratch, one warm Ray pool.\n\n"
        + markdown(rows)
        + "\nStages, up to publication, of the erasure with the median CPU time:\n\n"
        + "\n".join(details)
        + "\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"erasure-{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

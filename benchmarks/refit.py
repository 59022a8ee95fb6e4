"""What the default design pays for one erasure: ``python -m benchmarks.refit --data coauthor_cs``.

On one warm pool: fit, then one-node erasures of random training nodes, each from the plan to the
purge that ends it, then fits from scratch of what is left, which end in the same keys. CPU seconds
are those of this process and of all shard actors; *refit* is what the aggregator's part took,
moved answers and ridge statistics included. Beside them stands the training of the unsharded model
alone, without storing, publishing or predicting. Medians. Writes
``benchmarks/results/refit-DATA.md``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.erasure import ERASURES, FITS, RESULTS, timed
from benchmarks.harness import load, markdown, provenance
from cluster.graph import TRAIN, Graph
from coordinator.config import Config, parse_overrides
from coordinator.erasure import Erasure
from coordinator.pools import Pool
from coordinator.pools.base import Progress
from coordinator.pools.ray import RayPool
from coordinator.system import System
from coordinator.trial import seeded
from shards.recipe import choose_profile


class Meter:
    """A pool that notes the CPU seconds its actors spend on each method.

    Asking the actors costs this process some too; that is noted as ``asking``, to be left out.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool, self.spent, self.asking = pool, dict[str, float](), 0.0

    @property
    def size(self) -> int:
        """Number of actors."""
        return self.pool.size

    def map(self, method: str, jobs: Sequence[Any], progress: Progress | None = None) -> list[Any]:
        """Run the jobs and note what they cost."""
        before = self._ask()
        answers = self.pool.map(method, jobs, progress)
        self.spent[method] = self.spent.get(method, 0.0) + self._ask() - before
        return answers

    def tell(self, method: str, job: Any) -> list[Any]:
        """Run a method on every actor and note what it costs."""
        before = self._ask()
        answers = self.pool.tell(method, job)
        self.spent[method] = self.spent.get(method, 0.0) + self._ask() - before
        return answers

    def _ask(self) -> float:
        started = time.process_time()
        seconds = self.pool.cpu_seconds()
        self.asking += time.process_time() - started
        return seconds

    def cpu_seconds(self) -> float:
        """CPU seconds of all actors."""
        return self.pool.cpu_seconds()

    def close(self) -> None:
        """End the pool."""
        self.pool.close()


def measure(graph: Graph, config: Config, pool: Meter) -> dict[str, float]:
    """Medians of erasures and of fits from scratch, and whether their keys agree."""
    with tempfile.TemporaryDirectory() as folder:
        system = System.fit(graph, config, Path(folder) / "home", pool=pool)
        train = graph.ids[graph.roles(config.roles) == TRAIN]
        chosen = np.random.default_rng(config.seed).choice(train, ERASURES + 1, replace=False)
        system.erase(Erasure(nodes=[chosen[0]]))  # page faults and statement caches, not counted
        whole, refit, training = [], [], []
        for node in chosen[1:].tolist():
            pool.spent.clear()
            pool.asking = 0.0
            _, cpu, receipt = timed(pool, lambda node=node: system.erase(Erasure(nodes=[node])))
            stage = receipt.breakdown["aggregator"]["cpu_seconds"]
            spent = {name: pool.spent.get(name, 0.0) for name in ("build", "rows", "learn")}
            share = 4 / (2 * len(pool.spent))  # of the asking, that around rows and learn
            whole.append(cpu - pool.asking)
            refit.append(stage - share * pool.asking + spent["rows"] + spent["learn"])
            training.append(spent["build"])
        fits = []
        for number in range(FITS):
            home = Path(folder) / str(number)
            fits.append(timed(pool, lambda home=home: _again(system, home)))
        same = all(key == system.generation.key for _, _, key in fits)
        system.close()
    return {
        "erasure": median(whole),
        "refit": median(refit),
        "training": median(training),
        "scratch": median(cpu for _, cpu, _ in fits),
        "same": float(same),
    }


def _again(system: System, home: Path) -> str:
    given = (system.graph, system.config, home)
    with System.fit(*given, pool=system.pool, partition=system.partition) as fitted:
        return str(fitted.generation.key)


def unsharded_training(graph: Graph, config: Config, pool: Meter) -> float:
    """CPU seconds that training one model on the whole training graph takes, median of 3."""
    seconds = []
    for _ in range(FITS):
        pool.spent.clear()
        with tempfile.TemporaryDirectory() as folder:
            System.fit(graph, config, Path(folder) / "home", pool=pool).close()
        seconds.append(pool.spent["build"])
    return median(seconds)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="coauthor_cs")
    parser.add_argument("--shards", default="20,50")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--unsharded",
        nargs="*",
        default=["shards.model=sage", "shards.lr=0.03", "shards.training_epochs=100"],
        help="settings of the unsharded model, those of its best validation accuracy",
    )
    options = parser.parse_args()
    name, graph = Path(options.data).name, load(options.data)
    one = {"partition.num_shards": 1, "aggregator.kind": "mean", "shards.hidden": 64}
    whole = seeded(None, options.seed, {**one, **parse_overrides(options.unsharded)})
    pool = Meter(RayPool(choose_profile(whole.shards), whole.shards, 2))
    reference = unsharded_training(graph, whole, pool)
    rows = []
    for count in map(int, options.shards.split(",")):
        config = seeded(None, options.seed, {"partition.num_shards": count})
        rows.append(_row(count, measure(graph, config, pool), reference))
        print(rows[-1], flush=True)
    pool.close()
    text = (
        f"# One-node erasure under the default design on {name}\n\n"
        f"`python -m benchmarks.refit --data {options.data} --shards {options.shards}`, "
        f"{provenance()}, {time.strftime('%Y-%m-%d')}.\n"
        f"CPU seconds, medians of {ERASURES} erasures and {FITS} fits on one warm Ray pool. "
        f"Unsharded: {', '.join(options.unsharded)}, {reference:.2f} s of training.\n\n"
        + markdown(rows)
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"refit-{name}.md").write_text(text)
    print(text)


def _row(count: int, found: dict[str, float], reference: float) -> dict[str, str]:
    return {
        "shards": str(count),
        "erasure": f"{found['erasure']:.3f}",
        "of it training": f"{found['training']:.3f}",
        "of it refit": f"{found['refit']:.3f}",
        "fit from scratch": f"{found['scratch']:.2f}",
        "refit / scratch": f"{100 * found['refit'] / found['scratch']:.1f} %",
        "erasure / scratch": f"{100 * found['erasure'] / found['scratch']:.1f} %",
        "erasure / unsharded training": f"{100 * found['erasure'] / reference:.1f} %",
        "same keys": "yes" if found["same"] else "NO",
    }


if __name__ == "__main__":
    main()

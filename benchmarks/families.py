"""Generated graphs of many kinds: ``python -m benchmarks.families``.

Block models whose edges mislead, whose features or edges say nothing, with many classes, few edges,
a rare class, and one whose label is an interaction of a node's own feature with its neighbourhood,
which a shard with a twentieth of the labels cannot learn. The default design, untuned, beside the
unsharded models, tuned on validation nodes. Writes ``benchmarks/results/families.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import markdown, provenance, study_parser, tune_and_test
from benchmarks.scarce import BUDGET, DEFAULT, ROWS, SHARDS
from cluster.graph import Graph
from cluster.readers.sbm import BlockModel, block_model
from coordinator.contenders import UNSHARDED_GCN, UNSHARDED_SAGE
from coordinator.screens import mean_sd
from coordinator.study import Study, TrialLog
from coordinator.study_cli import say

RESULTS = Path(__file__).parent / "results"


def block(**fields: Any) -> Callable[[], Graph]:
    """A block model of 3,000 nodes unless a field says otherwise."""
    return lambda: block_model(BlockModel(**{"num_nodes": 3000} | fields))


def relabelled(graph: Graph, y: Any, x: Any = None) -> Graph:
    """The edges of a graph with other labels, and perhaps other features."""
    edges = np.stack([graph.src, graph.dst])
    features = np.array(graph.x) if x is None else np.asarray(x, np.float32)
    return Graph.from_arrays(edges, features, y.tolist())


def rare_class() -> Graph:
    """One community of twenty against all others."""
    graph = block(num_nodes=4000, num_classes=20, mean_degree=10, mixing=0.3, noise=3, seed=6)()
    return relabelled(graph, (graph.y == 0).astype(int))


def interaction() -> Graph:
    """The label is whether the community is odd, or not, as a bit among the features says."""
    graph = block(num_classes=6, mean_degree=6, mixing=0.3, seed=7)()
    rng = np.random.default_rng(0)
    bit = rng.integers(0, 2, graph.num_nodes)
    shown = (2 * bit - 1 + rng.normal(0, 0.3, graph.num_nodes))[:, None]
    return relabelled(graph, (graph.y % 2) ^ bit, np.concatenate([graph.x, shown], axis=1))


FAMILIES: dict[str, Callable[[], Graph]] = {
    "edges that mislead (90 % leave the class)": block(
        num_classes=5, mixing=0.9, noise=2.5, seed=1
    ),
    "features that say nothing": block(mixing=0.25, noise=30, seed=2),
    "edges that say nothing": block(mixing=6 / 7, noise=2.5, seed=3),
    "40 classes": block(
        num_nodes=5000, num_classes=40, mixing=0.3, noise=3, num_features=64, seed=4
    ),
    "two neighbours a node": block(num_nodes=4000, mean_degree=2, noise=3, seed=5),
    "one class of 5 %": rare_class,
    "interaction of own feature and neighbours": interaction,
}


def measure(name: str, number: int, options: argparse.Namespace, log: TrialLog) -> dict[str, str]:
    """One line of the table."""
    study = Study(f"family-{number}", FAMILIES[name](), log, options.workers, report=say)
    found = tune_and_test([study] * options.seeds, ROWS, BUDGET, SHARDS)
    tests = {row: [trial.test or 0.0 for trial in trials] for row, trials in found.items()}
    best = max((UNSHARDED_GCN, UNSHARDED_SAGE), key=lambda row: float(np.mean(tests[row])))
    gap = np.subtract(tests[DEFAULT.name], tests[best]).tolist()
    cells = {row: mean_sd(values) for row, values in tests.items()}
    return {"graph": name, **cells, "default less the better of GCN, SAGE": mean_sd(gap, sign="+")}


def main() -> None:
    """Measure and write the table."""
    options = study_parser(__doc__, "runs/families").parse_args()
    log = TrialLog(Path(options.home))
    rows = [measure(name, at, options, log) for at, name in enumerate(FAMILIES)]
    text = (
        f"# Generated graphs of many kinds, {SHARDS} shards\n\n"
        f"`python -m benchmarks.families --seeds {options.seeds}`, {provenance()}.\n"
        f"Test accuracy in %, mean ± sd over {options.seeds} seeds. Unsharded models are tuned "
        f"over {BUDGET} settings on validation nodes of seed 0, the default is not.\n\n"
        + markdown(rows)
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "families.md"
    path.write_text(text)
    print(text, f"\nwritten to {path}")


if __name__ == "__main__":
    main()

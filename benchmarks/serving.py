"""How fast a replica answers: all submodels at once, one after the other, and from the table.

Run ``python -m benchmarks.serving`` (``--nodes``). Its output is ``benchmarks/results/serving.md``.
A generated graph with power-law degrees, 20 hash shards of GCN and of the default design, one epoch
of training, one thread. Every figure is the median of a few runs, each on nodes of its own. The
script fails where the stack is less than ``GOAL`` times faster than a loop over the shards' models.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.harness import markdown, provenance
from cluster.graph import Located
from cluster.readers.sbm import BlockModel, block_model
from cluster.store import LocalStore
from coordinator.config import load_config
from coordinator.pools import open_pool
from coordinator.serving.published import Published, load_published
from coordinator.serving.view import View
from coordinator.system import System
from shards.ball import ball
from shards.checkpoint import load_weights
from shards.recipe import choose_profile
from shards.submodels.inputs import ball_input
from shards.submodels.registry import restore_submodel
from shards.submodels.rowwise import row_posteriors
from shards.submodels.table import receptive_field
from shards.training import posteriors

Array = npt.NDArray[Any]
Weights = list[Mapping[str, Array]]

SHARDS, SEED, GOAL, LOOPS, RUNS = 20, 0, 50.0, 3, 15
SIZES = (1, 256)
DESIGNS: Mapping[str, Mapping[str, Any]] = {
    "GCN, width 64, gate": {"model": "gcn", "hidden": 64},
    "default (linear, learned)": {},
}
KINDS = {"GCN, width 64, gate": "gate", "default (linear, learned)": "learned"}


@dataclass(frozen=True)
class Timing:
    """Medians in seconds."""

    wall: float
    cpu: float

    def text(self) -> str:
        """Both, in milliseconds."""
        return f"{1e3 * self.wall:,.2f} ms ({1e3 * self.cpu:,.2f} ms CPU)"


def main() -> None:
    """Measure and print a Markdown record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{provenance()}\n")
    for design in DESIGNS:
        with tempfile.TemporaryDirectory() as folder:
            published, weights = fit(Path(folder), options.nodes, design)
        print(f"## {design}\n")
        rows = measure(published, weights)
        print(markdown([{"what": what, "figure": figure} for what, figure in rows.items()]))


def fit(home: Path, num_nodes: int, design: str) -> tuple[Published, Weights]:
    """A generation of a freshly fitted system, and the weights of its submodels."""
    graph = block_model(BlockModel(num_nodes, 10, 10.0, num_features=128, seed=SEED))
    config = load_config(
        {
            "partition": {"method": "hash", "num_shards": SHARDS},
            "shards": {"training_epochs": 1, **DESIGNS[design]},
            "aggregator": {"kind": KINDS[design]},
        }
    )
    pool = open_pool("inline", choose_profile(config.shards), config.shards, SHARDS)
    system = System.fit(graph, config, home, pool=pool)
    current = system.engine.ledger.current_generation()
    assert current is not None
    store = LocalStore(home)
    published = load_published(store, *current, config)
    weights = [load_weights(store, key) for key in system.generation.submodels.values()]
    system.close()
    pool.close()
    return published, weights


def measure(published: Published, weights: Weights) -> dict[str, str]:
    """Figures of one design."""
    view, _ = timed(lambda: View.cold(published))
    rng = np.random.default_rng(SEED)
    graph = published.graph
    found = {
        "graph": f"{graph.num_nodes:,} nodes, {graph.num_edges:,} edges, "
        f"{graph.schema.num_features} features, highest degree {graph.adjacency.degree.max():.0f}",
    }
    everything = whole_graph_loop(view, weights)
    found["loop over the shards' models, whole graph"] = everything.text()
    for size in SIZES:
        found |= of_size(view, weights, size, everything, rng)
    return found | of_masks(published, rng)


def whole_graph_loop(view: View, weights: Weights) -> Timing:
    """What a system does that asks one model after the other about the whole graph."""
    config, schema = view.published.config.shards, view.graph.schema
    models = [restore_submodel(config, schema, one) for one in weights]

    def loop() -> None:
        with torch.inference_mode():
            for model in models:
                posteriors(model, view.inputs)

    loop()  # tensors of the inputs are made once
    return middle(loop for _ in range(LOOPS))


def of_size(
    view: View, weights: Weights, size: int, everything: Timing, rng: np.random.Generator
) -> dict[str, str]:
    """Figures for queries of that many nodes, and what the stack gains."""
    stack = view.published.stack
    assert stack is not None
    queries = [np.sort(rng.choice(view.graph.num_nodes, size, replace=False)) for _ in range(RUNS)]
    some = queries[:LOOPS]
    by_ball = middle(partial(ball_loop, view, weights, rows) for rows in some)
    stacked = middle(partial(stack.posteriors, view.inputs, rows) for rows in queries)
    view.answer(np.asarray([0]))  # what is kept for the whole graph is made with the first answer
    answered = middle(partial(view.answer, rows) for rows in queries)
    from_table = middle(partial(view.answer, rows) for rows in queries)
    gain = everything.wall / stacked.wall
    if gain < GOAL:
        raise SystemExit(f"the stack is {gain:.0f} times faster for {size} nodes, goal {GOAL:.0f}")
    nodes = "1 node" if size == 1 else f"{size} nodes"
    return {
        f"{nodes}: loop, row by row over the ball": by_ball.text(),
        f"{nodes}: stack": stacked.text(),
        f"{nodes}: stack against whole graph, against ball": f"{gain:,.0f} times, "
        f"{by_ball.wall / stacked.wall:,.0f} times",
        f"{nodes}: answer, computed": answered.text(),
        f"{nodes}: answer, from the table": from_table.text(),
    }


def ball_loop(view: View, weights: Weights, rows: Array) -> None:
    """What :meth:`shards.actor.ShardActor.rows` does for each submodel, the ball cut once."""
    config = view.published.config.shards
    around = ball(view.graph, rows, receptive_field(config))
    inputs = ball_input(around, "cpu")
    for one in weights:
        row_posteriors(one, config, inputs)


def of_masks(published: Published, rng: np.random.Generator) -> dict[str, str]:
    """What a generation and a mask cost."""
    graph = published.graph
    view, cold = timed(lambda: View.cold(published))
    rows = rng.choice(graph.num_nodes, LOOPS + 1, replace=False)
    kept, erased = rows[:1], rows[1:]
    _, first = timed(lambda: view.answer(kept))
    masks, answers = [], []
    for count in range(1, LOOPS + 1):
        view, mask = timed(partial(view.under, removing(erased[:count])))
        masks.append(mask)
        answers.append(timed(partial(view.answer, kept))[1])
    return {
        "a view from nothing": cold.text(),
        "its first answer": first.text(),
        "one node more in the mask": typical(masks).text(),
        "the first answer after it": typical(answers).text(),
    }


def removing(rows: Array) -> Located:
    """A mask of some nodes."""
    nothing = np.empty(0, np.int64)
    return Located(rows, nothing, (nothing, nothing), nothing)


def timed(act: Callable[[], Any]) -> tuple[Any, Timing]:
    """What an act gives, and what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = act()
    return found, Timing(time.perf_counter() - wall, time.process_time() - cpu)


def middle(acts: Iterable[Callable[[], Any]]) -> Timing:
    """Medians over some acts."""
    return typical([timed(act)[1] for act in acts])


def typical(timings: list[Timing]) -> Timing:
    """Medians."""
    return Timing(median(t.wall for t in timings), median(t.cpu for t in timings))


if __name__ == "__main__":
    main()

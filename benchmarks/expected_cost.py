"""Expected erasure cost, formula against simulation: ``python -m benchmarks.expected_cost``.

For each design, 1,000 one-node requests drawn uniformly and 1,000 drawn by degree. The formula
reads the reader index; the simulation does not: it takes the node out of the graph, builds the
contents again and asks their digests which shards moved. Built again are the shards that the index
names and a random sample of the others, of which none may move.

Draws are systematic: the training nodes are sorted by the cost that the formula expects of each,
then by owner and hash, and every 1,000th part of the probability, from one random start, picks the
node it falls on. Every node is drawn with its own probability, so the mean is unbiased whatever the
order; the order makes the error small where the formula is right.
The standard error is that of successive differences; beside it stands that of independent draws.
Writes ``benchmarks/results/expected-cost-DATA.md``.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import load, markdown, provenance
from cluster.graph import Change, Graph
from cluster.partition import UNASSIGNED, Partition
from cluster.partitioners import make_partition
from coordinator.config import Config
from coordinator.trial import seeded
from shards.content import build_content
from shards.erasure_cost import (
    by_degree,
    cost_spread,
    erasure_cost,
    expected_cost,
    row_costs,
    training_sizes,
    uniform,
)
from shards.shard_graph import ReaderIndex, build_index, retrained_by_nodes

Array = npt.NDArray[Any]

RESULTS = Path(__file__).parent / "results"
REQUESTS, CONTROLS = 1000, 2
ONE_HOP: dict[str, Any] = {"partition.method": "louvain", "partition.halo.hops": 1}
TWO_HOPS = {**ONE_HOP, "partition.halo.hops": 2}
SAFE = {
    "partition.method": "bilevel",
    "partition.halo.arcs": "clique",
    "partition.halo.labels": True,
    "partition.halo.budget": None,
}
DESIGNS: dict[str, dict[str, Any]] = {
    "hash": {"partition.method": "hash"},
    "louvain": {"partition.method": "louvain"},
    "blpa": {"partition.method": "blpa"},
    "louvain + halo 1 hop 10 %": {**ONE_HOP, "partition.halo.budget": 0.1},
    "louvain + halo 1 hop all": {**ONE_HOP, "partition.halo.budget": None},
    "louvain + halo 2 hops 50 %": {**TWO_HOPS, "partition.halo.budget": 0.5},
    "louvain + halo 2 hops all": {**TWO_HOPS, "partition.halo.budget": None},
    "SAFE": SAFE,
    "GUIDE": {"partition.method": "fair_spectral", "shards.repair": "zero"},
}
KINDS = {"uniform": uniform, "by degree": by_degree}


@dataclass(frozen=True)
class Cut:
    """A graph that is cut into shards, and what each shard's training reads."""

    graph: Graph
    partition: Partition
    index: ReaderIndex
    digests: tuple[str, ...]

    @classmethod
    def make(cls, graph: Graph, config: Config) -> Cut:
        """Cut a graph as a system would."""
        partition = make_partition(graph, config.partition, config.roles)
        repaired = config.shards.repair != "none"
        index = build_index(graph, partition, has_phantoms=repaired)
        contents = [build_content(graph, index, s) for s in range(partition.num_shards)]
        return cls(graph, partition, index, tuple(content.digest for content in contents))

    @cached_property
    def retrained(self) -> ReaderIndex:
        """Which shards erasing a node retrains, as the formula has it."""
        return retrained_by_nodes(self.graph, self.index)

    @property
    def sizes(self) -> Array:
        """``[k]`` rows that each training reads."""
        return training_sizes(self.index, self.partition.num_shards)

    @property
    def rows(self) -> Array:
        """Training rows."""
        return np.flatnonzero(self.index.owner != UNASSIGNED)

    def moved(self, row: int, shards: set[int]) -> set[int]:
        """Those of ``shards`` whose content is another one without the node in this row."""
        rest = self.graph.apply(Change(nodes=(self.graph.ids[row],)))
        partition, repaired = self.partition.restrict(rest), self.index.has_phantoms
        index = build_index(rest, partition, has_phantoms=repaired)
        return {s for s in shards if build_content(rest, index, s).digest != self.digests[s]}


def draw(cut: Cut, request: Array, rng: np.random.Generator) -> Array:
    """``[REQUESTS]`` rows, drawn systematically."""
    graph, rows = cut.graph, cut.rows
    expected = row_costs(cut.retrained, cut.sizes)
    keys = graph.hash("expected-cost")[rows], cut.index.owner[rows], expected[rows]
    order = rows[np.lexsort(keys)]
    points = (rng.random() + np.arange(REQUESTS)) / REQUESTS
    at = np.searchsorted(np.cumsum(request[order]), points)
    drawn: Array = order[np.minimum(at, len(order) - 1)]
    return drawn


def simulate(cut: Cut, drawn: Array, rng: np.random.Generator) -> tuple[Array, int, int]:
    """Cost of every request by digests, controls built again, and how many of these moved."""
    costs, controls, wrong = [], 0, 0
    shards, total = range(cut.partition.num_shards), cut.sizes.sum()
    for row in drawn.tolist():
        named = cut.index.of_change(cut.graph, Change(nodes=(cut.graph.ids[row],)))
        others = [s for s in shards if s not in named]
        sample = set(rng.permutation(others)[:CONTROLS].tolist())
        moved = cut.moved(row, named | sample)
        costs.append(cut.sizes[sorted(moved)].sum() / total)
        controls += len(sample)
        wrong += len(moved - named)
    return np.asarray(costs), controls, wrong


def measure(name: str, cut: Cut, seed: int) -> list[dict[str, str]]:
    """One line for each kind of request."""
    lines = []
    for kind, distribution in KINDS.items():
        rng = np.random.default_rng(seed)
        request = distribution(cut.graph, cut.rows)
        formula = expected_cost(cut.retrained, cut.sizes, request)
        spread = cost_spread(cut.retrained, cut.sizes, request)
        costs, controls, wrong = simulate(cut, draw(cut, request, rng), rng)
        steps = np.diff(costs)
        error = math.sqrt((steps**2).sum() / (2 * len(costs) * len(steps)))
        independent = costs.std(ddof=1) / math.sqrt(len(costs))
        lines.append(
            {
                "design": name,
                "request": kind,
                "formula %": f"{100 * formula.share:.3f}",
                "simulated %": f"{100 * costs.mean():.3f}",
                "s.e. %": f"{100 * error:.3f} ({100 * independent:.3f})",
                "difference": f"{100 * (costs.mean() / formula.share - 1):+.2f} %",
                "of one unsharded %": f"{100 * formula.unsharded:.3f}",
                "p50 / p99 / max %": " / ".join(f"{100 * value:.2f}" for value in spread),
                "controls moved": f"{wrong} of {controls}",
            }
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--designs", default=",".join(DESIGNS), help="names in DESIGNS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    name, graph = Path(options.data).name, load(options.data)
    rows, batches = [], []
    designs = options.designs.split(",")
    for design in designs:
        settings = {"partition.num_shards": options.shards, **DESIGNS[design]}
        cut = Cut.make(graph, seeded(None, options.seed, settings))
        rows += measure(design, cut, options.seed)
        batch = erasure_cost(graph, cut.retrained, cut.sizes).batch_1_percent
        batches.append(f"{design} {100 * batch:.1f} %")
    text = (
        f"# Expected cost of a one-node erasure on {name}, {options.shards} shards\n\n"
        f"`python -m benchmarks.expected_cost --data {options.data} --shards {options.shards}"
        f" --designs '{options.designs}'`, {provenance()}.\n"
        f"Shares of training every submodel once, {REQUESTS} requests a line, drawn "
        "systematically (training nodes sorted by expected cost, owner and hash; one random "
        "start). The formula reads the index, the simulation the digests of the contents without "
        "the node. Standard error by successive differences (in brackets: of independent draws).\n"
        f"Controls: {CONTROLS} random shards a request that the index does not name.\n\n"
        + markdown(rows)
        + "\nOne percent of the training nodes at once, by formula: "
        + ", ".join(batches)
        + ".\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"expected-cost-{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""Scarce labels: 5 % of the training nodes keep theirs: ``python -m benchmarks.scarce``.

The default design beside one unsharded GCN and beside the unsharded models' stacker, each tuned as
in ``benchmarks.accuracy``; validation and test nodes keep their labels. Which training nodes keep
theirs is decided by a keyed hash of the id. Writes ``benchmarks/results/scarce-labels.md``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.harness import load, markdown, provenance, study_parser, tune_and_test
from cluster.config import RolesConfig
from cluster.graph import TRAIN, UNLABELLED, Change, Graph
from coordinator.contenders import ONE_MODELS, OURS_UNTUNED, PRESETS, UNSHARDED_GCN, Contender
from coordinator.screens import mean_sd
from coordinator.study import Study, TrialLog
from coordinator.study_cli import say
from coordinator.trial import Trial

RESULTS = Path(__file__).parent / "results"
SHARE = 0.05
SHARDS = 20
BUDGET = 8

DEFAULT = next(row for row in PRESETS["unweave"] if row.name == OURS_UNTUNED)
ROWS: tuple[Contender, ...] = (*ONE_MODELS, DEFAULT)


def keep_few_labels(graph: Graph, roles: RolesConfig, share: float) -> Graph:
    """The graph with labels on about ``share`` of its training nodes, by keyed hash of the id."""
    kept = graph.hash("scarce-label", roles.seed) / 2.0**64 < share
    gone = (graph.roles(roles) == TRAIN) & (graph.y != UNLABELLED) & ~kept
    return graph.apply(Change(labels=tuple(graph.ids[gone].tolist())))


def measure(name: str, options: argparse.Namespace, log: TrialLog) -> dict[str, list[Trial]]:
    """Trials by row, one a seed; settings are chosen on validation nodes of seed 0."""
    graph, studies = load(name), []
    for seed in range(options.seeds):
        few = keep_few_labels(graph, RolesConfig(seed=seed), SHARE)
        studies.append(Study(f"{Path(name).name}-scarce", few, log, options.workers, report=say))
    return tune_and_test(studies, ROWS, BUDGET, SHARDS)


def table_row(data: str, found: dict[str, list[Trial]]) -> dict[str, str]:
    """One line: test accuracy of each row, and the paired difference to the unsharded GCN."""
    tests = {name: [trial.test or 0.0 for trial in trials] for name, trials in found.items()}
    gap = np.subtract(tests[DEFAULT.name], tests[UNSHARDED_GCN]).tolist()
    cells = {name: mean_sd(values) for name, values in tests.items()}
    return {"data": data, **cells, "default less GCN": mean_sd(gap, sign="+")}


def main() -> None:
    """Measure and write the table."""
    parser = study_parser(__doc__, "runs/scarce")
    parser.add_argument("--data", default="cora,amazon_photo,coauthor_cs")
    options = parser.parse_args()
    log = TrialLog(Path(options.home))
    rows = [table_row(Path(n).name, measure(n, options, log)) for n in options.data.split(",")]
    text = (
        f"# Scarce labels: {SHARE:.0%} of the training nodes, {SHARDS} shards\n\n"
        f"`python -m benchmarks.scarce --data {options.data} --seeds {options.seeds}`, "
        f"{provenance()}.\n"
        f"Test accuracy in %, mean ± sd over {options.seeds} seeds. Unsharded models are tuned "
        f"over {BUDGET} settings on validation nodes of seed 0, the default is not.\n\n"
        + markdown(rows)
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "scarce-labels.md"
    path.write_text(text)
    print(text, f"\nwritten to {path}")


if __name__ == "__main__":
    main()

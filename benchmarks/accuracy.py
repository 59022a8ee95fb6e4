"""Accuracy of unsharded models, published designs and ours: ``python -m benchmarks.accuracy``.

Every system may try 8 settings, judged on validation nodes of seed 0; the chosen ones are measured
on test nodes under every seed (60/20/20 roles by keyed hash; a seed decides roles, partition and
trainings). Finished trials are kept in ``--home``; the same command goes on where it stopped. It
writes ``benchmarks/results/accuracy.md``. ``--grid`` measures every partitioner x aggregator.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.grid import measure_grid
from benchmarks.harness import load, markdown, provenance
from coordinator.compare import Comparison, Standing, run_comparison
from coordinator.contenders import find_contenders
from coordinator.screens import mean_sd
from coordinator.study import Study, TrialLog
from coordinator.study_cli import say

RESULTS = Path(__file__).parent / "results"
Figure = Callable[[Standing], tuple[float, ...]]

PRESETS = ("grapheraser", "guide", "safe", "sisa", "unweave")
ALSO = ("grapheraser", "unweave")  # who is measured at further shard counts


def measure(options: argparse.Namespace) -> dict[int, list[Comparison]]:
    """Comparisons by number of shards, one a data set."""
    log = TrialLog(Path(options.home))
    found: dict[int, list[Comparison]] = {}
    counts = [options.shards, *options.also]
    for name in options.data.split(","):
        study = Study(Path(name).name, load(name), log, options.workers, report=say)
        for shards in counts:
            names = PRESETS if shards == options.shards else ALSO
            contenders = find_contenders(names)
            budget, seeds = options.tune_budget, options.seeds
            result = run_comparison(study, contenders, shards, seeds, budget=budget)
            found.setdefault(shards, []).append(result)
    return found


TABLES: Mapping[str, tuple[Figure, str]] = {  # title -> figure, and the sign it is shown with
    "Test accuracy, %": (lambda row: row.tests, ""),
    "Less the better unsharded model, points (paired)": (lambda row: row.to_unsharded, "+"),
    "Less the unsharded model with the same stacker, points": (lambda row: row.to_stacked, "+"),
}


def overview(results: Sequence[Comparison]) -> str:
    """Rows = systems; columns = data sets and their average: test accuracy, both differences."""
    tables = (
        f"**{title}**\n\n{_table(results, figure, sign)}"
        for title, (figure, sign) in TABLES.items()
    )
    return "\n".join(tables)


def _table(results: Sequence[Comparison], figure: Figure, sign: str) -> str:
    rows = []
    for place, first in enumerate(results[0].standings):
        values = {result.data: figure(result.standings[place]) for result in results}
        by_seed = [mean(of_seed) for of_seed in zip(*values.values(), strict=True)]
        cells = {data: mean_sd(mine, sign=sign) for data, mine in values.items()}
        rows.append({"system": first.name, **cells, "average": mean_sd(by_seed, sign=sign)})
    return markdown(rows)


def details(result: Comparison) -> str:
    """What each system chose on one data set, and what an erasure costs it."""
    head = (
        f"### {result.data}, {result.shards} shards\n\nBetter unsharded model: {result.better}.\n"
    )
    return f"{head}\n{markdown([_detail(row) for row in result.standings])}"


def _detail(row: Standing) -> dict[str, str]:
    point = row.point
    return {
        "system": row.name,
        "chosen": f"{row.design} (of {row.tried})",
        "guarantee": point.guarantee,
        "validation": f"{100 * point.validation:.1f}",
        "test": mean_sd(row.tests),
        "one erasure, x unsharded": f"{point.one_unsharded:.3f}",
        "1 % at once, x unsharded": f"{point.batch_unsharded:.2f}",
        "training CPU s": f"{point.training_cpu_s:.2f}",
        "aggregator CPU s": f"{point.aggregator_cpu_s:.2f}",
    }


def report(found: dict[int, list[Comparison]], options: argparse.Namespace) -> str:
    """The whole record as Markdown."""
    seeds, budget, also = options.seeds, options.tune_budget, " ".join(map(str, options.also))
    parts = [
        "# Accuracy, unsharded and sharded\n",
        f"`python -m benchmarks.accuracy --data {options.data} --seeds {seeds} "
        f"--shards {options.shards} --also {also}`, {provenance()}.\n",
        f"Mean ± sd over {seeds} seeds; the sd of an average is that of the seeds' averages over "
        f"the data sets. Every system may try {budget} settings, chosen on validation nodes of "
        "seed 0. Costs are expected costs of erasing training nodes, in trainings of one model; "
        "they count rows trained on, not slices or the aggregator. GraphEraser, GUIDE, SAFE and "
        "SISA are this repository's implementations and predict on the full graph.\n",
    ]
    for shards, results in found.items():
        parts += [f"## {shards} shards\n", overview(results)]
    parts += ["## Details\n", *(details(r) for results in found.values() for r in results)]
    return "\n".join(parts)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora,citeseer,coauthor_cs,amazon_photo,blogcatalog")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--also", type=int, nargs="*", default=[], help="further shard counts")
    parser.add_argument("--tune-budget", type=int, default=8, help="settings a system may try")
    parser.add_argument("--home", default="runs/accuracy", help="finished trials are kept here")
    parser.add_argument("--workers", type=int, default=1, help="trials at once")
    parser.add_argument("--grid", action="store_true", help="partitioner x aggregator on --data")
    return parser.parse_args()


def main() -> None:
    """Measure and write the record."""
    options = parse_options()
    RESULTS.mkdir(exist_ok=True)
    if options.grid:
        for name in options.data.split(","):
            path = RESULTS / f"grid-{Path(name).name}.md"
            path.write_text(measure_grid(name, options.shards, options.seeds))
            print(path.read_text(), f"\nwritten to {path}")
        return
    path = RESULTS / "accuracy.md"
    path.write_text(report(measure(options), options))
    print(path.read_text(), f"\nwritten to {path}")


if __name__ == "__main__":
    main()

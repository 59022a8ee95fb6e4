"""Accuracy against erasure cost, ours and published designs: ``python -m benchmarks.front``.

Our designs at several numbers of shards, as they are, beside the published designs as
``benchmarks.accuracy`` tuned them at 20 (finished trials in ``--home`` are used again). A design
is *above* a published one if at no higher expected cost it is at least as accurate. Writes
``benchmarks/results/front.md`` and a picture a data set under ``docs/pictures/``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy import PRESETS
from benchmarks.harness import load, markdown, provenance
from coordinator.compare import Standing, run_comparison
from coordinator.contenders import ONE_MODELS, OURS, OURS_UNTUNED, find_contenders
from coordinator.plots import Spot, draw_front
from coordinator.screens import mean_sd
from coordinator.study import Study, TrialLog
from coordinator.study_cli import say
from coordinator.trial import Task, seeded
from coordinator.tuning import DESIGNS, summarise

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
OWN = ("hash linear learned", "louvain sage learned")
COUNTS = (10, 20, 50, 100)
TUNED_SHARDS, TUNED_SEEDS = 20, 5  # of benchmarks.accuracy


def own_spots(study: Study, seeds: int) -> dict[Spot, list[float]]:
    """A point for every design of ours and number of shards, with its accuracies by seed."""
    found = {}
    for name in OWN:
        for count in COUNTS:
            config = DESIGNS[name].config(count)
            tasks = [Task(f"{name}, k = {count}", seeded(config, s), "test") for s in range(seeds)]
            trials = study.run(tasks)
            tests = [trial.test for trial in trials if trial.test is not None]
            point = summarise(trials)
            spot = Spot(tasks[0].name, point.one_unsharded, sum(tests) / seeds, point.guarantee)
            found[spot] = tests
    return found


def published(study: Study) -> list[Standing]:
    """The published designs, tuned at 20 shards."""
    result = run_comparison(study, find_contenders(PRESETS), TUNED_SHARDS, TUNED_SEEDS)
    ours = {OURS, OURS_UNTUNED, *(row.name for row in ONE_MODELS)}
    return [row for row in result.standings if row.name not in ours]


def is_above(own: Sequence[Spot], row: Standing) -> bool:
    """Whether a design of ours is as accurate as a published one at no higher cost."""
    cost = row.point.one_unsharded
    return any(spot.cost <= cost and spot.accuracy >= row.test for spot in own)


def measure(name: str, options: argparse.Namespace, log: TrialLog) -> str:
    """Draw one data set's picture and return its table."""
    data = Path(name).name
    study = Study(data, load(name), log, options.workers, report=say)
    own, rows = own_spots(study, options.seeds), published(study)
    spots = [*own, *(Spot(r.name, r.point.one_unsharded, r.test, r.point.guarantee) for r in rows)]
    title = f"{data}: published designs at k = {TUNED_SHARDS}, ours at several k"
    draw_front(spots, PICTURES / f"front-{data}.png", title=title, accuracy="test")
    lines = [_line(spot.label, spot.cost, mean_sd(tests), "") for spot, tests in own.items()]
    for row in rows:
        above = "yes" if is_above(list(own), row) else "NO"
        lines.append(_line(row.name, row.point.one_unsharded, mean_sd(row.tests), above))
    return f"## {data}\n\n{markdown(lines)}"


def _line(name: str, cost: float, accuracy: str, above: str) -> dict[str, str]:
    return {
        "design": name,
        "one erasure, x unsharded": f"{cost:.4f}",
        "test accuracy, %": accuracy,
        "ours is above": above,
    }


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora,citeseer,coauthor_cs,amazon_photo,blogcatalog")
    parser.add_argument("--seeds", type=int, default=3, help="of our designs")
    parser.add_argument("--home", default="runs/accuracy", help="finished trials are kept here")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    log = TrialLog(Path(options.home))
    tables = [measure(name, options, log) for name in options.data.split(",")]
    head = (
        "# Accuracy against erasure cost\n\n"
        f"`python -m benchmarks.front --data {options.data} --seeds {options.seeds}`, "
        f"{provenance()}.\nMean ± sd over {options.seeds} seeds (ours) and {TUNED_SEEDS} "
        "(published designs, tuned). Costs are expected costs of erasing one training node, in "
        "rows trained on; aggregators come on top, see `benchmarks.refit`.\n\n"
    )
    (RESULTS / "front.md").write_text(head + "\n".join(tables))
    print(head + "\n".join(tables))


if __name__ == "__main__":
    main()

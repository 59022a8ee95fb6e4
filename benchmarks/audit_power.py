"""Power of the statistical audit: ``python -m benchmarks.audit_power``.

Every run fits a system, erases nodes of one shard through the product, and judges two submodels of
that shard by the same freshly trained evidence: the one from before the erasure, as if an unlearner
had issued receipts and kept the weights, and the retrained one. Runs share nothing; erased sets of
several sizes within a run are nested. Writes ``benchmarks/results/audit-power.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import load, markdown, provenance
from cluster.digest import derive_seed, digest, keyed_hash
from cluster.graph import UNLABELLED
from cluster.readers.catalog import load_dataset
from coordinator.audit.judge import Evidence, Subject, judge
from coordinator.audit.report import Check, ShardAudit, Verdict
from coordinator.audit.run import ask, gather, make_cases, served
from coordinator.audit.settings import AuditSettings, QueryMode
from coordinator.audit.source import make_twins
from coordinator.audit.statistics import CALIBRATION_LEVEL, p_values
from coordinator.config import Config, load_config
from coordinator.erasure import Erasure
from coordinator.system import System
from coordinator.trial import inline_pool, seeded

RESULTS = Path(__file__).parent / "results"
SBM = {"num_nodes": 2708, "num_classes": 7, "num_features": 64, "seed": 0}
MIN_LEFT = 20  # labelled nodes that the shard keeps
FAIL_GOAL, PASS_GOAL = 0.95, 0.90


@dataclass(frozen=True)
class Setting:
    """One line of the table: a preset at a number of shards, sizes of the erased set."""

    data: str
    preset: str
    shards: int
    sizes: tuple[int, ...]
    query: QueryMode = "0hop"

    def config(self, seed: int) -> Config:
        """Submodels as the preset says; the aggregator is not audited, so it is the cheapest."""
        overrides = {"partition.num_shards": self.shards, "aggregator.kind": "mean"}
        return seeded(load_config(self.preset, overrides), seed)


@dataclass(frozen=True)
class Outcome:
    """One run at one size; of the checks in their order, gap and LiRA.

    Attributes:
        kept: verdict on the weights from before the erasure.
        retrained: verdict on those from after it.
        power: share of the positive controls that each check rejects.
        distance: of the kept weights' score from an honest one, in half widths of its interval.
        alarms: share of the negative controls of which each check has a p below 0.05.
        seconds: that the evidence took.
    """

    kept: str
    retrained: str
    power: tuple[float, float]
    distance: tuple[float, float]
    alarms: tuple[float, float]
    seconds: float


def settings_of(data: str) -> list[Setting]:
    """The lines measured on one data set."""
    presets = ("unweave", "communities")
    if data == "sbm":
        return [Setting(data, preset, 20, (20,)) for preset in presets]
    lines = [Setting(data, preset, 20, (1, 5, 20)) for preset in presets]
    lines += [Setting(data, preset, 4, (100,)) for preset in presets]
    return [*lines, Setting(data, "communities", 20, (20,), "ind")]


def choose_nodes(system: System, count: int, seed: int) -> tuple[int, list[int]]:
    """A shard with room, and the ids of ``count`` of its labelled nodes, by keyed hashes."""
    graph, partition = system.graph, system.partition
    labelled = graph.y[graph.rows(partition.ids)] != UNLABELLED
    sizes = np.bincount(partition.shards[labelled], minlength=partition.num_shards)
    roomy = np.flatnonzero(sizes >= count + MIN_LEFT).tolist()
    shard = min(roomy, key=lambda s: int(keyed_hash("audit-shard", seed, [s])[0]))
    ids = partition.ids[labelled & (partition.shards == shard)].tolist()
    order = np.argsort(keyed_hash("audit-erased", seed, ids), kind="stable")
    return shard, [ids[i] for i in order[:count].tolist()]


def run(setting: Setting, seed: int) -> list[Outcome]:
    """Fit, then for every size erase and audit."""
    graph = load_dataset("sbm", **SBM) if setting.data == "sbm" else load(setting.data)
    config, found = setting.config(seed), []
    with (
        inline_pool(config) as pool,
        tempfile.TemporaryDirectory() as home,
        System.fit(graph, config, home, pool=pool) as system,
    ):
        shard, nodes = choose_nodes(system, max(setting.sizes), seed)
        kept = served(system, shard)
        for size in setting.sizes:
            erased = Erasure(nodes=nodes[:size])
            system.erase(erased)
            (case,) = make_cases(system, make_twins(system.graph, graph, erased), [shard])
            root = derive_seed(seed, "run", size)
            sizes = AuditSettings(seed=root, query=setting.query, resamples=1)
            evidence = gather(case, sizes, pool)
            audits = [
                judge([Subject(evidence, ask(case, weights, sizes, pool))], sizes)[0]
                for weights in (kept, served(system, shard))
            ]
            found.append(outcome(evidence, *audits))
    return found


def outcome(evidence: Evidence, kept: ShardAudit, retrained: ShardAudit) -> Outcome:
    """What is kept of a run."""
    scores = (evidence.gap, evidence.lira)
    p = [p_values(score(evidence.negative), score(evidence.references)) for score in scores]
    gap, lira = kept.checks
    return Outcome(
        kept.verdict.value,
        retrained.verdict.value,
        (gap.power, lira.power),
        (distance(gap), distance(lira)),
        (float((p[0] < CALIBRATION_LEVEL).mean()), float((p[1] < CALIBRATION_LEVEL).mean())),
        kept.seconds,
    )


def distance(check: Check) -> float:
    """Of a score from the middle of its interval, in half widths."""
    low, high = check.interval
    return abs(check.statistic - (low + high) / 2) / ((high - low) / 2)


def remembered(setting: Setting, seed: int, home: Path) -> list[Outcome]:
    """A finished run of the folder, or a new one that is kept there."""
    path = home / f"{Path(setting.data).name}-{digest('run', repr(setting), seed)[:16]}.json"
    if path.exists():
        return [Outcome(**item) for item in json.loads(path.read_text())]
    found = run(setting, seed)
    path.write_text(json.dumps([asdict(item) for item in found]))
    return found


def row(setting: Setting, size: int, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """One line of the table."""
    runs = len(outcomes)
    kept = [item.kept for item in outcomes]
    honest = [item.retrained for item in outcomes]

    def both(values: Iterable[tuple[float, float]], form: str, average: Any = np.mean) -> str:
        return " / ".join(format(value, form) for value in average(list(values), axis=0))

    return {
        "data": Path(setting.data).name,
        "design": f"{setting.preset}, {setting.query}",
        "shards": str(setting.shards),
        "erased": str(size),
        "kept weights fail": f"{kept.count('fail')}/{runs}",
        "retrained pass": f"{honest.count('pass')}/{runs}",
        "otherwise (kept; retrained)": f"{others(kept, 'fail')}; {others(honest, 'pass')}",
        "power gap / LiRA": both((item.power for item in outcomes), ".2f"),
        "distance gap / LiRA": both((item.distance for item in outcomes), ".1f", np.median),
        "false alarms gap / LiRA": both((item.alarms for item in outcomes), ".3f"),
        "s an audit": f"{np.median([item.seconds for item in outcomes]):.1f}",
    }


def others(verdicts: Sequence[str], wanted: str) -> str:
    """What was said instead."""
    counts = {v.value: verdicts.count(v.value) for v in Verdict if v != wanted}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "-"


def measure(settings: Sequence[Setting], options: argparse.Namespace) -> list[dict[str, str]]:
    """All runs of all settings, some at once; lines of the table."""
    seeds = range(options.first_seed, options.first_seed + options.runs)
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as workers:
        jobs = [[workers.submit(remembered, s, i, options.home) for i in seeds] for s in settings]
        lines = []
        for setting, group in zip(settings, jobs, strict=True):
            by_size = zip(*[job.result() for job in group], strict=True)
            lines += [row(setting, n, o) for n, o in zip(setting.sizes, by_size, strict=True)]
            print(markdown(lines), flush=True)
    return lines


def explain() -> str:
    """What the columns say."""
    sizes = AuditSettings()
    return (
        f"Each audit trains {sizes.references} references, {sizes.shadows} shadows and 2 x "
        f"{sizes.controls} controls of one shard ({sizes.models} submodels), level {sizes.level} "
        "over both checks. The seed of a run decides roles, partition, trainings, the erased nodes "
        "and the audit.\n"
        f"Goals: kept weights fail in {FAIL_GOAL:.0%}, retrained pass in {PASS_GOAL:.0%} of the "
        "runs.\n"
        "*Power*: share of the positive controls that a check rejects. *Distance*: median distance "
        "of the kept weights' score from an honest one, in half widths of its interval. *False "
        f"alarms*: share of the negative controls with a p below {CALIBRATION_LEVEL}.\n\n"
    )


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/cora,sbm", help="sbm, names or folders")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0, help="runs have seeds from here on")
    parser.add_argument("--out", type=Path, default=RESULTS / "audit-power.md")
    parser.add_argument("--home", type=Path, default=Path("runs/audit-power"), help="finished runs")
    parser.add_argument("--workers", type=int, default=1, help="runs at once")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    before, started = os.getloadavg()[0], time.perf_counter()
    settings = [setting for data in options.data.split(",") for setting in settings_of(data)]
    lines = measure(settings, options)
    names = ",".join(Path(name).name for name in options.data.split(","))
    span = f"--runs {options.runs} --first-seed {options.first_seed} --workers {options.workers}"
    text = (
        "# Power of the statistical audit\n\n"
        f"`python -m benchmarks.audit_power --data {names} {span}`, {provenance()} "
        f"(before: {before:.1f}), {time.perf_counter() - started:.0f} s.\n\n"
        + explain()
        + markdown(lines)
    )
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(text)
    print(text, f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()

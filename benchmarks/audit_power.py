"""Power of the statistical audit: ``python -m benchmarks.audit_power``.

Every run fits a system, erases nodes of one shard through the product, and judges two submodels of
that shard by the same freshly trained evidence: the one from before the erasure, as if an unlearner
had issued receipts and kept the weights, and the retrained one. Runs share nothing; erased sets of
several sizes within a run are nested. Writes ``benchmarks/results/audit-power.md``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import load, markdown, provenance
from cluster.digest import derive_seed, keyed_hash
from cluster.graph import UNLABELLED, Graph
from cluster.readers.catalog import load_dataset
from coordinator.audit.judge import Evidence, Subject, judge
from coordinator.audit.report import ShardAudit, Verdict
from coordinator.audit.run import ask, gather, make_cases, served
from coordinator.audit.settings import AuditSettings, QueryMode
from coordinator.audit.source import make_twins
from coordinator.audit.statistics import CALIBRATION_LEVEL, p_values
from coordinator.config import Config, load_config
from coordinator.erasure import Erasure
from coordinator.pools.inline import InlinePool
from coordinator.system import System
from coordinator.trial import seeded
from shards.recipe import choose_profile

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
    """One run at one size: verdict on the kept weights and on the retrained ones."""

    kept: ShardAudit
    retrained: ShardAudit
    alarms: tuple[int, ...]  # negative controls of each check with a p below 0.05

    @property
    def seconds(self) -> float:
        """Seconds that its evidence took."""
        return self.kept.seconds


def settings_of(data: str) -> list[Setting]:
    """The lines measured on one data set."""
    if data == "sbm":
        return [Setting(data, preset, 20, (20,)) for preset in ("unweave", "communities")]
    lines = []
    for preset in ("unweave", "communities"):
        lines += [Setting(data, preset, 20, (1, 5, 20)), Setting(data, preset, 4, (20, 100))]
    return [*lines, Setting(data, "communities", 20, (1, 5, 20), "ind")]


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


def run(setting: Setting, graph: Graph, seed: int, pool: InlinePool) -> Iterator[Outcome]:
    """Fit, then for every size erase and audit."""
    with (
        tempfile.TemporaryDirectory() as home,
        System.fit(graph, setting.config(seed), home, pool=pool) as system,
    ):
        shard, nodes = choose_nodes(system, max(setting.sizes), seed)
        kept = served(system, shard)
        for size in setting.sizes:
            erased = Erasure(nodes=nodes[:size])
            system.erase(erased)
            twins = make_twins(system.graph, graph, erased)
            (case,) = make_cases(system, twins, [shard])
            root = derive_seed(seed, "run", size)
            sizes = AuditSettings(seed=root, query=setting.query, resamples=1)
            evidence = gather(case, sizes, pool)
            audits = [
                judge([Subject(evidence, ask(case, weights, sizes, pool))], sizes)[0]
                for weights in (kept, served(system, shard))
            ]
            yield Outcome(*audits, false_alarms(evidence))


def false_alarms(evidence: Evidence) -> tuple[int, ...]:
    """Negative controls of which each check has a p below 0.05."""
    scores = (evidence.gap, evidence.lira)
    found = [p_values(s(evidence.negative), s(evidence.references)) for s in scores]
    return tuple(int((p < CALIBRATION_LEVEL).sum()) for p in found)


def row(setting: Setting, size: int, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """One line of the table."""
    runs = len(outcomes)
    kept = [o.kept.verdict for o in outcomes]
    honest = [o.retrained.verdict for o in outcomes]
    power = np.mean([[c.power for c in o.kept.checks] for o in outcomes], axis=0)
    shifts = [[check_distance(o, i) for o in outcomes] for i in range(2)]
    alarms = np.sum([o.alarms for o in outcomes], axis=0) / (runs * AuditSettings().controls)
    return {
        "data": Path(setting.data).name,
        "design": f"{setting.preset}, {setting.query}",
        "shards": str(setting.shards),
        "erased": str(size),
        "kept weights fail": f"{kept.count(Verdict.FAIL)}/{runs}",
        "retrained pass": f"{honest.count(Verdict.PASS)}/{runs}",
        "other verdicts (kept; retrained)": f"{others(kept, Verdict.FAIL)}; "
        f"{others(honest, Verdict.PASS)}",
        "power gap / LiRA": " / ".join(f"{value:.2f}" for value in power),
        "distance gap / LiRA": " / ".join(f"{np.median(values):.0f}" for values in shifts),
        "false alarms gap / LiRA": " / ".join(f"{value:.3f}" for value in alarms),
        "s an audit": f"{np.median([o.seconds for o in outcomes]):.1f}",
    }


def check_distance(outcome: Outcome, check: int) -> float:
    """Kept weights' distance from an honest score, in half widths of its interval."""
    found = outcome.kept.checks[check]
    low, high = found.interval
    return abs(found.statistic - (low + high) / 2) / ((high - low) / 2)


def others(verdicts: Sequence[Verdict], wanted: Verdict) -> str:
    """What was said instead."""
    counts = {v: verdicts.count(v) for v in Verdict if v is not wanted and v in verdicts}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "-"


def measure(setting: Setting, options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """All runs of one setting."""
    graph = load_dataset("sbm", **SBM) if setting.data == "sbm" else load(setting.data)
    config = setting.config(0).shards
    pool, outcomes = InlinePool(choose_profile(config), config, 1), []
    try:
        for seed in range(options.first_seed, options.first_seed + options.runs):
            outcomes.append(list(run(setting, graph, seed, pool)))
    finally:
        pool.close()
    for size, found in zip(setting.sizes, zip(*outcomes, strict=True), strict=True):
        line = row(setting, size, found)
        print(line, flush=True)
        yield line


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
    options = parser.parse_args()
    before, started = os.getloadavg()[0], time.perf_counter()
    lines = [
        line
        for data in options.data.split(",")
        for setting in settings_of(data)
        for line in measure(setting, options)
    ]
    names = ",".join(Path(name).name for name in options.data.split(","))
    span = f"--runs {options.runs} --first-seed {options.first_seed}"
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

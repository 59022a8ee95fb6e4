"""What the command line shows a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from coordinator.results import Predictions, Receipt, Report

if TYPE_CHECKING:
    from coordinator.audit.report import AuditReport
    from coordinator.compare import Comparison
    from coordinator.tuning import Point, Tuning


def new_table(*columns: str, title: str | None = None) -> Table:
    """A table without lines, its first column to the left."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):  # the first column names the row, so it is never cut
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    return table


def show_demo(result: Mapping[str, Any]) -> None:
    """The main job's result as tables."""
    console = Console()
    part = result["partition"]
    console.print(
        f"\n{result['dataset']}: {result['nodes']} nodes, {result['edges']} edges, "
        f"{result['shards']} shards by {part['method']} "
        f"(cut {part['cut']:.1%}, largest shard {part['balance']:.2f} x mean)\n"
    )
    accuracy = new_table("test accuracy", "", title=None)
    names = {
        "unsharded": "one GCN on the whole graph",
        "ensemble": f"shards, {result['aggregator']}",
        "gate": "shards, gate",
        "mean": "shards, mean",
    }
    for key, name in names.items():
        accuracy.add_row(name, f"{result['accuracy'][key]:.3f}")
    console.print(accuracy)
    erasures = new_table("\nforgotten", "shards retrained", "seconds", "of a fit from scratch")
    for row in result["erasures"]:
        share = row["seconds"] / result["from_scratch_seconds"]
        shards = str(row["shards_retrained"])
        erasures.add_row(row["kind"], shards, f"{row['seconds']:.3f}", f"{share:.1%}")
    erasures.add_row("(fit from scratch)", "all", f"{result['from_scratch_seconds']:.3f}", "100 %")
    console.print(erasures)
    verified = result["verify"]
    word = "verified" if verified["ok"] else "NOT VERIFIED"
    same = "the same keys" if verified["same_as_scratch"] else "OTHER KEYS"
    console.print(
        f"\n{word}: {verified['replayed']} shards replayed in a fresh process, bit for bit; "
        f"a fit from scratch on the remaining data gives {same}\nhome: {result['home']}\n"
    )


def show_status(found: Mapping[str, Any]) -> None:
    """A system's summary and its shards."""
    console = Console()
    console.print(
        f"generation {found['generation']}, graph epoch {found['epoch']}, {found['nodes']} nodes, "
        f"{found['edges']} edges, guarantee {found['guarantee']}, requests {found['requests']}"
    )
    cost = found["erasure_cost"]
    console.print(
        f"expected retraining: {cost['one_uniform']:.1%} of all for one node "
        f"({cost['one_by_degree']:.1%} drawn by degree, {cost['worst']:.1%} at worst), "
        f"{cost['batch_1_percent']:.1%} for 1 % of the nodes at once"
    )
    if "accuracy" in found:
        console.print(f"accuracy {found['accuracy']}")
    table = new_table("shard", "nodes", "halo", "training s", "submodel key")
    for row in found["shards"]:
        seconds = "-" if row["training_s"] is None else f"{row['training_s']:.3f}"
        key = "silent" if row["silent"] else row["key"][:16]
        counts = (str(row[name]) for name in ("shard", "nodes", "halo"))
        table.add_row(*counts, seconds, key)
    console.print(table)


def show_predictions(answers: Predictions) -> None:
    """One row a node."""
    table = new_table("id", "label", "probability")
    for node_id, label, proba in zip(answers.ids, answers.labels, answers.proba, strict=True):
        table.add_row(str(node_id), str(label), f"{proba.max():.3f}")
    Console().print(table)


def show_receipt(receipt: Receipt) -> None:
    """What was forgotten, and where the time went."""
    console = Console()
    removed = ", ".join(f"{n} {kind}" for kind, n in receipt.records.items() if n) or "nothing new"
    console.print(
        f"request {receipt.request_id or '(none)'}: forgot {removed}; retrained shards "
        f"{list(receipt.shards_retrained)} in {receipt.seconds:.3f} s; generation "
        f"{receipt.generation} is published"
    )
    if receipt.unknown:
        console.print(f"{receipt.unknown} records are not in the graph and were skipped")
    table = new_table("stage", "seconds", "CPU seconds")
    for stage, spent in receipt.breakdown.items():
        table.add_row(stage, f"{spent['seconds']:.3f}", f"{spent['cpu_seconds']:.3f}")
    console.print(table)


def show_report(report: Report) -> None:
    """One row a check."""
    table = new_table("check", "result", "detail")
    for check in report.checks:
        table.add_row(check.name, "ok" if check.ok else "FAILED", check.detail)
    console = Console()
    console.print(table)
    console.print(f"{len(report.replayed)} shards replayed")


def show_audit(report: AuditReport) -> None:
    """One row a check, what single nodes tell below, and the verdict."""
    names = (
        "shard",
        "check",
        "score",
        "honest score",
        "p (Holm)",
        "power",
        "false\nalarms",
        "verdict",
    )
    table = new_table(*names)
    for shard in report.shards:
        for check in shard.checks:
            low, high = check.interval
            table.add_row(
                str(shard.shard),
                check.name,
                f"{check.statistic:.2f}",
                f"{low:.2f} to {high:.2f}",
                f"{check.adjusted_p:.2g}",
                f"{check.power:.0%}",
                f"{check.false_alarms}/{check.honest}",
                check.verdict.value,
            )
    console = _wide_console()
    console.print(table)
    for shard in report.shards:
        if shard.node_level:
            found, (low, high) = shard.node_level, shard.node_level.control_auc_interval
            console.print(
                f"shard {shard.shard}, {shard.nodes} nodes one by one: AUC {found.auc:.2f} "
                f"(0.5 is ideal; had nothing been forgotten {found.control_auc:.2f}, "
                f"{low:.2f} to {high:.2f})",
                highlight=False,
            )
    console.print(
        f"{report.verdict.value}: {report.models} submodels trained in {report.seconds:.1f} s; "
        "a pass is a failure to detect, with the power beside it",
        highlight=False,
    )


def show_tuning(tuning: Tuning, out: Path) -> None:
    """What was tried, the front marked, and what was chosen."""
    names = ("design", "k", "guarantee", "val %", *COST_COLUMNS, "training\nCPU s", "front")
    table = new_table(*names)
    for point in tuning.points:
        table.add_row(
            point.design,
            str(point.shards),
            point.guarantee,
            f"{100 * point.validation:.1f}",
            *_costs(point),
            f"{point.training_cpu_s:.2f}",
            "*" if point.on_front else "",
        )
    console = _wide_console()
    console.print(table)
    console.print(f"chosen: {tuning.chosen.label}, written to {out}", highlight=False)


def show_comparison(result: Comparison) -> None:
    """One row a contender; differences are paired by seed."""
    kind = result.better.removeprefix("unsharded ")
    names = (
        "system",
        "k",
        "test %",
        f"to unsharded\n{kind}",
        "to\nstacked",
        *COST_COLUMNS,
    )
    table = new_table(*names)
    for row in result.standings:
        table.add_row(
            row.name,
            str(row.point.shards),
            mean_sd(row.tests),
            mean_sd(row.to_unsharded, sign="+"),
            mean_sd(row.to_stacked, sign="+"),
            *_costs(row.point),
        )
    console = _wide_console()
    console.print(table)
    for row in result.standings:
        console.print(f"{row.name}: {row.design} (of {row.tried})", highlight=False)
    console.print(
        f"{result.data}: mean ± sd over {result.seeds} seeds; settings chosen on validation nodes "
        f"of seed 0 with a budget of {result.budget} each",
        highlight=False,
    )


COST_COLUMNS = ("erase one,\n% of shards", "\nx unsharded", "erase 1 %,\n% of shards")
WIDE = 130  # columns of a table that goes to a file


def _wide_console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=max(WIDE, console.width))


def _costs(point: Point) -> tuple[str, str, str]:
    one, batch = f"{100 * point.one_share:.1f}", f"{100 * point.batch_share:.1f}"
    return one, f"{point.one_unsharded:.3f}", batch


def mean_sd(values: Sequence[float], *, sign: str = "") -> str:
    """Mean and standard deviation in percent; one value has no deviation."""
    if len(values) == 1:
        return f"{100 * values[0]:{sign}.1f}"
    return f"{100 * mean(values):{sign}.1f} ± {100 * stdev(values):.1f}"

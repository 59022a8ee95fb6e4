"""What a batch window costs and saves: ``python -m benchmarks.schedule``.

Requests arrive at a generated graph with communities and hubs; each erases one training node, drawn
by degree. The shards it retrains come from the real reader index of a real partition; what runs
when is decided by the real ``next_batch`` and ``decide``, on a virtual clock. One batch runs at a
time, its shards on four workers, a fixed time each.

Arrivals are Poisson, or bursts of the same mean rate: a burst comes within one hour, and half of it
asks for nodes of one community. One request in twenty was left lying by the controller and reaches
the system 27 to 30 days after its receipt, which leaves it a few days or hours.

Writes ``benchmarks/results/schedule.md`` and ``docs/pictures/batch-window.png``.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import markdown, provenance
from cluster.graph import Graph
from cluster.partition import UNASSIGNED
from cluster.partitioners import make_partition
from cluster.readers.sbm import BlockModel, block_model
from coordinator.requests.policy import RequestPolicy, parse_duration
from coordinator.requests.record import RequestRecord
from coordinator.requests.regulations import clock_of
from coordinator.requests.scheduler import next_batch
from coordinator.requests.states import Action, State, decide
from coordinator.trial import seeded
from shards.shard_graph import ReaderIndex, build_index, retrained_by_nodes

Array = npt.NDArray[Any]

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "batch-window.png"
NODES, COMMUNITIES, MEAN_DEGREE, MIXING, EXPONENT = 5_000, 40, 10.0, 0.1, 2.3
SHARDS, WORKERS, SHARD_SECONDS = 20, 4, 900.0
A_DAY, DAYS, BURST = 24.0, 30, 24  # requests a day, days, mean size of a burst
FORWARDED, FORWARDED_DAYS = 0.05, (27.0, 30.0)
WINDOWS = ("0", "1h", "6h", "1d", "3d")
START = datetime(2026, 5, 4, tzinfo=UTC)
DESIGNS: dict[str, dict[str, Any]] = {
    "hash": {"partition.method": "hash"},
    "communities": {"partition.method": "louvain"},
    "communities + halo": {
        "partition.method": "louvain",
        "partition.halo.hops": 1,
        "partition.halo.budget": 0.1,
    },
}
HEADROOM = 1.25  # of the picture, for the legends
AFTER_BATCH = (Action.BUILT, Action.PUBLISH, Action.PURGE, Action.COMPLETE)


@dataclass(frozen=True)
class Town:
    """A graph that is cut into shards, and what erasing a node retrains."""

    graph: Graph
    retrained: ReaderIndex

    @classmethod
    def make(cls, design: Mapping[str, Any], seed: int) -> Town:
        """Draw the graph and cut it as a system would."""
        sizes = {"num_nodes": NODES, "num_classes": COMMUNITIES, "num_features": 4}
        model = BlockModel(
            mean_degree=MEAN_DEGREE, mixing=MIXING, exponent=EXPONENT, seed=seed, **sizes
        )
        graph = block_model(model)
        config = seeded(None, seed, {"partition.num_shards": SHARDS, **design})
        partition = make_partition(graph, config.partition, config.roles)
        return cls(graph, retrained_by_nodes(graph, build_index(graph, partition)))

    @cached_property
    def weights(self) -> Array:
        """``[N]`` degree of every training node, 0 for the others."""
        ends = np.concatenate([self.graph.src, self.graph.dst])
        degrees = np.bincount(ends, minlength=self.graph.num_nodes)
        weights: Array = degrees * (self.retrained.owner != UNASSIGNED)
        return weights

    def draw(self, rng: np.random.Generator, count: int, community: int | None = None) -> Array:
        """``[count]`` rows by degree, from the whole graph or one community."""
        inside = True if community is None else self.graph.y == community
        weights = self.weights * inside
        rows: Array = rng.choice(len(weights), count, p=weights / weights.sum())
        return rows


@dataclass(frozen=True)
class Arrival:
    """A request: when it comes (hours), how old it is by then (days), what it retrains."""

    hour: float
    age_days: float
    shards: tuple[int, ...]


def poisson(town: Town, rng: np.random.Generator) -> list[Arrival]:
    """Independent requests at a constant rate."""
    count = int(rng.poisson(A_DAY * DAYS))
    return _arrivals(town, rng, np.sort(rng.uniform(0, 24 * DAYS, count)), town.draw(rng, count))


def bursty(town: Town, rng: np.random.Generator) -> list[Arrival]:
    """Bursts within an hour, half of each from one community; the same mean rate."""
    hours, rows = [], []
    for start in rng.uniform(0, 24 * DAYS, int(rng.poisson(A_DAY * DAYS / BURST))):
        count = int(rng.geometric(1 / BURST))
        near = rng.integers(COMMUNITIES)
        hours.append(start + rng.random(count))
        rows += [town.draw(rng, count // 2, near), town.draw(rng, count - count // 2)]
    times = np.concatenate(hours)
    order = np.argsort(times)
    return _arrivals(town, rng, times[order], np.concatenate(rows)[order])


def _arrivals(town: Town, rng: np.random.Generator, hours: Array, rows: Array) -> list[Arrival]:
    old = rng.random(len(hours)) < FORWARDED
    ages = np.where(old, rng.uniform(*FORWARDED_DAYS, len(hours)), 0.0)
    shards = [tuple(sorted(town.retrained.of_rows([row]))) for row in rows.tolist()]
    return list(map(Arrival, hours.tolist(), ages.tolist(), shards))


ARRIVALS: dict[str, Callable[[Town, np.random.Generator], list[Arrival]]] = {
    "Poisson": poisson,
    "bursty": bursty,
}


@dataclass(frozen=True)
class Outcome:
    """What one replay came to; waits are from arrival to completion, in hours."""

    retrainings: float
    batches_a_day: float
    median_wait: float
    p95_wait: float
    late: float
    by_deadline: float


def replay(arrivals: Sequence[Arrival], policy: RequestPolicy) -> Outcome:
    """Run the arrivals through the scheduler until all of them are done."""
    coming = iter(sorted(_requests(arrivals, policy), key=lambda pair: pair[0]))
    seconds = dict.fromkeys(range(SHARDS), SHARD_SECONDS)
    waiting: dict[str, RequestRecord] = {}
    done: list[RequestRecord] = []
    reasons: Counter[str] = Counter()
    retrainings, now, upcoming = 0, START, next(coming, None)
    while waiting or upcoming:
        while upcoming and upcoming[0] <= now:
            waiting[upcoming[1].request_id] = upcoming[1]
            upcoming = next(coming, None)
        decision = next_batch(list(waiting.values()), now, policy, seconds, SHARDS)
        if decision.batch:
            batch = [waiting.pop(name) for name in decision.batch]
            reasons[decision.reason] += 1
            retrainings += len(decision.shards)
            end = now + _makespan(len(decision.shards))
            done += [_through(record, now, end, policy) for record in batch]
            now = end
        else:
            times = [decision.wake_at, upcoming[0] if upcoming else None]
            now = min(time for time in times if time is not None)
    return _outcome(done, retrainings, reasons)


def _requests(
    arrivals: Sequence[Arrival], policy: RequestPolicy
) -> Iterator[tuple[datetime, RequestRecord]]:
    for number, arrival in enumerate(arrivals):
        now = START + timedelta(hours=arrival.hour)
        received = now - timedelta(days=arrival.age_days)
        clock = clock_of(received, now, policy)
        record = RequestRecord(
            request_id=f"req_{number:06}",
            kind="nodes",
            state=State.RECEIVED,
            regulation=policy.regulation,
            priority="normal",
            received_at=received,
            submitted_at=now,
            due_at=clock.due_at,
            cancel_until=clock.cancel_until,
            shards=arrival.shards,
        )
        yield now, decide(record, Action.ACCEPT, now, policy=policy)


def _makespan(num_shards: int) -> timedelta:
    return timedelta(seconds=math.ceil(num_shards / WORKERS) * SHARD_SECONDS)


def _through(
    record: RequestRecord, start: datetime, end: datetime, policy: RequestPolicy
) -> RequestRecord:
    for action in (Action.SCHEDULE, Action.START):
        record = decide(record, action, start, policy=policy)
    for action in AFTER_BATCH:
        record = decide(record, action, end, policy=policy)
    return record


def _outcome(done: Sequence[RequestRecord], retrainings: int, reasons: Counter[str]) -> Outcome:
    waits = [_hours(record) for record in done]
    return Outcome(
        retrainings=retrainings / len(done),
        batches_a_day=reasons.total() / DAYS,
        median_wait=median(waits),
        p95_wait=float(np.percentile(waits, 95)),
        late=100 * mean(record.completed_at > record.due_at for record in done),
        by_deadline=100 * reasons["deadline"] / reasons.total(),
    )


def _hours(record: RequestRecord) -> float:
    assert record.submitted_at is not None and record.completed_at is not None
    return (record.completed_at - record.submitted_at) / timedelta(hours=1)


Key = tuple[str, str, str]  # arrivals, design, window


def measure(seeds: int, windows: Iterable[str]) -> dict[Key, list[Outcome]]:
    """One outcome for each seed, under every pair of arrivals and design and every window."""
    outcomes: dict[Key, list[Outcome]] = {}
    for seed in range(seeds):
        for design, settings in DESIGNS.items():
            town = Town.make(settings, seed)
            for kind, draw in ARRIVALS.items():
                arrivals = draw(town, np.random.default_rng(seed))
                for window in windows:
                    policy = RequestPolicy(batch_window=window)
                    key = (kind, design, window)
                    outcomes.setdefault(key, []).append(replay(arrivals, policy))
        print(f"seed {seed} done", flush=True)
    return outcomes


def table(outcomes: Mapping[Key, Sequence[Outcome]], kind: str) -> str:
    """A Markdown table of one kind of arrivals."""
    rows = []
    for (arrivals, design, window), runs in outcomes.items():
        if arrivals != kind:
            continue
        columns = {
            "retrainings a request": [run.retrainings for run in runs],
            "batches a day": [run.batches_a_day for run in runs],
            "median wait, h": [run.median_wait for run in runs],
            "p95 wait, h": [run.p95_wait for run in runs],
            "late, %": [run.late for run in runs],
            "batches run by a deadline, %": [run.by_deadline for run in runs],
        }
        spread = {name: _spread(values) for name, values in columns.items()}
        rows.append({"shards": design, "window": window, **spread})
    return markdown(rows)


def _spread(values: Sequence[float]) -> str:
    text = f"{mean(values):.2f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.2f}"


def draw_picture(outcomes: Mapping[Key, Sequence[Outcome]], windows: Sequence[str]) -> None:
    """Write the PNG: retrainings and waiting time against the window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    colours = dict(zip(DESIGNS, ("#0072b2", "#009e73", "#d55e00"), strict=True))
    dashes = dict(zip(ARRIVALS, ("-", "--"), strict=True))
    places = np.arange(len(windows))
    for design, colour in colours.items():
        for kind, dash in dashes.items():
            runs = [outcomes[kind, design, window] for window in windows]
            style = {"color": colour, "linestyle": dash, "marker": "o", "capsize": 3}
            values = np.array([[run.retrainings for run in some] for some in runs])
            left.errorbar(
                places,
                values.mean(1),
                values.std(1, ddof=min(1, values.shape[1] - 1)),
                label=f"{design}, {kind}",
                **style,
            )
    for field, colour, name in (
        ("median_wait", "#333333", "median"),
        ("p95_wait", "#999999", "p95"),
    ):
        for kind, dash in dashes.items():
            runs = [outcomes[kind, "communities + halo", window] for window in windows]
            values = np.array([[getattr(run, field) for run in some] for some in runs])
            style = {"color": colour, "linestyle": dash, "marker": "o", "capsize": 3}
            right.errorbar(
                places,
                values.mean(1),
                values.std(1, ddof=min(1, values.shape[1] - 1)),
                label=f"{name}, {kind}",
                **style,
            )
    cancel = RequestPolicy().cancel_window / timedelta(hours=1)
    right.axhline(cancel, color="#cc79a7", linewidth=1, label=f"cancel window, {cancel:g} h")
    left.set_title("What a request costs", loc="left")
    left.set_ylabel("shard retrainings per request")
    right.set_title("How long it waits (communities + halo)", loc="left")
    right.set_ylabel("hours from arrival to completion")
    for axes in (left, right):
        axes.set_xticks(places, windows)
        axes.set_xlabel("batch window")
        axes.set_ylim(0, axes.get_ylim()[1] * HEADROOM)
        axes.grid(visible=True, alpha=0.25)
        axes.legend(fontsize=8.5, handlelength=3.5)
    figure.suptitle(
        f"Batch window: {A_DAY:g} requests a day, {SHARDS} shards of {SHARD_SECONDS / 60:g} min, "
        f"{WORKERS} workers; bars: sd over seeds"
    )
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, format="png")


def main() -> None:
    """Replay, write the record and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--windows", default=",".join(WINDOWS))
    options = parser.parse_args()
    windows = options.windows.split(",")
    for window in windows:
        parse_duration(window)
    outcomes = measure(options.seeds, windows)
    tables = "\n".join(f"## {kind} arrivals\n\n{table(outcomes, kind)}" for kind in ARRIVALS)
    text = (
        "# Retrainings and waiting time against the batch window\n\n"
        f"`python -m benchmarks.schedule --seeds {options.seeds} --windows {options.windows}`, "
        f"{provenance()}.\n"
        f"A virtual clock: {DAYS} days, {A_DAY:g} one-node requests a day drawn by degree on a "
        f"block model ({NODES:,} nodes, {COMMUNITIES} communities), {SHARDS} shards of "
        f"{SHARD_SECONDS:g} s, {WORKERS} workers, one batch at a time, no noise in the seconds. "
        f"A burst has {BURST} requests on average within an hour, half of them from one community. "
        f"{100 * FORWARDED:g} % of the requests reach the system "
        f"{FORWARDED_DAYS[0]:g} to {FORWARDED_DAYS[1]:g} days after receipt. Default policy (gdpr, "
        "24 h to cancel) but for the window. Waits are from arrival to completion. Mean ± sd over "
        "seeds; a seed draws graph, partition and arrivals.\n\n"
        f"{tables}\n![batch window](../../docs/pictures/batch-window.png)\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "schedule.md").write_text(text)
    draw_picture(outcomes, windows)
    print(text)


if __name__ == "__main__":
    main()

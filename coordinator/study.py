"""A study: designs tried on one graph, one row a trial, kept so that an interrupted one goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

from cluster.config import RolesConfig
from cluster.digest import digest
from cluster.graph import TEST, Graph
from cluster.segments import graph_digest
from coordinator.aggregators.base import numerics_version
from coordinator.trial import Task, Trial, check_task, run_trial, settings_of, without_labels
from shards.recipe import Recipe, choose_profile

Report = Callable[[str], None]

VERSION = 1  # raise it whenever a trial measures something else under the same settings
LOG_FILE = "trials.jsonl"


class TrialLog:
    """Rows in a folder, one JSON object a line, each flushed when its trial is done."""

    def __init__(self, home: Path) -> None:
        self.path = home / LOG_FILE
        self._rows: dict[str, Trial] = {}
        home.mkdir(parents=True, exist_ok=True)
        text = self.path.read_text() if self.path.exists() else ""
        for line in text.splitlines():
            row = _parse(line)
            if row is not None:
                self._rows[row.key] = row
        self._torn = bool(text) and not text.endswith("\n")

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> Trial:
        return self._rows[key]

    def rows(self) -> list[Trial]:
        """All rows, oldest first."""
        return list(self._rows.values())

    def add(self, trial: Trial) -> None:
        """Append a row and flush it."""
        with self.path.open("a") as file:
            file.write("\n" * self._torn + json.dumps(trial.to_json()) + "\n")
        self._torn = False
        self._rows[trial.key] = trial


def _parse(line: str) -> Trial | None:
    """A row; None for a line that a kill cut short."""
    try:
        return Trial(**json.loads(line))
    except (json.JSONDecodeError, TypeError):
        return None


@dataclass
class Study:
    """Trials on one graph.

    Attributes:
        data: name of the data set.
        graph: the data.
        log: where rows are kept.
        workers: trials that run at once, each in a process of its own.
        report: called with a line of text when something is known.
    """

    data: str
    graph: Graph
    log: TrialLog
    workers: int = 1
    report: Report = field(default=lambda line: None)
    _blind: dict[RolesConfig, Graph] = field(default_factory=dict, init=False)

    def run(self, tasks: Sequence[Task]) -> list[Trial]:
        """Run what is not in the log yet; a row for every task, in order.

        Raises:
            ConfigError: a design does not fit the graph; nothing was run.
            GraphError: there are no labels to learn or to judge by; nothing was run.
        """
        keys = [self.key(task) for task in tasks]
        todo = {k: t for k, t in zip(keys, tasks, strict=True) if k not in self.log}
        for task in todo.values():
            check_task(self.graph, task)
        if todo:
            self.report(self._forecast(len(tasks), list(todo.values())))
        spent: list[float] = []
        for trial in self._trials(todo):
            self.log.add(trial)
            spent.append(trial.seconds)
            rest = mean(spent) * (len(todo) - len(spent)) / self.workers
            self.report(f"{len(spent)}/{len(todo)} {_line(trial)}; about {_duration(rest)} left")
        return [replace(self.log[k], name=t.name) for k, t in zip(keys, tasks, strict=True)]

    def key(self, task: Task) -> str:
        """Digest of everything that a trial's row depends on."""
        config, seen = task.config, graph_digest(self.readable(task))
        recipe = Recipe(config.shards, choose_profile(config.shards))
        aggregation = numerics_version(config.aggregator.kind)
        versions = (VERSION, aggregation, recipe.key)
        return str(digest("trial", versions, self.data, seen, settings_of(config), task.measure))

    def readable(self, task: Task) -> Graph:
        """The graph as a trial may see it: without test labels unless they are to be measured."""
        if task.measure == "test":
            return self.graph
        roles = task.config.roles
        if roles not in self._blind:
            self._blind[roles] = without_labels(self.graph, roles, TEST)
        return self._blind[roles]

    def _trials(self, todo: Mapping[str, Task]) -> Iterator[Trial]:
        jobs = [(key, self.data, self.readable(task), task) for key, task in todo.items()]
        if self.workers == 1:
            yield from (run_trial(*job) for job in jobs)
            return
        executor = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"))
        try:
            futures = [executor.submit(run_trial, *job) for job in jobs]
            yield from (future.result() for future in as_completed(futures))
        finally:
            executor.shutdown(cancel_futures=True)

    def _forecast(self, asked: int, todo: Sequence[Task]) -> str:
        """How long it will take, from rows of this data set that are known already."""
        rows = [row for row in self.log.rows() if row.data == self.data]
        head = f"{self.data}: {len(todo)} of {asked} trials to run"
        if not rows:
            return f"{head}; the first one tells about how long they take"
        seconds = sum(
            mean([r.seconds for r in rows if r.name == task.name] or [r.seconds for r in rows])
            for task in todo
        )
        about = _duration(seconds / self.workers)
        return f"{head}, expected time {about} (an estimate from {len(rows)} trials)"


def _line(trial: Trial) -> str:
    test = "" if trial.test is None else f", test {trial.test:.1%}"
    return (
        f"{trial.data}, {trial.name}, {trial.shards} shards, seed {trial.seed}: "
        f"validation {trial.validation:.1%}{test}, {trial.seconds:.1f} s"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"

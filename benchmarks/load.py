"""The service under mixed traffic: ``python -m benchmarks.load``.

``unweave serve`` runs in its own process tree on a generated graph some of whose nodes are poisoned
(wrong label, foreign features, many neighbours). This process sends predictions on random nodes
from several threads, and one urgent erasure of a poisoned node a second; a replica and a shard
actor are killed on the way. Afterwards every answer is recomputed from nothing: for each generation
a system is fitted on what had survived, and answered with under the mask of the answer's epoch. An
answer that mixes generations, or that reads an erased row after its acknowledgement, differs. As a
control the same answers are recomputed with the erased rows left in.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import markdown, provenance
from cluster.graph import TRAIN, Change, Graph
from cluster.readers.sbm import BlockModel, block_model
from coordinator.client import Client, ServiceError
from coordinator.config import load_config
from coordinator.erasure import Erasure
from coordinator.system import System

RESULTS = Path(__file__).parent / "results"
PORT, SEED, SHARDS, CLASSES, POISONED = 8123, 0, 8, 5, 200
IDS_A_CALL, THREADS = 8, 4
TOLERANCE = 1e-5
START_S = 120
SWAPS, PATIENCE = 3, 4  # traffic goes on until so many swaps, for so many times as long at most


@dataclass
class Traffic:
    """What was sent and what came back."""

    answers: list[tuple[float, Any]] = field(default_factory=list)  # (when it was sent, answers)
    seconds: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    tried_again: int = 0
    erased: dict[str, tuple[float, int]] = field(default_factory=dict)  # id -> acknowledged, epoch
    requests: dict[str, str] = field(default_factory=dict)  # id -> request

    @property
    def generations(self) -> int:
        """How many generations answered."""
        return len({answers.generation for _, answers in list(self.answers)})


@dataclass(frozen=True)
class Course:
    """How long traffic goes on: until its end, and on a slow machine until there were swaps."""

    seconds: float
    out: Traffic
    begun: float = field(default_factory=time.monotonic)

    def is_over(self) -> bool:
        """Whether it was long enough."""
        passed = time.monotonic() - self.begun
        is_late = passed >= self.seconds * PATIENCE
        return is_late or (passed >= self.seconds and self.out.generations > SWAPS)

    def wait(self, share: float) -> None:
        """Sleep until a share of the time has passed."""
        time.sleep(max(0.0, self.begun + self.seconds * share - time.monotonic()))


def poisoned_graph(num_nodes: int) -> tuple[Graph, list[str]]:
    """A graph of communities, and the ids of training nodes that tell lies about their class."""
    graph = block_model(BlockModel(num_nodes, CLASSES, 8.0, seed=SEED))
    config = load_config(settings())
    train = np.flatnonzero(graph.roles(config.roles) == TRAIN)
    degree = graph.adjacency.degree[train]
    chosen = train[np.argsort(-degree, kind="stable")[:POISONED]]
    y, x = graph.y.copy(), np.array(graph.x)
    y[chosen] = (y[chosen] + 1) % CLASSES
    x[chosen] = x[np.roll(chosen, 1)] * -1
    edges = np.stack([graph.src, graph.dst])
    made = Graph.from_arrays(edges, x, y, ids=[f"person-{i}" for i in graph.ids.tolist()])
    return made, [f"person-{i}" for i in graph.ids[chosen].tolist()]


def settings() -> dict[str, Any]:
    """The default design, without windows."""
    return {
        "partition": {"num_shards": SHARDS},
        "erasure": {"cancel_window": "0h", "batch_window": "0h", "approve_above": 1000},
    }


# ---- traffic


def predict_on(course: Course, url: str, key: str, ids: Sequence[str]) -> None:
    """Predict random nodes."""
    out, client, rng = course.out, Client(url, key, timeout=30), random.Random()
    while not course.is_over():
        chosen = rng.sample(ids, IDS_A_CALL)
        sent = time.monotonic()
        try:
            answers = client.predict(chosen)
        except ServiceError as error:
            out.failed[f"predict {error.status} {error.problem.get('code', '')}"] += 1
            continue
        out.seconds.append(time.monotonic() - sent)
        out.answers.append((sent, answers))
    out.tried_again += client.tried_again
    client.close()


def erase_on(course: Course, url: str, key: str, poison: Sequence[str]) -> None:
    """Erase one poisoned node a second."""
    out, client = course.out, Client(url, key, timeout=60)
    for node in poison:
        started = time.monotonic()
        if course.is_over():
            break
        try:
            made = client.erase("nodes", {"ids": [node]}, priority="urgent", idempotency_key=node)
        except ServiceError as error:
            out.failed[f"erase {error.status} {error.problem.get('code', '')}"] += 1
            continue
        out.erased[node] = time.monotonic(), made["epoch"]
        out.requests[node] = made["request_id"]
        time.sleep(max(0.0, 1 - (time.monotonic() - started)))
    client.close()


def kill_one(parent: int, name: str) -> bool:
    """Kill a process below ``parent`` whose title holds a name."""
    below, tree = {parent}, _processes()
    while True:
        more = {pid for pid, (ppid, _) in tree.items() if ppid in below} - below
        if not more:
            break
        below |= more
    for pid in sorted(below):
        if name in tree.get(pid, (0, ""))[1]:
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _processes() -> dict[int, tuple[int, str]]:
    """Process id -> (parent, title)."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            found[int(folder.name)] = parent, title
    return found


def run_traffic(
    url: str, key: str, server: int, seconds: float, ids: Sequence[str], poison: Sequence[str]
) -> tuple[Traffic, dict[str, bool]]:
    """All traffic, and the kills."""
    course = Course(seconds, Traffic())
    threads = [
        threading.Thread(target=predict_on, args=(course, url, key, ids)) for _ in range(THREADS)
    ]
    threads.append(threading.Thread(target=erase_on, args=(course, url, key, poison)))
    for thread in threads:
        thread.start()
    killed = {}
    for share, name in ((1 / 3, "ServeReplica:unweave:Replica"), (2 / 3, "ShardActor")):
        course.wait(share)
        killed[name] = kill_one(server, name)
    for thread in threads:
        thread.join()
    return course.out, killed


# ---- what it must have been


def recompute(
    graph: Graph, out: Traffic, generations: Mapping[int, frozenset[str]], folder: Path
) -> dict[str, float]:
    """Compare answers with ones from nothing.

    Args:
        graph: before every erasure.
        out: the traffic.
        generations: number -> nodes that are not in its graph.
        folder: where systems may be fitted.
    """
    largest, control = 0.0, 0.0
    compared = stale = 0
    by_view: dict[tuple[int, int], list[Any]] = {}
    for sent, answers in out.answers:
        acknowledged = [epoch for when, epoch in out.erased.values() if when < sent]
        stale += answers.epoch < max(acknowledged, default=0)
        by_view.setdefault((answers.generation, answers.epoch), []).append(answers)
    for number in sorted({generation for generation, _ in by_view}):
        gone = generations[number]
        survivors = graph.apply(Change(tuple(sorted(gone))))
        with System.fit(survivors, settings(), folder / str(number), pool="inline") as system:
            unmasked, masked = _table(system), set[str]()
            for (generation, epoch), found in sorted(by_view.items()):
                if generation != number:
                    continue
                hidden = {n for n, (_, e) in out.erased.items() if e <= epoch} - gone
                for node in sorted(hidden - masked):
                    system.submit(Erasure(nodes=[node]))
                masked = hidden
                table = _table(system)
                for result in (result for answers in found for result in answers.results):
                    node = result["id"]
                    if node in masked | gone:
                        assert result["error"]["status"] == 410, "an erased node was answered"
                        continue
                    proba = np.asarray([result["proba"][str(c)] for c in range(CLASSES)])
                    largest = max(largest, float(abs(proba - table[node]).max()))
                    control = max(control, float(abs(proba - unmasked[node]).max()))
                    compared += 1
    return {"largest": largest, "control": control, "compared": compared, "stale": stale}


def _table(system: System) -> dict[str, Any]:
    """What a system answers on every node it has left."""
    ids = system.graph.ids.tolist()
    return dict(zip(ids, system.predict(ids).proba, strict=True))


# ---- all of it


def start_server(home: Path, replicas: int) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """``unweave serve``, once it answers; its process leads a group of its own."""
    command = [sys.executable, "-m", "coordinator.cli", "serve", "--home", str(home), "--init"]
    command += ["--port", str(PORT), "--replicas", str(replicas)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise RuntimeError(f"the server ended with code {server.wait()}")
    return server, json.loads(line)


def finish(url: str, key: str, out: Traffic) -> dict[str, dict[str, Any]]:
    """Wait until every acknowledged erasure is completed; node -> its request."""
    with Client(url, key) as client:
        return {node: client.wait(name, START_S) for node, name in out.requests.items()}


def lines_with(folder: Path, text: bytes) -> int:
    """Lines of Ray's logs that hold a text."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.read_bytes().count(text) for path in files)


def measure(num_nodes: int, seconds: float, replicas: int, folder: Path) -> dict[str, Any]:
    """Fit, serve, send traffic, recompute."""
    graph, poison = poisoned_graph(num_nodes)
    home = folder / "home"
    System.fit(graph, settings(), home, pool="inline").close()
    started = time.monotonic()
    server, where = start_server(home, replicas)
    try:
        answering = time.monotonic() - started
        url, key, logs = where["url"], where["admin_key"], Path("/tmp/ray/session_latest").resolve()
        ids = graph.ids.tolist()
        out, killed = run_traffic(url, key, server.pid, seconds, ids, poison)
        done = finish(url, key, out)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    states = Counter(request["state"] for request in done.values())
    generations = {1: frozenset[str]()} | {
        number: frozenset(n for n, r in done.items() if r["receipt"]["generation"] <= number)
        for number in {answers.generation for _, answers in out.answers}
    }
    found = recompute(graph, out, generations, folder)
    times = np.sort(np.asarray(out.seconds) * 1e3)
    return {
        "seconds until it answers": round(answering, 1),
        "predict calls": len(out.answers),
        "tried again": out.tried_again,
        "failed": dict(out.failed),
        "p50 ms": round(float(np.percentile(times, 50)), 1),
        "p99 ms": round(float(np.percentile(times, 99)), 1),
        "erasures acknowledged": len(out.erased),
        "erasures by state": dict(states),
        "generations": out.generations,
        "killed": killed,
        "answers compared": found["compared"],
        "largest difference": found["largest"],
        "largest difference with erased rows left in": found["control"],
        "answers older than an acknowledgement": found["stale"],
        "log lines that name an id": lines_with(logs, b"person-"),
    }


def main() -> None:
    """Measure, print JSON, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print only, write no record")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.nodes, options.seconds, options.replicas, Path(folder))
    print(json.dumps(found))
    if not options.json:
        rows = [{"what": name, "figure": str(value)} for name, value in found.items()]
        text = (
            f"# The service under mixed traffic\n\n`python -m benchmarks.load`, {provenance()}, "
            f"{time.strftime('%Y-%m-%d')}. {options.nodes} nodes, {SHARDS} shards, "
            f"{options.replicas} replicas, {THREADS} clients and one erasure a second for "
            f"{options.seconds:.0f} s, on the machine that serves.\n\n{markdown(rows)}"
        )
        (RESULTS / "load.md").write_text(text)


if __name__ == "__main__":
    main()

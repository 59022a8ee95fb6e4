"""What evidence costs a request, and what checking a certificate costs.

Run ``python -m benchmarks.evidence`` (``--nodes``, ``--features``, ``--degree``, ``--requests``).
Its output is ``benchmarks/results/evidence.md``. One shard holds the whole generated graph; every
request erases one node. Timed are the row digests of the new content, both trees under a fresh leaf
key with their proofs, and statement and signature; not timed are the first digests of the shard's
rows and the cutting of the content.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from benchmarks.harness import markdown, provenance
from cluster.graph import Change, Graph
from coordinator.evidence.dsse import sign
from coordinator.evidence.facts import (
    CertificateInput,
    GenerationFacts,
    MethodFacts,
    RequestFacts,
    ShardEvidence,
    Submodel,
)
from coordinator.evidence.keys import Signer
from coordinator.evidence.leaves import leaves_of
from coordinator.evidence.records import name_digest
from coordinator.evidence.salts import LEAF, derive
from coordinator.evidence.statement import build, prove_erasure
from shards.content import ShardContent, build_content

T = TypeVar("T")
Times = dict[str, list[tuple[float, float]]]  # stage -> wall and CPU seconds of every request

LIMIT_MS = 50.0
STAGES = ("row digests", "trees and proofs", "statement and signature")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--degree", type=int, default=10)
    parser.add_argument("--requests", type=int, default=50)
    options = parser.parse_args()
    command = "python -m benchmarks.evidence " + " ".join(sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        times, first, size = measure(options, Path(folder))
        checks = [check_seconds(Path(folder)) for _ in range(5)]
    print(f"# Evidence for one request on a shard of {options.nodes:,} nodes\n")
    print(f"`{command.strip()}`, {provenance()}, {datetime.now(UTC):%Y-%m-%d}.")
    print(
        f"Medians of {options.requests} one-node requests; {options.features} dense features, "
        f"average degree {options.degree}. Limit: {LIMIT_MS:.0f} ms a request.\n"
    )
    print(markdown(table(times)))
    print(f"First digests of the shard's rows: {1000 * first:.0f} ms. Certificate: {size:,} bytes.")
    print(
        "Checking the certificate in a fresh process (`python -m coordinator.evidence.check`): "
        f"{median(cpu for _, cpu in checks):.2f} s of process time, "
        f"{median(wall for wall, _ in checks):.2f} s wall (medians of {len(checks)})."
    )


def measure(options: argparse.Namespace, folder: Path) -> tuple[Times, float, int]:
    """Erase one node after another; returns the times, those of the first digests, and a size."""
    graph = make_graph(options.nodes, options.features, options.degree)
    signer = Signer.create(folder)
    started = time.perf_counter()
    kept = leaves_of(content_of(graph))
    first = time.perf_counter() - started
    times: Times = {stage: [] for stage in (*STAGES, "total")}
    order = np.random.default_rng(1).permutation(options.nodes)[: options.requests]
    size = 0
    for number, node in enumerate(order.tolist(), start=1):
        graph = graph.apply(Change(nodes=(node,)))
        content, secret = content_of(graph), os.urandom(32)
        key = derive(secret, f"cert_{number}", LEAF, 0)
        before, names = kept, [name_digest(node)]
        kept = timed(times, STAGES[0], partial(leaves_of, content, before))
        trees = timed(times, STAGES[1], partial(prove_erasure, key, before.rows, kept.rows, names))
        shard = ShardEvidence(0, "0", 7, None, Submodel("k", "w"), trees)
        facts = facts_of(number, secret, shard)
        text = timed(times, STAGES[2], partial(certify, facts, signer))
        last = [times[stage][-1] for stage in STAGES]
        times["total"].append((sum(wall for wall, _ in last), sum(cpu for _, cpu in last)))
        size = len(text)
        (folder / "certificate.dsse").write_text(text)
    return times, first, size


def certify(facts: CertificateInput, signer: Signer) -> str:
    """Statement and signature."""
    return sign(build(facts, signer), signer)


def timed(times: Times, stage: str, work: Callable[[], T]) -> T:
    """Run and note wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    times[stage].append((time.perf_counter() - wall, time.process_time() - cpu))
    return result


def table(times: Times) -> list[dict[str, str]]:
    """Milliseconds a stage: medians, and the slowest request."""
    rows = []
    for stage, pairs in times.items():
        walls, cpus = [1000 * wall for wall, _ in pairs], [1000 * cpu for _, cpu in pairs]
        rows.append(
            {
                "stage": stage,
                "CPU, ms": f"{median(cpus):.1f}",
                "wall, ms": f"{median(walls):.1f}",
                "slowest wall, ms": f"{max(walls):.1f}",
            }
        )
    return rows


def check_seconds(folder: Path) -> tuple[float, float]:
    """Wall and process seconds of checking the certificate in a fresh interpreter."""
    call = [sys.executable, "-m", "coordinator.evidence.check", str(folder / "certificate.dsse")]
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*call, "--key", str(folder / "issuer.pub")], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - wall, cpu


def make_graph(num_nodes: int, num_features: int, degree: int) -> Graph:
    """A seeded random graph with dense features."""
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, num_nodes, (num_nodes * degree // 2, 2)), axis=1)
    pairs = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0)
    x = rng.standard_normal((num_nodes, num_features)).astype(np.float32)
    return Graph.from_arrays(pairs.T, x, rng.integers(0, 5, num_nodes))


def content_of(graph: Graph) -> ShardContent:
    """The whole graph as one shard's content."""
    return build_content(graph, np.zeros(graph.num_nodes, np.int64), 0)


def facts_of(number: int, secret: bytes, shard: ShardEvidence) -> CertificateInput:
    """Everything else that a certificate says, of usual size."""
    now = datetime.now(UTC)
    generation = GenerationFacts(number, "key", "graph", "partition", "aggregator")
    return CertificateInput(
        certificate_id=f"cert_{number}",
        secret=secret,
        issuer="benchmark",
        request=RequestFacts(f"req_{number}", "nodes", "0" * 64, "gdpr", "normal"),
        times=dict.fromkeys(("received", "accepted", "started", "unlearned", "purged"), now),
        records={"nodes": 1},
        unknown=0,
        before=generation,
        after=generation,
        shards=[shard],
        guarantee=("exact", "oblivious", "as trained without the records"),
        method=MethodFacts("unweave", "0" * 64, {"config": {"lr": 0.1}}, 7),
        artefacts=[("submodel 0", "recomputed", "read the record")],
    )


if __name__ == "__main__":
    main()

"""How fast requests are accepted, and how often shards retrain for many of them.

Run ``python -m benchmarks.throughput`` (``--nodes``, ``--requests``, ``--commit``). Its output is
``benchmarks/results/throughput.md``. Single-node requests on a generated graph with 20 hash shards:
accepted in commits of some hundred through ``System.submit_many`` (plan, tombstones, payload in
cipher, audit row, all durable), then carried out when their common window closes. Every shard
retrains at most twice; the script fails where one does not.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import markdown, provenance
from cluster.readers.sbm import BlockModel, block_model
from coordinator.erasure import Erasure
from coordinator.pools import open_pool
from coordinator.results import Receipt
from coordinator.system import System
from shards.config import ShardsConfig
from shards.recipe import choose_profile

SHARDS, SEED, MOST_RETRAININGS = 20, 0, 2


def main() -> None:
    """Measure and print a Markdown record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--commit", type=int, default=500, help="requests in one transaction")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.nodes, options.requests, options.commit)
    print(f"{provenance()}\n\n{markdown([{'what': k, 'figure': v} for k, v in rows.items()])}")


def measure(home: Path, num_nodes: int, num_requests: int, commit: int) -> dict[str, str]:
    """Fit, submit, carry out."""
    graph = block_model(BlockModel(num_nodes, 10, 10.0, seed=SEED))
    now = [datetime.now(UTC)]
    shards = ShardsConfig(training_epochs=20)
    settings: dict[str, Any] = {
        "partition": {"method": "hash", "num_shards": SHARDS},
        "shards": {"training_epochs": shards.training_epochs},
    }
    pool = open_pool("inline", choose_profile(shards), shards, SHARDS)
    started = time.perf_counter()
    system = System.fit(graph, settings, home, pool=pool, clock=lambda: now[0])
    fitted = time.perf_counter() - started
    ids = graph.ids.tolist()
    system.submit(Erasure(nodes=[ids.pop()])).cancel()  # warms up
    chosen = np.random.default_rng(SEED).choice(ids, num_requests, replace=False).tolist()
    wall, cpu = time.perf_counter(), time.process_time()
    requests = []
    for start in range(0, num_requests, commit):
        asked = [Erasure(nodes=[node]) for node in chosen[start : start + commit]]
        requests += system.submit_many(asked, requested_by="benchmark")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    now[0] += timedelta(days=2)
    done = time.perf_counter()
    batches = system.run()
    done = time.perf_counter() - done
    retrained: Counter[int] = Counter()
    for batch in batches:
        first = system.engine.ledger.requests.find(batch_id=batch, limit=1)[0]
        assert first.receipt is not None
        retrained.update(Receipt.from_json(first.receipt).shards_retrained)
    states = Counter(str(request.state) for request in requests)
    assert states == {"completed": num_requests}, states
    assert max(retrained.values()) <= MOST_RETRAININGS, retrained
    system.close()
    pool.close()
    return {
        "graph": f"{num_nodes:,} nodes, {graph.num_edges:,} edges, {SHARDS} hash shards",
        "fit": f"{fitted:.1f} s",
        f"accepted, commits of {commit}": f"{num_requests / wall:,.0f} requests/s",
        "accepted, CPU": f"{1e3 * cpu / num_requests:.2f} ms a request",
        "batches": str(len(batches)),
        "most retrainings of a shard": str(max(retrained.values())),
        "carried out, with certificates": f"{done:.1f} s ({1e3 * done / num_requests:.1f} ms each)",
        "certificates": f"{len(system_certificates(home)):,}",
    }


def system_certificates(home: Path) -> list[str]:
    """Ids of the certificates of a home."""
    from coordinator.evidence_cli import open_ledger

    with open_ledger(home) as ledger:
        return [found.certificate_id for found in ledger.certificates.list()]


if __name__ == "__main__":
    main()

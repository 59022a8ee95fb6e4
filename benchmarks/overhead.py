"""What a prediction costs beside Ray Serve's own share: ``python -m benchmarks.overhead``.

In one cluster and in turn: the service's predict route on one node whose answer lies in the table,
and an empty application of the same shape (a FastAPI ingress that parses the same body and asks one
batched deployment). One client, loopback, medians. Writes ``benchmarks/results/overhead.md``.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.harness import markdown, provenance
from cluster.readers.sbm import BlockModel, block_model
from coordinator.pools.ray import connect, disconnect
from coordinator.system import System

RESULTS = Path(__file__).parent / "results"
ROUNDS, SHARDS = 500, 20
SETTLED_S = 6.0  # until the table is filled


def measure(num_nodes: int, folder: Path) -> dict[str, float]:
    """Milliseconds of each route."""
    from ray import serve

    from benchmarks.empty_app import empty_app
    from coordinator.serving.deployment import RayOffice, start, stop
    from coordinator.serving.office import Office

    graph = block_model(BlockModel(num_nodes, 10, 10.0))
    home = folder / "home"
    System.fit(graph, {"partition": {"num_shards": SHARDS}}, home, pool="inline").close()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    connect()
    try:
        start({"home": home}, "127.0.0.1", port)
        serve.run(empty_app(), name="empty", route_prefix="/empty")
        key = str(RayOffice().ask_now(Office.create_key, "predictor", "benchmark")["key"])
        node = graph.ids.tolist()[0]
        time.sleep(SETTLED_S)
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(headers={"Authorization": f"Bearer {key}"}) as client:
            return _timed(client, url, {"ids": [node]})
    finally:
        stop()
        disconnect()


def _timed(client: httpx.Client, url: str, body: dict[str, Any]) -> dict[str, float]:
    routes = {"empty": f"{url}/empty/predict", "predict": f"{url}/v1/predict"}
    taken: dict[str, list[float]] = {name: [] for name in routes}
    for turn in range(ROUNDS + 20):
        for name, route in routes.items():
            started = time.perf_counter()
            client.post(route, json=body).raise_for_status()
            if turn >= 20:  # the first ones open connections and fill caches
                taken[name].append((time.perf_counter() - started) * 1e3)
    found = {}
    for name, values in taken.items():
        found[f"{name}, p50"], found[f"{name}, p99"] = np.percentile(values, [50, 99]).tolist()
    found["added, p50"] = found["predict, p50"] - found["empty, p50"]
    return found


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.nodes, Path(folder))
    table = markdown([{"route": k, "ms": f"{v:.2f}"} for k, v in found.items()])
    text = (
        f"# A prediction from the table beside an empty route\n\n`python -m benchmarks.overhead`, "
        f"{provenance()}, {time.strftime('%Y-%m-%d')}. {options.nodes} nodes, {SHARDS} shards, one "
        f"replica, one client on the same machine, {ROUNDS} calls of each in turn.\n\n{table}"
    )
    (RESULTS / "overhead.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

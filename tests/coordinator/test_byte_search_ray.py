"""The byte search on Ray: session folder, logs, and the memory of its object store."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cluster.digest import NodeId
from coordinator.erasure import Erasure
from coordinator.requests.states import State
from coordinator.system import System
from tests.coordinator.bytesearch import (
    Planted,
    id_patterns,
    open_files,
    search,
    search_file,
    search_tree,
)
from tests.coordinator.cities import City, choose, in_the_workers
from tests.coordinator.clock import Clock
from tests.coordinator.systems import tiny

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = {
    "erasure.cancel_window": "1h",
    "erasure.batch_window": "1h",
    "aggregator.kind": "learned",
    "aggregator.ridge_width": 16,
    "partition.halo.hops": 1,
    "partition.halo.budget": None,
}
SHARED = "/dev/shm"
BLOCK = 1 << 20  # empty ones are passed by
BLOCK = 1 << 20  # empty ones are passed by


def shared_memory() -> Iterator[Path]:
    """Files of shared memory that any process here has open, named or not any more."""
    seen = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target, status = str(link.readlink()), link.stat()
        except OSError:
            continue
        if target.startswith(SHARED) and status.st_ino not in seen:
            seen.add(status.st_ino)
            yield link
    yield from (path for path in Path(SHARED).rglob("*") if path.is_file())


def in_shared_memory(planted: Planted) -> set[str]:
    """What is found there."""
    found: set[str] = set()
    for path in shared_memory():
        try:
            with path.open("rb") as file:
                blocks = iter(partial(file.read, BLOCK), b"")
                found |= planted.found_in(b"".join(b for b in blocks if b.count(0) < len(b)))
        except OSError:
            continue
    return found


def fail_naming(node: NodeId) -> None:
    """Called in an actor: an error whose text names a record."""
    raise KeyError(node)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[tuple[System, City, Clock]]:
    city, clock = City("str", sparse=False), Clock()
    made = System.fit(city.graph(), tiny(SETTINGS), tmp_path / "home", pool="ray", clock=clock)
    with made:
        yield made, city, clock


def test_nothing_of_an_erased_record_is_left_on_ray(
    system: tuple[System, City, Clock], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    import ray

    home, city, clock = system
    node, edge, features, _ = choose(home, city)
    u, v = city.edges[edge]
    planted = city.planted(node, edge, features)
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
    control = Planted({"control": (b"nairobi-0042-control",)})
    kept = ray.put(np.frombuffer(b"nairobi-0042-control" * 20_000, np.uint8))
    (session / "logs" / "control.log").write_text("nairobi-0042-control")
    assert in_shared_memory(control) == {"control"}
    assert search_tree(session, control)
    del kept
    home.predict(city.ids[:5])
    assert search(home.home, planted)["segment"] == set(planted.patterns)
    assert set(in_the_workers(home, planted)) >= {"id", "row", "features"}

    erasure = Erasure([node], [(city.ids[u], city.ids[v])], {features: None})
    request = home.submit(erasure)
    home.predict([i for i in city.ids if i != node][:5])
    with pytest.raises(Exception, match=str(node)):
        home.pool.map("call", [("tests.coordinator.test_byte_search_ray:fail_naming", (node,))])
    clock.forward(hours=3)
    home.run()
    assert request.state == State.COMPLETED

    assert not any(search(home.home, planted).values())
    assert search_tree(session, planted) == {}
    assert in_shared_memory(planted) == set()
    assert in_the_workers(home, planted) == {}
    log = tmp_path / "captured.log"
    log.write_text("\n".join(record.getMessage() for record in caplog.records))
    assert search_file(log, Planted({"id": id_patterns(node)})) == set()
    for pid in home.pool.tell("call", ("os:getpid", ())):
        assert not any(str(home.home) in path for path in open_files(pid))

"""``unweave audit``, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cluster.errors import ConfigError
from cluster.readers.sbm import BlockModel, block_model
from coordinator.audit_cli import EXIT_FAILED
from coordinator.cli import app
from coordinator.erasure import Erasure
from tests.coordinator.audit.test_audit import PERCEPTRONS, SHARD, some_nodes
from tests.coordinator.systems import Workbench
from tests.coordinator.test_cli import write_folder

SMALL = ["--references", "10", "--shadows", "8", "--shard", str(SHARD)]


@pytest.fixture(scope="module")
def place(shared_bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the auditor's copy, a closed home that erased nothing, and ids of a shard."""
    folder = tmp_path_factory.mktemp("audit-cli")
    graph = block_model(BlockModel(num_nodes=300, num_features=32, noise=3.0, num_classes=3))
    write_folder(graph, folder / "data")
    system = shared_bench.fit(graph, PERCEPTRONS, home=folder / "home")
    (folder / "ids.txt").write_text("\n".join(map(str, some_nodes(system).nodes)) + "\n\n")
    system.close()
    yield folder


def run_audit(place: Path, *arguments: str) -> Result:
    where = ["--home", str(place / "home"), "--data", str(place / "data")]
    return CliRunner().invoke(app, ["audit", *where, *arguments])


def test_a_failed_audit_exits_with_7_and_names_no_node(place: Path) -> None:
    done = run_audit(place, "--erased-file", str(place / "ids.txt"), *SMALL, "--json")

    found = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == EXIT_FAILED, done.output
    assert found["verdict"] == "fail" and found["shards"][0]["nodes"] == 10
    assert found["shards"][0]["node_level"]["worst"] == 1


def test_an_honest_home_passes_with_a_table(place: Path, shared_bench: Workbench) -> None:
    ids = [int(text) for text in (place / "ids.txt").read_text().split()]
    system = shared_bench.open(place / "home")
    system.erase(Erasure(nodes=ids))
    system.close()

    done = run_audit(place, *(f"--node={i}" for i in ids), *SMALL)

    assert done.exit_code == 0, done.output
    assert "pass: 34 submodels trained" in done.output
    assert "gap" in done.output and "lira" in done.output


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["--erased-file", "nowhere.txt"], "nowhere.txt"),
        (["--node", "x"], "ids of this graph are int"),
        (["--node", "1", "--query", "far"], "query must be"),
    ],
)
def test_what_cannot_be_read_is_refused(place: Path, wrong: list[str], reason: str) -> None:
    done = run_audit(place, *wrong)

    assert isinstance(done.exception, ConfigError)
    assert reason in str(done.exception)

"""The ``unweave`` command, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.graph import Graph
from cluster.readers.sbm import BlockModel, block_model

TINY = [
    "--set", "partition.num_shards=3", "--set", "shards.hidden=8",
    "--set", "shards.training_epochs=5", "--pool", "inline",
]  # fmt: skip


def unweave(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coordinator.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "120"},
    )


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def write_folder(graph: Graph, folder: Path) -> Path:
    """Store a graph in the plain format: nodes.parquet, edges.parquet, features.npy."""
    folder.mkdir()
    labels = [int(y) for y in graph.y]
    pq.write_table(pa.table({"id": graph.ids, "label": labels}), folder / "nodes.parquet")
    ends = {"src": graph.ids[graph.src], "dst": graph.ids[graph.dst]}
    pq.write_table(pa.table(ends), folder / "edges.parquet")
    np.save(folder / "features.npy", graph.x.toarray() if hasattr(graph.x, "toarray") else graph.x)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Graph]]:
    folder = tmp_path_factory.mktemp("cli")
    graph = block_model(BlockModel(num_nodes=90, num_classes=3, num_features=10, seed=1))
    data = write_folder(graph, folder / "data")
    done = unweave("train", "--data", str(data), "--home", str(folder / "home"), *TINY, "--json")
    assert answer(done)["generation"] == 1
    yield data, folder / "home", graph


def test_help_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, coordinator.cli as c\n"
        "try: c.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'sqlalchemy', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "erase" in done.stdout


def test_plan_erase_predict_verify_and_status_work_on_a_home(
    trained: tuple[Path, Path, Graph],
) -> None:
    _, home, graph = trained
    node, other = str(graph.ids[3]), str(graph.ids[7])

    planned = answer(unweave("plan", "--home", str(home), "--node", node, "--json"))
    receipt = answer(
        unweave("erase", "--home", str(home), "--node", node, "--pool", "inline", "--json")
    )
    predicted = answer(unweave("predict", other, "--home", str(home), "--pool", "inline", "--json"))
    verified = answer(unweave("verify", "--home", str(home), "--replay", "all", "--json"))
    status = answer(unweave("status", "--home", str(home), "--json"))

    assert planned["records"]["nodes"] == 1
    assert receipt["shards_retrained"] == planned["shards"]
    assert predicted["results"][0]["id"] == other
    assert verified["ok"] and verified["replayed"] == 3
    assert status["nodes"] == graph.num_nodes - 1 and status["requests"] == {"completed": 1}


def test_people_get_tables_instead_of_json(trained: tuple[Path, Path, Graph]) -> None:
    _, home, graph = trained
    edge = f"{graph.ids[graph.src[0]]},{graph.ids[graph.dst[0]]}"

    shown = unweave("status", "--home", str(home))
    planned = unweave("plan", "--home", str(home), "--edge", edge)

    assert "guarantee oblivious" in shown.stdout
    assert "1 edges" in planned.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["status", "--home", "nowhere"], 3, "no system in nowhere"),
        (["train", "--data", "no-such-set", "--home", "h"], 3, "no-such-set"),
        (["train", "--data", "sbm", "--home", "h", "--set", "shards.modle=gcn"], 3, "'model'"),
        (["train", "--data", "sbm", "--home", "h", "--set", "shards"], 3, "has no '='"),
        (["train", "--data", "sbm", "--home", "h", "--set", "shards.model=x"], 3, "choose one"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_errors_name_the_remedy_and_the_exit_code_their_kind(
    tmp_path: Path, arguments: list[str], code: int, text: str
) -> None:
    done = unweave(*arguments, cwd=tmp_path)

    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_come_as_json_too(trained: tuple[Path, Path, Graph]) -> None:
    _, home, _ = trained

    done = unweave("erase", "--home", str(home), "--node", "999999", "--json")

    assert done.returncode == 4
    assert json.loads(done.stdout.splitlines()[-1])["error"]["type"] == "UnknownIdError"


def test_asking_for_nothing_or_with_a_wrong_id_type_is_refused(
    trained: tuple[Path, Path, Graph],
) -> None:
    _, home, _ = trained

    nothing = unweave("erase", "--home", str(home))
    typed = unweave("predict", "ada", "--home", str(home))
    edge = unweave("plan", "--home", str(home), "--edge", "1")

    assert nothing.returncode == 3 and "--node" in nothing.stderr
    assert typed.returncode == 3 and "int" in typed.stderr
    assert edge.returncode == 3 and "U,V" in edge.stderr


def test_a_failed_verification_has_its_own_exit_code(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert unweave("train", "--data", "sbm", "--home", str(home), *TINY).returncode == 0
    victim = next((home / "objects" / "submodel").iterdir())
    victim.write_bytes(victim.read_bytes()[:-4] + b"\0\0\0\1")

    broken = unweave("verify", "--home", str(home), "--json")
    mended = unweave("verify", "--home", str(home), "--repair", "--json")

    assert broken.returncode == 7
    assert mended.returncode == 0


def test_data_lists_the_named_sets_and_describes_one(trained: tuple[Path, Path, Graph]) -> None:
    data, _, graph = trained

    listed = answer(unweave("data", "--json"))
    described = answer(unweave("data", str(data), "--json"))

    assert {"cora", "sbm"} <= set(listed["datasets"])
    assert described["nodes"] == graph.num_nodes and described["edges"] == graph.num_edges


def test_demo_does_the_main_job_and_ends_in_one_json_object(tmp_path: Path) -> None:
    done = unweave(
        "demo", "--data", "sbm", "--set", "partition.num_shards=4",
        "--set", "shards.training_epochs=10", "--set", "shards.hidden=8",
        "--pool", "inline", cwd=tmp_path,
    )  # fmt: skip

    result = answer(done)

    assert set(result) >= {
        "dataset", "nodes", "edges", "shards", "partition", "accuracy", "erasures",
        "from_scratch_seconds", "verify",
    }  # fmt: skip
    assert [row["kind"] for row in result["erasures"]] == ["node", "edge", "features", "label"]
    assert all(len(row["shards_retrained"]) == 1 for row in result["erasures"])
    assert result["verify"] == {"ok": True, "replayed": 4, "same_as_scratch": True}
    assert "one GCN on the whole graph" in done.stdout
    assert (tmp_path / "runs" / "demo-1" / "ledger.db").exists()

"""Whatever can hold a record is written through one store, which the ledger knew of before."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from cluster.files import FIXED_FILES, artefact_of, backup_of, is_fixed, stray_files
from coordinator.ledger import Ledger
from shards.config import ShardsConfig
from shards.recipe import choose_profile, worker_environment

ROOT = Path(__file__).parents[2]
HOOK = Path(__file__).parent / "writes"
PROBE = re.compile(r"[a-z0-9_]{8}")  # Python tries whether a folder for temporary files works
TEMPORARY = re.compile(r"\.(\d+\.tmp|part)$")

# module -> why it may write: what lies in a home, what a user names, what is gone at once
WRITERS = {
    "cluster/store.py": "the store itself, and fixed files",
    "coordinator/lock.py": "LOCK",
    "coordinator/ledger/vault.py": "keys",
    "coordinator/evidence/keys.py": "keys",
    "coordinator/backups.py": "backups, which the ledger lists",
    "coordinator/backup_cli.py": "a file that the user names: keyed hashes",
    "coordinator/certificates.py": "a file that the user names: a certificate",
    "coordinator/evidence_cli.py": "a file that the user names: audit log, leaf key",
    "coordinator/requests_cli.py": "a file that the user names: an acceptance receipt",
    "coordinator/planfile.py": "a file that the user names: keyed digests and counts",
    "coordinator/plots.py": "a file that the user names: a plot of two numbers a design",
    "coordinator/study.py": "the log of finished trials: settings and accuracies",
    "coordinator/study_cli.py": "a file that the user names: a configuration",
    "coordinator/trial.py": "a temporary home, gone with the trial",
    "coordinator/serving/intake.py": "a file of ids in memory, overwritten when it was read",
    "coordinator/demo.py": "a temporary home, gone with the demo",
}
CALLS = {
    "write_text", "write_bytes", "savefig", "to_parquet", "write_table", "write_feather", "touch",
    "save_file", "tofile", "savez", "savez_compressed", "mkstemp", "mkdtemp", "copyfile", "copy2",
    "copytree", "NamedTemporaryFile", "TemporaryDirectory", "to_csv", "symlink_to", "hardlink_to",
}  # fmt: skip


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path short enough for Ray's sockets, for home and temporary files."""
    with tempfile.TemporaryDirectory(prefix="uw-", dir="/tmp") as folder:
        yield Path(folder)


def watched_run(folder: Path, pool: str) -> tuple[Path, list[list[str]]]:
    """Home and notes of a scenario in a process of its own, all in one folder."""
    home, log = folder / "home", folder / "writes.log"
    environment = os.environ | worker_environment(choose_profile(ShardsConfig()))
    environment |= {
        "TMPDIR": str(folder),
        "WATCHED_WRITES": str(log),
        "PYTHONPATH": os.pathsep.join([str(HOOK), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, HOOK / "scenario.py", home, pool]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home, [json.loads(line) for line in log.read_text().splitlines()]


def unaccounted(home: Path, notes: list[list[str]]) -> set[str]:
    """Paths under the home that were written before, or without, anybody having registered them."""
    artefacts: set[tuple[str, str]] = set()
    backups: set[str] = set()
    wrong = set()
    for what, *names in notes:
        if what == "artefact":
            artefacts.add((names[0], names[1]))
        elif what == "backup":
            backups.add(names[0])
        elif Path(names[0]).is_relative_to(home):
            path = PurePosixPath(TEMPORARY.sub("", Path(names[0]).relative_to(home).as_posix()))
            known = is_fixed(path) or artefact_of(path) in artefacts or backup_of(path) in backups
            wrong |= set() if known else {str(path)}
    return wrong


def left_behind(home: Path) -> list[str]:
    """Files that are there in the end and that nothing accounts for."""
    ledger = Ledger("ledger.db", home=home)
    try:
        return stray_files(home, ledger.registered(), {b.name for b in ledger.backups.list()})
    finally:
        ledger.close()


def check_run(folder: Path, pool: str) -> None:
    home, notes = watched_run(folder, pool)
    written = {path for what, path, *_ in notes if what == "wrote"}
    elsewhere = {
        path.removeprefix(f"{folder}/")
        for path in written
        if path.startswith(str(folder)) and not path.startswith((str(home), str(folder / "ray")))
    }

    assert sum(str(home / "staging") in path for path in written) > 20
    assert any(str(home / "backups") in path for path in written)
    assert unaccounted(home, notes) == set()
    assert all(PROBE.fullmatch(name) for name in elsewhere), elsewhere
    left = {path for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(folder).parts[0] for path in left} <= {"home", "ray", "writes.log"}
    assert left_behind(home) == []


@pytest.mark.slow
def test_nothing_is_written_under_a_home_without_the_ledger_s_knowledge(short: Path) -> None:
    check_run(short, "inline")


@pytest.mark.ray
@pytest.mark.slow
def test_nor_is_it_by_shard_actors_on_ray(short: Path) -> None:
    check_run(short, "ray")


def test_a_write_around_the_store_is_noticed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    notes = [
        ["artefact", "segment", "ab"],
        ["wrote", str(home / "staging/1/segment.ab.safetensors.77.tmp")],
        ["wrote", str(home / "objects/segment/ab.safetensors")],
        ["wrote", str(home / "config.yaml.77.tmp")],
        ["wrote", str(home / "cache.npz")],
        ["wrote", str(home / "objects/content/cd.safetensors")],
        ["wrote", str(home / "backups/a/objects/segment/ab.safetensors")],
        ["artefact", "content", "cd"],
    ]

    assert unaccounted(home, notes) == {
        "cache.npz",
        "objects/content/cd.safetensors",
        "backups/a/objects/segment/ab.safetensors",
    }


def test_every_module_that_writes_is_listed_with_a_reason() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("cluster", "shards", "coordinator")
        for path in (ROOT / package).rglob("*.py")
        if any(writing_calls(ast.parse(path.read_text())))
    }

    assert found == set(WRITERS)


def writing_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that create or change a file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        modes = [*node.args[:2], *(k.value for k in node.keywords if k.arg == "mode")]
        texts = [m.value for m in modes if isinstance(m, ast.Constant) and type(m.value) is str]
        opens = name == "open" and any(re.fullmatch(r"[rbt]*[wax+][wax+rbt]*", t) for t in texts)
        flags = name == "open" and "O_WRONLY" in ast.dump(node)
        if name in CALLS or opens or flags:
            yield node


def test_the_table_of_fixed_files_gives_a_reason_for_each() -> None:
    assert all(FIXED_FILES.values())
    for name in ("HOME", "config.yaml", "keys/home.key", "keys/payload/ab.key", "staging/3"):
        assert is_fixed(PurePosixPath(name))
    for name in ("objects/HOME", "x", "keys/a/b/c", "staging/3/x.safetensors", "other.db"):
        assert not is_fixed(PurePosixPath(name))
    assert is_fixed(PurePosixPath("other.db-wal"), database="other.db")

"""A nursery of coordinators, and a fitted home to copy for each fault."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.coordinator.conftest import bench, pool
from tests.coordinator.ledger.conftest import server
from tests.faults.nursery import Child, Nursery
from tests.faults.plan import OVERRIDES, Step, forty_requests, one_request, records

__all__ = ["bench", "pool", "server"]

TRIES = 5
DISK_SIZE = "8m"
DRIVE, SETTLE = "tests.faults.driver:run", "tests.faults.checks:settle"


@dataclass
class Ground:
    """A fitted home, what is asked of copies of it, and what that comes to without faults.

    Attributes:
        nursery: forks coordinators.
        root: folder of all homes.
        home: the fitted one.
    """

    nursery: Nursery
    root: Path
    home: Path
    number: int = 0

    def copy(self, root: Path | None = None, source: Path | None = None, **changes: str) -> Path:
        """A home of its own, with the same secret.

        Args:
            root: folder to copy it into.
            source: another fitted home.
            changes: keys of its configuration, as ``section_key``.
        """
        self.number += 1
        target = (root or self.root) / f"copy-{self.number}"
        shutil.copytree(source or self.home, target)
        config = yaml.safe_load((target / "config.yaml").read_text())
        for name, value in changes.items():
            section, _, key = name.partition("_")
            config[section][key] = value
        (target / "config.yaml").write_text(yaml.safe_dump(config))
        return target

    def plan(self, name: str, steps: list[Step]) -> str:
        """A plan as a file."""
        path = self.root / f"{name}.json"
        path.write_text(json.dumps(steps))
        return str(path)

    def drive(self, home: Path, plan: str, points: dict[str, Any] | None = None) -> Child:
        """Start a coordinator that carries out a plan."""
        acks = str(self.root / f"{home.name}.acks")
        return self.nursery.start(DRIVE, points, home=str(home), plan=plan, acks=acks, **OVERRIDES)

    def go_on(self, home: Path, plan: str) -> None:
        """Start coordinators on a home until one of them carried out the whole plan."""
        for _ in range(TRIES):
            child = self.drive(home, plan)
            if child.wait() == 0:
                return
        raise AssertionError(child.log())

    def settle(self, home: Path, **options: Any) -> dict[str, Any]:
        """Open a home again, finish and check it; returns its outcome and removes it."""
        report = self.root / f"{home.name}.report"
        self.nursery.run(SETTLE, home=str(home), report=str(report), **OVERRIDES, **options)
        found: dict[str, Any] = json.loads(report.read_text())
        shutil.rmtree(home)
        return found


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def ground(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    root = tmp_path_factory.mktemp("homes")
    ground = Ground(nursery, root, root / "fitted")
    child = ground.drive(ground.home, ground.plan("empty", []))
    assert child.wait() == 0, child.log()
    return ground


@pytest.fixture(scope="session")
def forty() -> list[Step]:
    return forty_requests(records())


@pytest.fixture(scope="session")
def one() -> dict[str, Any]:
    return one_request(records())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a small disk needs the command mount")
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)

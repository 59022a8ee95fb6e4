"""Homes that cannot be opened: the error says why, and nothing is lost."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.coordinator.systems import files_of
from tests.faults.conftest import Ground

pytestmark = pytest.mark.slow


def refusal(ground: Ground, home: Path, one: dict[str, Any]) -> str:
    """Last line of the log of a coordinator that could not open a home."""
    child = ground.drive(home, ground.plan("one", [{"do": "erase", "what": one}]))
    assert child.wait() == 1, child.log()
    return child.log().strip().splitlines()[-1]


def test_a_read_only_home_is_refused_and_opens_once_it_can_be_written(
    ground: Ground, one: dict[str, Any], small_disk: Path
) -> None:
    home = ground.copy(small_disk)
    files = files_of(home)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)

    last = refusal(ground, home, one)

    assert last.startswith("cluster.errors.HomeError") and "cannot be written" in last, last
    subprocess.run([word.replace(",ro", ",rw") for word in remount], check=True)
    assert files_of(home) == files
    assert ground.settle(home, erase=one)["requests"][0][2] == "completed"


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(
    ground: Ground, one: dict[str, Any]
) -> None:
    home = ground.copy()
    files, known = files_of(home), change_version(home, "9999")

    last = refusal(ground, home, one)

    assert "9999" in last and "use the release that wrote it" in last, last
    assert files_of(home) == files
    assert change_version(home, known) == "9999"
    assert ground.settle(home, erase=one)["requests"][0][2] == "completed"


def change_version(home: Path, version: str) -> str:
    """Have a ledger claim another schema; returns the one before."""
    with sqlite3.connect(home / "ledger.db") as connection:
        ((before,),) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.close()
    return str(before)

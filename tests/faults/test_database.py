"""Connections to the database that are cut anywhere in an erasure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.coordinator.ledger.postgres import Server
from tests.faults.conftest import Ground
from tests.faults.servers import copy_with_database, fit_on_server
from tests.faults.test_kill import boundaries

pytestmark = pytest.mark.slow

CUTS = 25


def test_an_erasure_whose_database_connection_is_cut_is_finished_later(
    ground: Ground, server: Server, one: dict[str, Any]
) -> None:
    plan = ground.plan("one", [{"do": "erase", "what": one}])
    fitted = fit_on_server(ground, server, "cut")
    whole = copy_with_database(ground, server, fitted)
    names = boundaries(ground, whole, plan)
    expected = ground.settle(whole)
    inside = [n for n, name in enumerate(names) if "commit" in name or "generation" in name]
    outcomes = set()

    for number in inside[:: max(1, len(inside) // CUTS)]:
        home = copy_with_database(ground, server, fitted)
        cut = {"target": number, "action": "cut", "where": database_of(home)}
        child = ground.drive(home, plan, cut)
        outcomes.add(child.wait())
        log = child.log()
        assert "Traceback" not in log or "cannot be reached" in log, (number, log)
        assert ground.settle(home, erase=one) == expected, (number, names[number])
    assert 1 in outcomes


def database_of(home: Path) -> str:
    """URL of a home's ledger."""
    return str(yaml.safe_load((home / "config.yaml").read_text())["storage"]["database"])

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.graph import Change
from tests.coordinator.evidence.cases import Case, make_case
from tests.graphs import random_graph


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Node 13 of a random graph is erased."""
    folder: Path = tmp_path_factory.mktemp("keys")
    return make_case(folder, random_graph(4), Change(nodes=(13,)), [13])

"""The expected erasure cost that a system's status names."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.erasure import Erasure
from coordinator.screens import show_status
from tests.coordinator.systems import Workbench, planted, training_ids

HASH = {"partition.method": "hash", "partition.num_shards": 5}


def test_the_status_of_disjoint_shards_names_the_sum_of_their_squared_shares(
    bench: Workbench,
) -> None:
    system = bench.fit(planted(30), HASH)
    sizes = system.partition.sizes()

    cost = system.status()["erasure_cost"]

    assert cost["one_uniform"] == pytest.approx(((sizes / sizes.sum()) ** 2).sum())
    assert cost["worst"] == pytest.approx(sizes.max() / sizes.sum())
    assert cost["batch_1_percent"] == pytest.approx(cost["one_uniform"])  # fewer than 100 rows
    assert cost["one_by_degree"] > 0


def test_a_silent_shard_costs_nothing(bench: Workbench) -> None:
    records = planted(30)
    system = bench.fit(records, HASH)
    sizes, shard = system.partition.sizes().astype(float), system.partition.assignment

    system.erase(Erasure(labels=[i for i in training_ids(system) if shard[i] == 0
                                 and i in records.labels]))  # fmt: skip

    trained = np.where(np.arange(5) == 0, 0, sizes)
    expected = (sizes * trained).sum() / sizes.sum() / trained.sum()
    assert system.status()["erasure_cost"]["one_uniform"] == pytest.approx(expected)


def test_where_the_partition_is_made_anew_every_shard_counts(bench: Workbench) -> None:
    system = bench.fit(planted(30), {"partition.guarantee": "rederived"})

    assert set(system.status()["erasure_cost"].values()) == {1.0}


def test_people_are_told_the_expected_retraining_in_one_line(
    bench: Workbench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status = bench.fit(planted(30), HASH).status()

    show_status(status)

    lines = [x for x in capsys.readouterr().out.splitlines() if "expected retraining" in x]
    assert len(lines) == 1
    assert f"{status['erasure_cost']['one_uniform']:.1%} of all for one node" in lines[0]

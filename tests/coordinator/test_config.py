"""Configurations: read from anywhere, refused with the field and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import CapacityError, ConfigError
from coordinator.config import (
    Config,
    find_config,
    load_config,
    parse_overrides,
    preset_folder,
)
from coordinator.erasure import Erasure
from coordinator.system import System
from tests.coordinator.systems import Workbench, files_of, planted

PRESETS = sorted(path.stem for path in preset_folder().glob("*.yaml"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"shards": {"modle": "gcn"}}, r"shards\.modle: unknown field; did you mean 'model'"),
        ({"partion": {}}, r"partion: unknown field; did you mean 'partition'"),
        ({"partition": {"shards": 3}}, r"did you mean 'num_shards'"),
        ({"aggregator": {"zzz": 1}}, r"known are \['fit_rows', 'kind', 'label_step'"),
        ({"shards": {"hidden": 0}}, r"shards\.hidden: .* greater than or equal to 1 \(got 0\)"),
        ({"shards": {"hidden": "wide"}}, r"shards\.hidden: .* \(got 'wide'\)"),
        ({"shards": {"per_actor": 0}}, r"shards\.per_actor"),
        ({"shards": {"dropout": 1.0}}, r"shards\.dropout"),
        ({"shards": 3}, r"shards: .* \(got 3\)"),
        ({"roles": {"train": 0.9}}, r"roles: .*roles\.train \+ .* is 1\.3, must be 1"),
        (
            {"partition": {"method": "louvain", "guarantee": "oblivious"}},
            r"needs method 'hash', not 'louvain'",
        ),
        ({"partition": {"method": "hash", "guarantee": "frozen"}}, r"always oblivious"),
        ({"partition": {"halo": {"hop": 1}}}, r"partition\.halo\.hop: .* did you mean 'hops'"),
        ({"partition": {"halo": {"budget": -0.5}}}, r"partition\.halo\.budget: .*-0\.5"),
        ({"partition": {"halo": {"arcs": "ranked"}}}, r"max_cost and arcs 'ranked' need each"),
        ({"partition": {"halo": {"max_cost": 1.2}}}, r"max_cost and arcs 'ranked' need each"),
        ({"partition": {"halo": {"labels": True}}}, r"set arcs: clique, budget: null, hops: 0"),
        (
            {"partition": {"method": "hash", "halo": {"arcs": "ranked", "max_cost": 1.2}}},
            r"partition: .*'ranked' is chosen from the data, which guarantee 'oblivious' forbids",
        ),
    ],
    ids=str,
)
def test_a_wrong_field_is_named_with_what_is_wrong(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(data)


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"shards": {"modle": "gcn", "layers": 9}, "sed": 1})

    assert all(name in str(caught.value) for name in ("modle", "layers", "sed"))


def test_every_field_has_a_default() -> None:
    assert load_config() == load_config({}) == Config()
    assert Config().partition.effective_guarantee == "oblivious"


def test_a_mapping_with_two_fields_is_a_configuration() -> None:
    config = load_config({"partition": {"num_shards": 3}, "shards": {"model": "sage"}})

    assert (config.partition.num_shards, config.shards.model) == (3, "sage")
    assert config.partition.method == Config().partition.method
    assert config.shards.hidden == Config().shards.hidden


def test_a_configuration_in_yaml_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("shards:\n  model: gin\npartition:\nseed: 4\n".replace("partition:\n", ""))

    assert load_config(path) == load_config({"shards": {"model": "gin"}, "seed": 4})


@pytest.mark.parametrize(
    ("text", "message"), [("shards: [", "is not YAML"), ("- 1", "holds a list")]
)
def test_a_file_that_is_no_mapping_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_found_by_name_and_by_path_and_is_valid(name: str) -> None:
    assert load_config(name) == load_config(f"configs/{name}.yaml")
    assert load_config(name) == load_config(find_config(name))


def test_an_unknown_preset_lists_the_known_ones() -> None:
    assert PRESETS
    with pytest.raises(ConfigError, match="no configuration file 'coraa'") as caught:
        load_config("coraa")
    assert all(name in str(caught.value) for name in PRESETS)


def test_overrides_are_read_as_yaml_and_applied_last() -> None:
    given = ["shards.model=sage", "shards.lr=1e-1", "seed=7", "partition.capacity=null"]
    source = {"shards": {"model": "gcn", "hidden": 16}, "partition": {"capacity": 5}}

    config = load_config(source, parse_overrides(given))

    assert config.shards.model == "sage"
    assert config.shards.lr == 0.1
    assert config.shards.hidden == 16
    assert config.partition.capacity is None
    assert config.seed == 7
    assert source == {"shards": {"model": "gcn", "hidden": 16}, "partition": {"capacity": 5}}


def test_an_override_fills_a_section_that_a_file_leaves_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("shards:\n")

    assert load_config(path, {"shards.model": "mlp"}).shards.model == "mlp"


@pytest.mark.parametrize(
    ("item", "message"),
    [("shards.model", "has no '='"), ("seed=[1", "is not YAML")],
)
def test_an_override_that_cannot_be_read_is_quoted(item: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_overrides([item])
    assert item in str(caught.value)


def test_an_override_of_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'training_epochs'"):
        load_config(None, parse_overrides(["shards.training_epoch=3"]))


# ---- against each other, the graph and the partition


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"shards.model": "gcnn"}, r"shards\.model is 'gcnn'; choose one of \["),
        ({"shards.backend": "dgl", "shards.model": "sgc"}, r"shards\.backend 'dgl'"),
        ({"shards.backend": "dgl", "shards.device": "cuda"}, "needs shards.backend 'torch'"),
        ({"aggregator.kind": "median"}, r"'median'; choose one of \["),
        ({"partition.method": "lovain"}, r"partition\.method is 'lovain'; choose one of \["),
    ],
    ids=str,
)
def test_an_unknown_name_is_refused_before_a_home_is_made(
    overrides: dict[str, Any], message: str, bench: Workbench, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        bench.fit(planted(12), overrides, home=tmp_path / "none")

    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        {"partition.num_shards": 4},
        {"partition.guarantee": "rederived"},
        {"partition.method": "hash"},
    ],
    ids=str,
)
def test_a_partition_that_the_configuration_does_not_describe_is_refused(
    overrides: dict[str, Any], bench: Workbench
) -> None:
    partition = bench.fit(planted(12)).partition

    with pytest.raises(ConfigError, match="make them agree"):
        bench.fit(planted(12), overrides, partition=partition)


FULL = {"partition.halo.hops": 1, "partition.halo.budget": None}
TIGHT = {**FULL, "partition.halo.budget": 0.1}


@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        (FULL, {}, r"has a halo, partition\.halo says none"),
        (FULL, {**FULL, "partition.halo.hops": 2}, r"has other hops than partition\.halo"),
        (FULL, {**FULL, "partition.seed": 1}, r"has other seed"),
        (FULL, {**FULL, "partition.halo.arcs": "clique"}, r"has other arcs"),
        (TIGHT, FULL, r"has other budget"),
    ],
)
def test_a_partition_with_a_halo_that_the_configuration_does_not_describe_is_refused(
    made: dict[str, Any], given: dict[str, Any], message: str, bench: Workbench
) -> None:
    records = planted(12)
    partition = bench.fit(records, made).partition

    with pytest.raises(ConfigError, match=message):
        bench.fit(records, given, partition=partition)


@pytest.mark.parametrize("method", ["louvain", "hash"])
def test_a_given_partition_without_a_halo_gets_the_one_that_the_configuration_wants(
    method: str, bench: Workbench
) -> None:
    records, overrides = planted(12), {**TIGHT, "partition.method": method}
    partition = bench.fit(records, {"partition.method": method}).partition

    given = bench.fit(records, overrides, partition=partition)

    assert partition.halo is None
    assert given.generation.key == bench.fit(records, overrides).generation.key


def test_a_partition_of_another_graph_is_refused(bench: Workbench) -> None:
    partition = bench.fit(planted(12)).partition

    with pytest.raises(ConfigError, match=r"assigns 0 nodes, the graph has \d+"):
        bench.fit(planted(12, prefix="other-").graph(), partition=partition)


def test_a_partition_that_leaves_training_nodes_out_is_refused(bench: Workbench) -> None:
    records = planted(12)
    fitted = bench.fit(records)
    fewer = records.without(Erasure(nodes=[next(iter(fitted.partition.assignment))]))
    partition = bench.fit(fewer).partition

    with pytest.raises(ConfigError, match="made for other roles or another graph"):
        bench.fit(records, partition=partition)


def test_more_shards_than_training_nodes_are_refused(bench: Workbench) -> None:
    with pytest.raises(CapacityError, match=r"partition\.num_shards is 40"):
        bench.fit(planted(12), {"partition.num_shards": 40})


def test_a_capacity_that_cannot_hold_the_training_nodes_is_refused(bench: Workbench) -> None:
    with pytest.raises(CapacityError, match=r"partition\.capacity 2 x 3 shards"):
        bench.fit(planted(12), {"partition.capacity": 2})


def test_a_fit_without_a_home_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match=r"pass home= or set storage\.home"):
        System.fit(planted(12).graph())


def test_the_home_may_come_from_the_configuration(bench: Workbench, tmp_path: Path) -> None:
    home = tmp_path / "configured"

    with System.fit(
        planted(12).graph(), {"storage": {"home": str(home)}}, pool=bench.pool
    ) as system:
        assert system.home == home
    assert files_of(home)


def test_an_unknown_pool_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"choose one of \['inline', 'ray'\]"):
        System.fit(planted(12).graph(), home=tmp_path / "home", pool="dask")

"""Selectors as values, the commands around them, and the worked example of the docs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import coordinator
from cluster.errors import SelectorError, UnknownIdError, UnweaveError
from cluster.graph import Graph
from cluster.readers.columns import Columns
from coordinator import Erasure, Subject, Where
from coordinator import subjects_cli as cli
from coordinator.selectors import Resolved, SubjectMap, SubjectRules, load_rules, resolve
from tests.coordinator.selectors.people import people, rules, subject_map

DOCS = Path(__file__).parents[3] / "docs" / "selectors.md"


# ---- resolve


def test_an_erasure_is_taken_as_it_is_and_its_kind_named() -> None:
    both = Erasure(nodes=["shop"], labels=["note"])

    assert resolve(people(), both) == Resolved("mixed", both)
    assert resolve(people(), Erasure(labels=["note"])).kind == "labels"


def test_a_subject_and_a_predicate_become_erasures() -> None:
    found = resolve(people(), Subject("ada"), subject_map(), rules())
    where = resolve(people(), Where("type = 'device' and degree = 1"))

    assert (found.kind, found.subjects) == ("subject", ("ada",))
    assert found.erasure.nodes == ("acc-ada", "card-1", "dev-1")
    assert (where.kind, where.erasure) == ("predicate", Erasure(nodes=["dev-1", "dev-3"]))
    assert resolve(people(), Where("degree > 99")).erasure.is_empty


def test_a_subject_is_its_text() -> None:
    assert Subject(17) == Subject("17")  # type: ignore[arg-type]
    for wrong in ("", None, 1.5, True):
        with pytest.raises(SelectorError):
            Subject(wrong)  # type: ignore[arg-type]
    with pytest.raises(SelectorError):
        Where("  ")


def test_what_cannot_be_resolved_says_why() -> None:
    with pytest.raises(SelectorError, match="unweave subjects import"):
        resolve(people(), Subject("ada"))
    with pytest.raises(UnknownIdError, match=r"1 subject.*'eve'"):
        resolve(people(), Subject("eve"), subject_map(), rules())
    with pytest.raises(SelectorError, match="is no selector"):
        resolve(people(), "ada")  # type: ignore[arg-type]


def test_selectors_import_neither_torch_nor_ray_nor_sql() -> None:
    code = (
        "import sys, coordinator.selectors.idfile, coordinator.selectors.lint, "
        "coordinator.subjects_cli\n"
        "print(sorted({'torch', 'ray', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
    assert {"Subject", "Where"} <= set(coordinator.__all__)


# ---- commands, on a stand-in for a system


class StandIn:
    def __init__(self) -> None:
        self.graph: Graph = people()
        self.subjects: SubjectMap | None = None
        self.subject_rules: SubjectRules | None = None

    def set_subjects(self, subjects: SubjectMap, chosen: SubjectRules | None) -> None:
        self.subjects, self.subject_rules = subjects, chosen


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()

    @contextmanager
    def opened(home: Path) -> Any:
        yield stand_in

    monkeypatch.setattr(cli, "open_home", opened)
    return stand_in


def call(*arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(cli.app, [*arguments, "--home", "h", "--json"])
    if isinstance(done.exception, UnweaveError):
        raise done.exception
    return done.exit_code, json.loads(done.stdout.splitlines()[-1])


def test_import_lint_and_lookup_work_and_tell_counts_alone(system: StandIn, tmp_path: Path) -> None:
    table, chosen = tmp_path / "s.csv", tmp_path / "rules.yaml"
    table.write_text(
        "subject_id,node_id,role\nada,acc-ada,owner\nada,note,mention\nada,gone,owner\n"
    )
    chosen.write_text(yaml.safe_dump({"subject_rules": rules().model_dump()}))

    imported = call("import", str(table), "--rules", str(chosen), "--unknown", "skip")
    linted = call("lint", "--bound", "2")
    looked = call("lookup", "ada")

    assert imported == (0, {
        "subjects": 1, "owner_rows": 1, "mention_rows": 1, "skipped_rows": 1, "rules": True,
    })  # fmt: skip
    assert linted[0] == cli.FAILED
    assert [item["code"] for item in linted[1]["findings"]] == [
        "owned-node-without-subject", "cascade-exceeds-bound",
    ]  # fmt: skip
    assert looked[1] == {
        "known": True, "owner_nodes": 1, "mention_nodes": 1, "nodes_deleted": 3, "edges_cut": 0,
        "nodes_kept": 1, "types": {"account": 1, "card": 1, "device": 1},
        "reasons": {"deep": 1, "kept: another node refers to it": 1, "owner": 1, "refcount": 1},
    }  # fmt: skip
    assert call("lookup", "eve")[1] == {"known": False, "owner_nodes": 0, "mention_nodes": 0}


def test_a_bad_import_changes_nothing(system: StandIn, tmp_path: Path) -> None:
    table, chosen = tmp_path / "s.csv", tmp_path / "rules.yaml"
    table.write_text("subject_id,node_id,role\nada,gone,owner\n")
    chosen.write_text("edge_types: {owns: deep}")

    with pytest.raises(UnknownIdError):
        call("import", str(table))
    with pytest.raises(SelectorError, match="have no rule"):
        call("import", str(table), "--rules", str(chosen))
    with pytest.raises(SelectorError, match="no subjects are mapped"):
        call("lint")

    assert system.subjects is None


def test_without_json_the_commands_print_lines(system: StandIn) -> None:
    system.set_subjects(subject_map(), None)
    runner = CliRunner()

    assert "nothing to decide" in runner.invoke(cli.app, ["lint", "--home", "h"]).stdout
    assert "nodes_deleted  2" in runner.invoke(cli.app, ["lookup", "ada", "--home", "h"]).stdout


# ---- the docs


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)


def rows_of(block: str) -> list[list[str]]:
    return [line.split(",") for line in block.strip().splitlines()[1:]]


def test_the_worked_example_of_the_docs_comes_out_as_it_says() -> None:
    nodes, edges, subjects = map(rows_of, blocks("csv"))
    row = {name: at for at, (name, _) in enumerate(nodes)}
    graph = Graph.from_arrays(
        np.asarray([[row[u], row[v]] for u, v, _ in edges]).T,
        np.ones((len(nodes), 1)),
        None,
        ids=list(row),
        directed=True,
        columns=Columns(
            node={"type": np.asarray([kind for _, kind in nodes], object)},
            edge={"type": np.asarray([kind for _, _, kind in edges], object)},
        ),
    )
    known = SubjectMap.from_rows([tuple(line) for line in subjects], graph)  # type: ignore[misc]
    chosen = load_rules(yaml.safe_load(blocks("yaml")[0]))

    table = DOCS.read_text().split("| erased |")[1].split("\n\n")[0]
    lines = [line.split("|")[1:5] for line in table.splitlines() if line.startswith("| `")]

    assert len(lines) == 3
    for name, goes, stays, cut in lines:
        found = coordinator.selectors.expand(graph, known, chosen, name.strip(" `").split(", "))
        told = [re.findall(r"`(.*?)`", cell) for cell in (goes, stays, cut)]
        assert list(found.deleted_nodes) == told[0]
        assert list(found.kept_shared) == told[1]
        assert [f"{u} - {v}" for u, v in found.erasure.edges] == told[2]


def test_the_predicates_of_the_docs_are_predicates() -> None:
    from coordinator.selectors.columns import Column
    from coordinator.selectors.predicate import compile_predicate

    columns = {
        "type": Column("type", "str"), "last_seen": Column("last_seen", "str"),
        "age": Column("age", "int"), "score": Column("score", "float", nullable=True),
        "vip": Column("vip", "bool"), "label": Column("label", "int", nullable=True),
        "degree": Column("degree", "int"), "two words": Column("two words", "str"),
    }  # fmt: skip
    examples = blocks("sql")[0].strip().splitlines()

    assert len(examples) >= 5
    for text in examples:
        compile_predicate(text, columns)

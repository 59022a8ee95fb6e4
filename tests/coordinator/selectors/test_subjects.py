"""SubjectMap: from files of every kind, as an artefact, after an erasure."""

from __future__ import annotations

import gzip
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import GraphError, SelectorError, UnknownIdError
from cluster.graph import Graph
from coordinator.selectors.subjects import SubjectMap, read_subjects
from tests.coordinator.selectors.people import ROWS, people, subject_map
from tests.graphs import path_graph

HEADER = "subject_id,node_id,role\n"


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rows_of(subjects: SubjectMap) -> list[tuple[str, object, str]]:
    names = subjects.subjects[subjects.subject_of].tolist()
    roles = ["owner" if owner else "mention" for owner in subjects.is_owner]
    return list(zip(names, subjects.nodes.tolist(), roles, strict=True))


def test_csv_gzip_and_parquet_of_the_same_rows_are_the_same_map(tmp_path: Path) -> None:
    graph, lines = people(), "".join(f"{s},{n},{r}\n" for s, n, r in ROWS)
    columns = dict(zip(("subject_id", "node_id", "role"), zip(*ROWS, strict=True), strict=True))
    table = pa.table({name: list(column) for name, column in columns.items()})
    pq.write_table(table, tmp_path / "s.parquet")
    files = [
        write(tmp_path / "s.csv", HEADER + lines),
        write(tmp_path / "s.csv.gz", HEADER + lines),
        tmp_path / "s.parquet",
    ]

    maps = [read_subjects(file, graph).subjects for file in files]

    assert {found.key for found in maps} == {subject_map().key}
    assert rows_of(maps[0]) == sorted(ROWS)


@given(st.permutations(ROWS))
def test_a_map_does_not_depend_on_the_order_of_its_rows(rows: list[tuple[str, str, str]]) -> None:
    assert SubjectMap.from_rows(rows, people()).key == subject_map().key  # type: ignore[arg-type]


def test_a_map_survives_its_blob() -> None:
    again = SubjectMap.from_blob(subject_map().to_blob())

    assert rows_of(again) == rows_of(subject_map())
    assert again.key == subject_map().key
    assert repr(again) == "SubjectMap(subjects=2, rows=4)"  # names nobody


@pytest.mark.parametrize("id_type", ["int", "uuid"])
def test_node_ids_have_the_type_of_the_graph(id_type: str, tmp_path: Path) -> None:
    ids = [7, 8, 9] if id_type == "int" else [uuid.UUID(int=i) for i in (7, 8, 9)]
    graph = Graph.from_arrays([[0], [1]], np.ones((3, 1)), None, ids=ids)
    file = write(tmp_path / "s.csv", HEADER + f"17,{ids[2]},owner\n17,{ids[0]},mention\n")

    subjects = read_subjects(file, graph).subjects

    assert subjects.nodes_of("17", "owner") == [ids[2]]
    assert SubjectMap.from_blob(subjects.to_blob()).nodes_of("17", "mention") == [ids[0]]


def test_an_erasure_leaves_no_row_of_its_subjects_and_nodes() -> None:
    left = subject_map().without(["ada", "nobody"], ["acc-bob"])

    assert rows_of(left) == []
    assert left.subjects.tolist() == []
    assert rows_of(subject_map().without(nodes=["dev-2"])) == [
        ("ada", "acc-ada", "owner"), ("ada", "note", "mention"), ("bob", "acc-bob", "owner"),
    ]  # fmt: skip
    assert "ada" not in subject_map().without(["ada"]).to_blob().tensors["subject.bytes"].tobytes(
    ).decode()  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,node_id,role\na,acc-ada,owner\n", r"no column 'subject_id'.*is 'subject' meant"),
        (HEADER, "has no rows"),
        ("", "is empty"),
        (HEADER + "a,acc-ada,owner\na,acc-bob,boss\n", "line 3: unknown role 'boss'"),
        (HEADER + "a,acc-ada,owner\n,acc-bob,owner\n", "line 3: column 'subject_id' is empty"),
        (HEADER + "a,acc-ada,owner\nb,shop,owner\na,acc-ada,owner\n", "line 2 and .*line 4; keep"),
        (HEADER + "a,shop,owner\na,shop,mention\n", "as owner and as mention"),
        (HEADER + "a,shop\n", "cannot read"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SelectorError, match=message):
        read_subjects(write(tmp_path / "s.csv", text), people())


def test_all_unknown_nodes_are_named_or_skipped_and_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "s.csv", HEADER + "a,x,owner\na,shop,owner\nb,y,mention\n")

    with pytest.raises(UnknownIdError) as caught:
        read_subjects(file, people())
    skipped = read_subjects(file, people(), unknown="skip")

    assert caught.value.ids == ("x", "y")
    assert (skipped.skipped, rows_of(skipped.subjects)) == (2, [("a", "shop", "owner")])


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"subject_id": ["a"], "node_id": ["1"], "role": ["owner"]}), tmp_path / "s.parquet"
    )

    with pytest.raises(SelectorError, match="ids of this graph are int"):
        read_subjects(tmp_path / "s.parquet", path_graph(3))
    with pytest.raises(SelectorError, match="line 3: 'two' in column 'node_id' is no int id"):
        read_subjects(write(tmp_path / "s.csv", HEADER + "a,1,owner\na,two,owner\n"), path_graph(3))


@pytest.mark.parametrize("row", [("a", "x", "owner"), ("a", "shop", "boss"), ("", "shop", "owner")])
def test_bad_rows_given_from_python_are_refused(row: tuple[str, str, str]) -> None:
    with pytest.raises(GraphError):
        SubjectMap.from_rows([row], people())  # type: ignore[list-item]

"""Files of ids: every kind and form, every mistake with its line, memory that stays bounded."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import SelectorError
from cluster.graph import Graph
from coordinator.erasure import Erasure, present_part
from coordinator.selectors.cascade import Cascade, expand
from coordinator.selectors.idfile import IdFile, iter_erasures, iter_resolved, survey
from tests.coordinator.selectors.people import people, rules, subject_map
from tests.graphs import path_graph, two_triangles


def write(path: Path, text: str | bytes) -> Path:
    raw = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def sha256(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def merged(file: IdFile, graph: Graph, chunk: int = 2) -> Erasure:
    return Erasure.merge(iter_erasures(file, graph, chunk=chunk))


@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "f.txt", "f.ids.gz", "f.parquet"])
def test_each_form_of_file_gives_the_same_nodes_once_in_the_order_of_the_file(
    name: str, tmp_path: Path
) -> None:
    ids, graph = [4, 1, 77, 4, 0], path_graph(6)
    path = tmp_path / name
    if name == "f.parquet":
        pq.write_table(pa.table({"other": [0.5] * 5, "id": ids}), path)
    else:
        header = "id\n" if "csv" in name else ""
        write(path, header + "".join(f"{i}\n" for i in ids))

    found = survey(IdFile(path, "nodes"), graph)
    chunks = list(iter_erasures(IdFile(path, "nodes"), graph, surveyed=found, chunk=2))

    assert (found.lines, found.known, found.unknown, found.duplicates) == (5, 4, 1, 1)
    assert (found.examples, found.records) == (("77",), 3)
    assert chunks == [Erasure(nodes=[4, 1]), Erasure(nodes=[0])]
    assert repr(found) == "Survey(lines=5, known=4, unknown=1, duplicates=1)"
    with pytest.raises(SelectorError, match="1 of 5 lines name nothing that is here, as '77'"):
        found.require_known(path)


def test_edges_features_and_labels_have_their_own_columns(tmp_path: Path) -> None:
    graph = two_triangles()
    edges = write(tmp_path / "e.csv", "src,dst,why\n1,0,x\n0,1,x\n2,3,x\n0,5,x\n9,1,x\n")
    features = write(tmp_path / "f.csv", "id,column\n1,f0\n2,\n1,f2\n1,f0\n8,f1\n")
    labels = write(tmp_path / "l.csv", "id\r\n5\r\n0\r\n")

    seen = survey(IdFile(edges, "edges"), graph)
    cells = survey(IdFile(features, "features"), graph)

    assert (seen.known, seen.unknown, seen.duplicates) == (3, 2, 1)
    assert seen.examples == ("0,5", "9,1")
    assert merged(IdFile(edges, "edges"), graph) == Erasure(edges=[(0, 1), (2, 3)])
    assert (cells.known, cells.unknown, cells.duplicates) == (4, 1, 1)
    assert merged(IdFile(features, "features"), graph) == Erasure(
        features={1: ["f0", "f2"], 2: None}
    )
    assert merged(IdFile(labels, "labels"), graph) == Erasure(labels=[5, 0])


@pytest.mark.parametrize("kind", ["nodes", "subjects"])
def test_hashed_lists_match_the_text_of_ids(kind: str, tmp_path: Path) -> None:
    graph, column = people(), "id" if kind == "nodes" else "subject_id"
    ids = ["acc-bob", "nobody"] if kind == "nodes" else ["bob", "eve"]
    path = write(tmp_path / "h.csv", f"{column}\n{sha256(ids[0]).upper()}\n{sha256(ids[1])}\n")
    cascade = Cascade(graph, subject_map(graph), rules())
    file = IdFile(path, kind, sha256=True)  # type: ignore[arg-type]

    found = survey(file, graph, cascade)
    erasure = next(iter_erasures(file, graph, cascade))

    assert (found.known, found.unknown) == (1, 1)
    assert "acc-bob" in erasure.nodes


def test_hashed_ints_and_uuids_are_hashed_as_their_text(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=5), uuid.UUID(int=6)]
    by_uuid = Graph.from_arrays(np.empty((2, 0), np.int64), np.ones((2, 1)), None, ids=ids)
    path = write(tmp_path / "h.txt", f"{sha256(ids[1])}\n{sha256(3)}\n")

    assert merged(IdFile(path, "nodes", sha256=True), by_uuid) == Erasure(nodes=[ids[1]])
    assert merged(IdFile(path, "nodes", sha256=True), path_graph(5)) == Erasure(nodes=[3])
    plain = write(tmp_path / "u.csv", f"id\n{str(ids[0]).upper()}\n")
    assert merged(IdFile(plain, "nodes"), by_uuid) == Erasure(nodes=[ids[0]])


def test_chunks_of_subjects_leave_what_all_at_once_leave(tmp_path: Path) -> None:
    graph = people()
    cascade = Cascade(graph, subject_map(graph), rules())
    file = IdFile(write(tmp_path / "s.csv", "subject_id\nada\nbob\nada\n"), "subjects")

    chunks = list(iter_resolved(file, graph, cascade, chunk=1))
    at_once = expand(graph, subject_map(graph), rules(), ["ada", "bob"]).erasure

    assert [chunk.subjects for chunk in chunks] == [("ada",), ("bob",)]
    every = Erasure.merge(chunk.erasure for chunk in chunks)
    assert set(every.nodes) == set(at_once.nodes)
    left = [graph.apply(present_part(graph, item)[0]) for item in (every, at_once)]
    assert left[0].ids.tolist() == left[1].ids.tolist()
    with pytest.raises(SelectorError, match="none are mapped"):
        survey(file, graph)


BAD = {
    "wrong column": ("f.csv", "ID\n1\n", "nodes", r"no column 'id'; it has 'ID'"),
    "two ids in a text file": ("f.txt", "1\n", "edges", "header src,dst"),
    "mixed types": ("f.csv", "id\n1\n2\nabc\n", "nodes", "line 4: 'abc' in column 'id' is no int"),
    "a fraction": ("f.csv", "id\n1.0\n", "nodes", r"line 2: '1\.0'"),
    "too large": ("f.csv", "id\n99999999999999999999\n", "nodes", "line 2: .* no int id"),
    "an empty line": ("f.csv", "id\n1\n\n2\n", "nodes", "line 3: column 'id' is empty"),
    "an empty cell": ("f.csv", "src,dst\n1,\n", "edges", "line 2: column 'dst' is empty"),
    "a short line": ("f.csv", "src,dst\n1,2\n3\n", "edges", "cannot read"),
    "empty": ("f.csv", "", "nodes", "is empty"),
    "blank": ("f.txt", "\n\n", "nodes", "is empty"),
    "empty gzip": ("f.csv.gz", "", "nodes", "is empty"),
    "header only": ("f.csv", "id\n", "nodes", "nothing to erase"),
    "latin-1": ("f.csv", b"id\n1\n\xe9\n", "nodes", "line 3: .* is not UTF-8 text"),
    "latin-1 header": ("f.csv", b"id,\xe9\n1,2\n", "nodes", "header is not UTF-8"),
    "UTF-16": ("f.csv", "id\n1\n".encode("utf-16"), "nodes", "is not UTF-8"),
    "a column twice": ("f.csv", "id,id\n1,2\n", "nodes", "is there twice"),
    "no hash": ("f.csv", "id\n" + "0" * 64 + "\nabc\n", "hashed", "line 3: 'abc' is no SHA-256"),
    "unknown feature": ("f.csv", "id,column\n1,f0\n1,F1\n", "features", "line 3: .*'f1'"),
    "no Parquet": ("f.parquet", "id\n1\n", "nodes", "is no Parquet file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_line(case: str, tmp_path: Path) -> None:
    name, text, kind, message = BAD[case]
    file = IdFile(
        write(tmp_path / name, text),
        "nodes" if kind == "hashed" else kind,  # type: ignore[arg-type]
        sha256=kind == "hashed",
    )

    with pytest.raises(SelectorError, match=message):
        survey(file, two_triangles())


def test_a_parquet_column_of_another_type_or_with_nulls_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    for column, message in [
        (pa.array(["1"]), "ids of this graph are int"),
        (pa.array([1, None]), "row 2: column 'id' is empty"),
        (pa.array([1, 2**64 - 1], pa.uint64()), "row 2: 18446744073709551615"),
        (pa.array([1.0]), "column 'id' is double"),
    ]:
        pq.write_table(pa.table({"id": column}), path)
        with pytest.raises(SelectorError, match=message):
            survey(IdFile(path, "nodes"), path_graph(3))
    pq.write_table(pa.table({"id": [1]}), path)
    with pytest.raises(SelectorError, match="ids of this graph are str"):
        survey(IdFile(path, "nodes"), people())


def test_a_truncated_gzip_and_a_missing_file_and_kind_are_refused(tmp_path: Path) -> None:
    lines = "".join(f"{i % 5}\n" for i in range(200_000))
    whole = write(tmp_path / "f.csv.gz", "id\n" + lines)
    whole.write_bytes(whole.read_bytes()[:-200])

    with pytest.raises(SelectorError, match="cannot read"):
        survey(IdFile(whole, "nodes"), path_graph(5))
    with pytest.raises(SelectorError, match="is no file"):
        survey(IdFile(tmp_path / "none.csv", "nodes"), path_graph(5))
    with pytest.raises(SelectorError, match="choose one of"):
        IdFile(whole, "people")  # type: ignore[arg-type]


def test_the_line_of_a_mistake_is_right_far_into_a_file(tmp_path: Path) -> None:
    lines = [str(i % 5) for i in range(300_000)]
    lines[250_000] = "x"
    file = IdFile(write(tmp_path / "f.csv", "id\n" + "\n".join(lines)), "nodes")

    with pytest.raises(SelectorError, match="line 250002: 'x'"):
        survey(file, path_graph(5))


def test_a_file_that_changed_since_its_survey_is_refused(tmp_path: Path) -> None:
    file = IdFile(write(tmp_path / "f.csv", "id\n1\n"), "nodes")
    found = survey(file, path_graph(5))
    write(tmp_path / "f.csv", "id\n1\n2\n")

    with pytest.raises(SelectorError, match="changed since it was surveyed"):
        next(iter_erasures(file, path_graph(5), surveyed=found))


@pytest.mark.parametrize("name", ["f.csv", "f.txt"])
def test_a_byte_order_mark_is_no_part_of_the_file(name: str, tmp_path: Path) -> None:
    header = "id\n" if name == "f.csv" else ""
    path = write(tmp_path / name, b"\xef\xbb\xbf" + f"{header}4\n".encode())

    assert merged(IdFile(path, "nodes"), path_graph(5)) == Erasure(nodes=[4])


def test_a_text_id_may_hold_anything_but_a_line_end(tmp_path: Path) -> None:
    ids = ['a,"b"', "007", " x", "é"]
    graph = Graph.from_arrays(np.empty((2, 0), np.int64), np.ones((4, 1)), None, ids=ids)
    path = write(tmp_path / "f.txt", "\n".join(ids))

    assert merged(IdFile(path, "nodes"), graph) == Erasure(nodes=ids)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 8), min_size=1, max_size=40), st.integers(1, 7))
def test_counts_and_chunks_agree_with_a_naive_reading(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], chunk: int
) -> None:
    path = write(tmp_path_factory.mktemp("f") / "f.csv", "id\n" + "".join(f"{i}\n" for i in ids))
    graph = path_graph(6)
    known = [i for i in ids if 0 <= i < 6]

    found = survey(IdFile(path, "nodes"), graph)
    chunks = list(iter_erasures(IdFile(path, "nodes"), graph, chunk=chunk))

    assert (found.lines, found.known, found.unknown) == (
        len(ids),
        len(known),
        len(ids) - len(known),
    )
    assert found.duplicates == len(known) - len(Counter(known))
    assert [i for item in chunks for i in item.nodes] == list(dict.fromkeys(known))
    assert all(len(item.nodes) == chunk for item in chunks[:-1])


GROWTH = """
import resource, sys
from pathlib import Path
from coordinator.selectors.idfile import IdFile, iter_erasures, survey
from tests.graphs import path_graph

graph = path_graph(1000)
def peak(lines):
    path = Path(sys.argv[1]) / "ids.csv"
    with path.open("w") as file:
        file.write("id\\n")
        for start in range(0, lines, 1000):
            file.write("".join(f"{i}\\n" for i in range(start, start + 1000)))
    found = survey(IdFile(path, "nodes"), graph)
    assert found.lines == lines and found.known == 1000
    assert sum(len(e.nodes) for e in iter_erasures(IdFile(path, "nodes"), graph)) == 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
small = peak(200_000)
print(peak(int(sys.argv[2])) - small)
"""


def test_a_million_lines_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path), "1000000"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 40  # MiB; the million lines alone are 7 MB, as Python ints 36 MB

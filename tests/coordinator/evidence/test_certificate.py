from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cluster.errors import VerificationError
from cluster.graph import Change
from cluster.ids import id_to_json
from coordinator.evidence import check, statement
from coordinator.evidence.check import Record, check_certificate, check_live, open_certificate
from coordinator.evidence.describe import describe
from coordinator.evidence.dsse import sign
from coordinator.evidence.errors import FieldValueError, MissingFieldError, SecretError
from coordinator.evidence.facts import Submodel
from coordinator.evidence.keys import Signer
from coordinator.evidence.leaves import open_row
from coordinator.evidence.report import Report
from coordinator.evidence.salts import Disclosure, derive, disclose
from coordinator.evidence.shape import NOT_CLAIMED
from coordinator.evidence_cli import verify_certificate
from tests.coordinator.evidence.cases import NOON, SECRET, Case, make_case, next_statement
from tests.graphs import random_graph

LIVE: dict[int, tuple[str, str | None]] = {3: ("new-key", "new-weights")}
FULL = ("label", "features", "edges")


def verdict(case: Case, **options: Any) -> Report:
    return check_certificate(case.text, {case.signer.key_id: case.signer.public_key}, **options)


def failure(report: Report) -> str:
    """What the only failed check says."""
    (failed,) = [item for item in report.checks if not item.ok]
    return failed.detail


def test_keys_are_derived_as_rfc_5869_says() -> None:
    hkdf = HKDF(SHA256(), 32, b"cert_1", b"unweave/leaf/1/3")

    assert derive(SECRET, "cert_1", "leaf", 3) == hkdf.derive(SECRET)


def test_no_id_and_no_raw_key_is_in_a_certificate(case: Case) -> None:
    text = json.dumps(case.statement)

    for raw in ("old-key", "new-key", "old-weights", "new-weights", "graph2", "old-content"):
        assert raw not in text
    assert SECRET.hex() not in text
    assert NOT_CLAIMED in text
    salt = derive(SECRET, "cert_1", "new", 3)
    sealed = hmac.new(salt, b"submodel\0new-key", hashlib.sha256).hexdigest()
    assert case.statement["predicate"]["shards"][0]["new"]["key"] == sealed


def test_two_certificates_of_one_erasure_share_no_value(case: Case) -> None:
    other = statement.build(
        replace(case.facts, secret=bytes(32), certificate_id="cert_2"), case.signer
    )
    first, second = (item["predicate"]["shards"][0] for item in (case.statement, other))

    assert first["new"] != second["new"]
    assert first["leaf_key"] != second["leaf_key"]


def test_a_naive_time_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="time zone"):
        statement.build(replace(case.facts, times={"a": datetime(2026, 1, 1)}), case.signer)


def test_a_certificate_that_affected_no_shard_is_a_certificate(case: Case) -> None:
    made = statement.build(replace(case.facts, shards=[]), case.signer)
    keys = {case.signer.key_id: case.signer.public_key}

    assert check_certificate(sign(made, case.signer), keys, secret=SECRET).ok


# ---- the holder of a record


def test_who_knows_the_name_sees_that_it_is_gone_with_the_leaf_key_alone(case: Case) -> None:
    report = verdict(case, disclosure=disclose(SECRET, "cert_1", 3), record=Record(13))

    assert report.ok
    assert "no row under this name is held after" in report.checks[-1].detail


def test_who_knows_the_whole_row_sees_that_it_was_held_before(case: Case) -> None:
    before = open_row(case.before, 13, show=FULL)

    report = verdict(case, secret=SECRET, record=Record(13, before=before))

    assert report.ok
    assert "the given row was held before" in report.checks[-1].detail


def test_a_wrong_row_was_not_held(case: Case) -> None:
    wrong = open_row(case.before, 16, show=FULL)

    assert "UW-V013" in failure(verdict(case, secret=SECRET, record=Record(13, before=wrong)))


def test_a_record_that_the_certificate_does_not_name_is_told(case: Case) -> None:
    report = verdict(case, secret=SECRET, record=Record(16))

    assert "does not name this record" in failure(report)


def test_a_record_needs_a_key(case: Case) -> None:
    assert "UW-V014" in failure(verdict(case, record=Record(13)))


def test_a_wrong_secret_is_told(case: Case) -> None:
    assert "UW-V014" in failure(verdict(case, secret=bytes(32)))
    assert "UW-V005" in failure(verdict(case, secret=b"short"))


@pytest.mark.parametrize(
    "wrong",
    [
        disclose(bytes(32), "cert_1", 3),
        disclose(SECRET, "cert_2", 3),
        disclose(SECRET, "cert_1", 4),
        Disclosure("cert_1", 3, derive(SECRET, "cert_1", "leaf", 3), bytes(32)),
    ],
)
def test_a_disclosure_of_something_else_is_told(case: Case, wrong: Disclosure) -> None:
    assert "UW-V014" in failure(verdict(case, disclosure=wrong))


def test_a_disclosure_says_no_more_than_was_asked() -> None:
    small, large = (disclose(SECRET, "cert_1", 3, new_salt=more) for more in (False, True))

    assert small.new_salt is None
    assert Disclosure.from_json(small.to_json()) == small
    assert Disclosure.from_json(large.to_json()) == large
    with pytest.raises(MissingFieldError):
        Disclosure.from_json({"certificate": "cert_1"})


@pytest.mark.parametrize("kind", ["label", "features", "edge"])
def test_an_erased_part_is_gone_from_the_opened_row(tmp_path: Path, kind: str) -> None:
    graph = random_graph(4)
    u, v = next((u, v) for u, v in _edges(graph) if graph.y[graph.ids.tolist().index(v)] >= 0)
    changes = {
        "label": Change(labels=(v,)),
        "features": Change(features=((v, None),)),
        "edge": Change(edges=((u, v),)),
    }
    wanted: dict[str, dict[str, Any]] = {
        "label": {"label_gone": True},
        "features": {"columns_gone": tuple(range(6))},
        "edge": {"edges_from": (u,)},
    }
    case = make_case(tmp_path, graph, changes[kind], [v])
    now, then = (open_row(content, v, show=FULL) for content in (case.after, case.before))

    good = verdict(case, secret=SECRET, record=Record(v, then, now, **wanted[kind]))
    stale = verdict(case, secret=SECRET, record=Record(v, None, then, **wanted[kind]))
    closed = open_row(case.after, v)
    unopened = verdict(case, secret=SECRET, record=Record(v, None, closed, **wanted[kind]))
    for other in set(wanted) - {kind}:
        other_part = verdict(case, secret=SECRET, record=Record(v, None, now, **wanted[other]))
        assert "UW-V013" in failure(other_part)

    assert good.ok
    assert "is not the one held after" in failure(stale)
    assert "does not show" in failure(unopened)
    assert "is still held" in failure(verdict(case, secret=SECRET, record=Record(v)))
    assert "open the row" in failure(verdict(case, secret=SECRET, record=Record(v, **wanted[kind])))


def _edges(graph: Any) -> list[tuple[int, int]]:
    ids = graph.ids.tolist()
    return [(ids[u], ids[v]) for u, v in zip(graph.src.tolist(), graph.dst.tolist(), strict=True)]


def test_a_node_that_was_not_erased_cannot_be_passed_off_as_gone(tmp_path: Path) -> None:
    """The issuer names a node whose row it kept: its proofs show the row."""
    case = make_case(tmp_path, random_graph(4), Change(nodes=(13,)), [13, 16])

    assert "is still held" in failure(verdict(case, secret=SECRET, record=Record(16)))


def test_a_record_file_is_read_strictly() -> None:
    data = {"id": ["int", "13"], "edges_from": [["int", "16"]], "label_gone": True}

    assert Record.from_json(data) == Record(13, edges_from=(16,), label_gone=True)
    for wrong in ({"id": ["int", "x"]}, {"id": ["float", "1"]}, {"id": []}):
        with pytest.raises(FieldValueError):
            Record.from_json(wrong)
    with pytest.raises(VerificationError):
        Record.from_json({"ident": ["int", "13"]})


# ---- level 2


def test_a_live_submodel_is_called_live(case: Case) -> None:
    report = check_live(case.statement, SECRET, LIVE)

    assert [item.detail for item in report.checks] == ["opens 1 shards", "live"]


def test_changed_weights_and_another_submodel_differ(case: Case) -> None:
    weights = check_live(case.statement, SECRET, {3: ("new-key", "other")})
    other = check_live(case.statement, SECRET, {3: ("other", "other")})
    missing = check_live(case.statement, SECRET, {})

    assert "do not have the certified digest" in failure(weights)
    assert "no later certificate" in failure(other)
    assert "no later certificate" in failure(missing)
    assert "UW-V014" in failure(check_live(case.statement, bytes(32), LIVE))


def test_a_superseded_submodel_is_followed_through_the_chain(case: Case) -> None:
    own = ("cert_1", case.statement["predicate"]["shards"][0])
    second = next_statement(case, "cert_2", 3, previous=own)
    twin = next_statement(case, "cert_2b", 3, previous=own)
    third = next_statement(case, "cert_3", 5, previous=("cert_2b", twin["predicate"]["shards"][0]))
    live: dict[int, tuple[str, str | None]] = {3: ("key 3", "weights 3")}

    one = check_live(case.statement, SECRET, live, [second])
    two = check_live(case.statement, SECRET, live, [third, twin, second])

    assert one.ok and one.checks[-1].detail == "superseded by certificate cert_2"
    assert two.ok and two.checks[-1].detail == "superseded by certificate cert_2 (now: cert_3)"


def test_a_chain_with_a_broken_link_differs(case: Case) -> None:
    entry = case.statement["predicate"]["shards"][0]
    broken = dict(entry, new={"key": "0" * 64, "weights": None})
    live: dict[int, tuple[str, str | None]] = {3: ("key 2", "weights 2")}

    for previous in (None, ("cert_0", entry), ("cert_1", broken)):
        later = next_statement(case, "cert_2", 3, previous=previous)
        assert "differs" in failure(check_live(case.statement, SECRET, live, [later]))


def test_a_replayed_submodel_is_compared_the_same_way(case: Case) -> None:
    made = replace(case.facts.shards[0], new=Submodel("new-key", None))
    silent = statement.build(replace(case.facts, shards=[made]), case.signer)

    assert check_live(silent, SECRET, {3: ("new-key", None)}).ok
    assert not check_live(silent, SECRET, LIVE).ok


# ---- text and program


def test_the_text_says_what_was_done_and_what_is_not_claimed(case: Case) -> None:
    text = describe(case.statement)

    for part in ("cert_1", "req_1", "1 nodes, 2 edges", "Shard 3", "backups/monday", NOT_CLAIMED):
        assert part in text
    assert str(NOON.year) in text


def files(case: Case, folder: Path) -> dict[str, Path]:
    """The certificate and what opens it, as files."""
    content = {
        "cert": case.text,
        "secret": SECRET.hex(),
        "disclosure": json.dumps(disclose(SECRET, "cert_1", 3).to_json()),
        "record": json.dumps({"id": id_to_json(13)}),
    }
    paths = {name: folder / name for name in content}
    for name, text in content.items():
        paths[name].write_text(text)
    return paths | {"key": case.signer.folder / "issuer.pub"}


def test_the_program_checks_files(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = files(case, tmp_path)
    call = [str(paths["cert"]), "--key", str(paths["key"]), "--record", str(paths["record"])]

    assert check.main([*call, "--disclosure", str(paths["disclosure"])]) == 0
    assert check.main([*call, "--secret", str(paths["secret"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ok"]
    assert check.main(call) == 7
    assert check.main([str(tmp_path / "none"), "--key", str(paths["key"])]) == 7
    assert check.main([str(paths["cert"]), "--key", str(paths["record"])]) == 7
    paths["secret"].write_text("xyz")
    assert check.main([*call, "--secret", str(paths["secret"])]) == 7


def test_the_command_prints_the_certificate_and_exits_with_7_on_failure(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = files(case, tmp_path)
    Signer.create(tmp_path / "stranger")

    verify_certificate(paths["cert"], paths["key"], secret=paths["secret"])
    assert "Certificate cert_1" in capsys.readouterr().out
    with pytest.raises(typer.Exit) as caught:
        verify_certificate(paths["cert"], tmp_path / "stranger" / "issuer.pub", as_json=True)
    assert caught.value.exit_code == 7
    assert not json.loads(capsys.readouterr().out)["ok"]
    with pytest.raises(SecretError):
        verify_certificate(paths["cert"], paths["key"], secret=tmp_path / "none")


HEAVY = ("torch", "ray", "numpy", "pandas", "sqlalchemy", "pyarrow", "scipy", "pydantic")


@pytest.mark.parametrize("module", ["coordinator.evidence.check", "coordinator.evidence_cli"])
def test_checking_a_certificate_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print([n for n in {HEAVY!r} if n in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_an_opened_certificate_is_the_statement_that_was_built(case: Case) -> None:
    keys = {case.signer.key_id: case.signer.public_key}

    assert open_certificate(case.text.encode(), keys) == case.statement

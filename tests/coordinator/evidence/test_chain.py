from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import VerificationError
from coordinator.evidence import errors
from coordinator.evidence.chain import (
    GENESIS,
    check_chain,
    export_log,
    import_log,
    require_chain,
    require_heads,
    require_inclusion,
    row_hash,
    sign_head,
)
from coordinator.evidence.keys import Signer
from coordinator.evidence_cli import verify_log
from tests.coordinator.evidence.cases import NOON

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Log:
    rows: Rows
    heads: list[str]
    signer: Signer

    @property
    def keys(self) -> dict[str, Any]:
        return {self.signer.key_id: self.signer.public_key}


def chained(details: list[Any]) -> Rows:
    """Rows with these details, hashed as the ledger does."""
    rows: Rows = []
    previous = GENESIS
    for seq, detail in enumerate(details, start=1):
        row = {"seq": seq, "at": "2026-11-23T12:00:00Z", "action": "accept", "detail": detail}
        previous = row_hash(previous, row)
        rows.append(row | {"hash": previous})
    return rows


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Six rows, heads at 3 and 6."""
    signer = Signer.create(tmp_path_factory.mktemp("keys"))
    rows = chained([{"n": n} for n in range(6)])
    heads = [
        sign_head("log-1", seq, rows[seq - 1]["hash"], NOON + timedelta(days=seq), signer)
        for seq in (3, 6)
    ]
    return Log(rows, heads, signer)


def copy(rows: Rows) -> Rows:
    copied: Rows = json.loads(json.dumps(rows))
    return copied


def renumber(rows: Rows) -> Rows:
    return [row | {"seq": seq} for seq, row in enumerate(rows, start=1)]


def test_an_untouched_log_passes(log: Log) -> None:
    report = check_chain(log.rows, log.heads, log.keys, "log-1")

    assert report.ok
    assert report.checks[1].detail == "2 heads, the last at row 6 of 6"


def test_a_log_without_heads_says_what_it_cannot_show(log: Log) -> None:
    report = check_chain(log.rows[:4], [], log.keys)

    assert report.ok and "would not be noticed" in report.checks[1].detail


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda r: r[2]["detail"].update(n=9), errors.LogRowError, "row 3"),
        (lambda r: r[2].update(hash="0" * 64), errors.LogRowError, "row 3"),
        (lambda r: r[2].update(more=1), errors.LogRowError, "row 3"),
        (lambda r: r.pop(2), errors.LogDroppedError, "row 3"),
        (lambda r: r.pop(0), errors.LogDroppedError, "row 1"),
        (lambda r: r.insert(3, dict(r[2])), errors.LogInsertedError, "row 3"),
        (lambda r: r.insert(3, r[2] | {"detail": 1}), errors.LogInsertedError, "row 3"),
        (lambda r: r.reverse(), errors.LogOrderError, "row 6"),
        (lambda r: r.insert(1, r.pop(3)), errors.LogOrderError, "row 4"),
        (lambda r: r[2].update(seq="3"), errors.FieldValueError, "seq"),
        (lambda r: r[2].update(hash="xyz"), errors.FieldValueError, "hash"),
        (lambda r: r[2].pop("hash"), errors.FieldValueError, "hash"),
    ],
)
def test_every_way_to_change_a_log_has_its_error(
    log: Log, change: Callable[[Rows], Any], error: type[VerificationError], message: str
) -> None:
    rows = copy(log.rows)
    change(rows)

    with pytest.raises(error, match=message):
        require_chain(rows)
    assert not check_chain(rows, log.heads, log.keys).ok


def test_renumbering_does_not_hide_a_dropped_or_an_inserted_row(log: Log) -> None:
    dropped = renumber(copy(log.rows)[:2] + copy(log.rows)[3:])
    inserted = renumber([*copy(log.rows)[:2], copy(log.rows)[0], *copy(log.rows)[2:]])

    for rows in (dropped, inserted):
        with pytest.raises(errors.LogRowError, match="row 3"):
            require_chain(rows)


def test_a_log_that_was_cut_or_written_anew_does_not_fit_its_heads(log: Log) -> None:
    with pytest.raises(errors.LogTruncatedError, match="ends at 5"):
        require_heads(log.rows[:5], log.heads, log.keys)
    with pytest.raises(errors.LogHeadError, match="written anew"):
        require_heads(chained([0] * 6), log.heads, log.keys)


def test_a_forged_head_is_refused(log: Log, tmp_path: Path) -> None:
    stranger = Signer.create(tmp_path)
    forged = sign_head("log-1", 6, log.rows[5]["hash"], NOON, stranger)
    other = sign_head("log-2", 6, log.rows[5]["hash"], NOON, log.signer)
    negative = sign_head("log-1", -1, GENESIS, NOON, log.signer)

    for heads, error in (
        ([forged], errors.UnknownKeyError),
        ([log.heads[0], other], errors.LogHeadError),
        (log.heads[::-1], errors.LogHeadError),
        ([negative], errors.LogHeadError),
    ):
        with pytest.raises(error):
            require_heads(log.rows, heads, log.keys)
    with pytest.raises(errors.LogHeadError, match="log-1"):
        require_heads(log.rows, log.heads, log.keys, "log-9")


def test_an_empty_log_has_a_head(log: Log) -> None:
    head = sign_head("log-1", 0, GENESIS, NOON, log.signer)

    assert require_heads([], [head], log.keys) == 0


def test_the_head_that_a_certificate_names_is_looked_up(log: Log) -> None:
    require_inclusion(log.rows, 4, log.rows[3]["hash"])

    with pytest.raises(errors.LogHeadError):
        require_inclusion(log.rows, 4, log.rows[4]["hash"])
    with pytest.raises(errors.LogTruncatedError):
        require_inclusion(log.rows, 7, log.rows[5]["hash"])


@given(st.lists(st.dictionaries(st.text(), st.integers(0, 9) | st.text()), max_size=5))
def test_a_log_is_exported_and_imported_unchanged(details: list[dict[str, Any]]) -> None:
    rows = chained(details)

    lines = [line.encode() for line in export_log(rows, [])]

    assert import_log(b"".join(lines).splitlines(keepends=True)) == (rows, [])


def test_every_flipped_byte_of_an_exported_log_is_an_error_of_its_own(log: Log) -> None:
    raw = "".join(export_log(log.rows, log.heads)).encode()
    kinds = set()

    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(VerificationError) as caught:
            rows, heads = import_log(bytes(flipped).splitlines(keepends=True))
            require_chain(rows)
            require_heads(rows, heads, log.keys)
        kinds.add(type(caught.value))

    assert VerificationError not in kinds
    assert kinds >= {errors.LogRowError, errors.JsonError, errors.SignatureError}


def test_every_flipped_byte_of_a_signed_head_is_noticed(log: Log) -> None:
    raw = log.heads[1].encode()

    for position in range(len(raw)):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << (position + 3) % 8
        with pytest.raises(VerificationError):
            require_heads(log.rows, [bytes(flipped)], log.keys)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([b'{"row":{}}'], errors.LogTruncatedError),
        ([b'{"row": {}}\n'], errors.CanonicalError),
        ([b'{"line":{}}\n'], errors.UnknownFieldError),
        ([b'{"row":1}\n'], errors.FieldValueError),
        ([b'{"head":{}}\n', b'{"row":{}}\n'], errors.LogOrderError),
        ([b"\n"], errors.JsonError),
    ],
)
def test_a_malformed_line_is_told(lines: list[bytes], error: type[VerificationError]) -> None:
    with pytest.raises(error, match="line"):
        import_log(lines)


def test_the_command_checks_an_exported_log(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, key = tmp_path / "log.jsonl", log.signer.folder / "issuer.pub"
    path.write_text("".join(export_log(log.rows, log.heads)))

    verify_log(path, key, as_json=True)
    assert json.loads(capsys.readouterr().out)["ok"]

    path.write_text("".join(export_log(log.rows[:-1], log.heads)))
    with pytest.raises(typer.Exit) as caught:
        verify_log(path, key)
    assert caught.value.exit_code == 7
    assert "FAIL signed heads: UW-V021" in capsys.readouterr().out

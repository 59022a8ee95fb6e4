"""What a ledger promises, whatever database it lies in."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cluster.errors import DuplicateError, HomeError, TransitionError
from coordinator.evidence.chain import GENESIS, row_hash
from coordinator.ledger import Ledger
from coordinator.ledger.backup_table import Backup
from coordinator.ledger.batch_table import Batch
from coordinator.ledger.tables import metadata
from coordinator.requests.record import RequestRecord
from coordinator.requests.states import State
from tests.coordinator.ledger.conftest import Open
from tests.coordinator.ledger.records import NOW, PAYLOAD, SECRET_ID, add, event, record

# ---- requests


def test_a_request_comes_back_as_it_was_added_also_after_opening_again(
    ledger: Ledger, opened: Open
) -> None:
    full = record(
        submitted_at=NOW - timedelta(days=1),
        not_before=NOW + timedelta(microseconds=1),
        external_request_id="case-7",
        idempotency_key="key-7",
        epoch=12,
        receipt={"request_id": "x", "breakdown": {"train": 0.25}},
        unknown=2,
        serving_policy="exclude",
    )
    add(ledger, full, record(1))
    ledger.close()

    again = opened()

    assert again.requests.get(full.request_id) == full
    assert again.requests.get("req_nothing") is None
    assert RequestRecord.from_json(full.to_json()) == full


def test_requests_are_found_by_what_is_asked_in_the_order_of_their_ids(ledger: Ledger) -> None:
    a, b = record(0, batch_id="b1"), record(1, external_request_id="case-1", parent_id="req_p")
    c = record(2, state=State.ON_HOLD, due_at=NOW, idempotency_key="k")
    add(ledger, c, a, b)
    find = ledger.requests.find

    assert find() == [a, b, c]
    assert find(state=State.ACCEPTED) == [a, b]
    assert find(state=[State.ON_HOLD, State.ACCEPTED], limit=2) == [a, b]
    assert find(after=a.request_id) == [b, c]
    assert find(due_before=NOW + timedelta(hours=1)) == [c]
    assert find(batch_id="b1") == [a]
    assert find(external_request_id="case-1") == [b]
    assert find(idempotency_key="k") == [c]
    assert find(parent_id="req_p", state=State.COMPLETED) == []
    assert ledger.requests.counts() == {"accepted": 2, "on_hold": 1}


def test_a_change_is_kept_with_its_event_and_every_event_is_numbered(ledger: Ledger) -> None:
    before = record()
    add(ledger, before)
    after = replace(before, state=State.SCHEDULED, batch_id="b1", reason="window")
    last = replace(after, state=State.RUNNING, started_at=NOW)

    with ledger.write() as tx:
        ledger.requests.change(tx, before, after, event(after, "schedule", "2 shards"))
    with ledger.write() as tx:
        ledger.requests.change_many(tx, [(after, last)], "start", "batch b1", by="me", at=NOW)

    assert ledger.requests.get(before.request_id) == last
    events = ledger.requests.events(before.request_id)
    assert [(e.seq, e.action, e.state) for e in events] == [
        (1, "accept", State.ACCEPTED),
        (2, "schedule", State.SCHEDULED),
        (3, "start", State.RUNNING),
    ]
    assert (events[1].detail, events[1].by, events[2].by) == ("2 shards", "bob", "me")
    assert ledger.requests.events(before.request_id, after_seq=2) == events[2:]


@pytest.mark.parametrize(
    "meanwhile", [{"state": State.CANCELLED}, {"reason": "another"}], ids=["state", "field"]
)
def test_a_change_of_a_request_that_moved_meanwhile_is_refused_whole(
    meanwhile: dict[str, Any], ledger: Ledger
) -> None:
    one, two = record(), record(1)
    add(ledger, one, two)
    moved = replace(two, **meanwhile)
    with ledger.write() as tx:
        ledger.requests.change(tx, two, moved, event(moved))

    pairs = [(r, replace(r, state=State.SCHEDULED, reason="window")) for r in (one, two)]
    with pytest.raises(TransitionError, match="changed meanwhile"), ledger.write() as tx:
        ledger.requests.change_many(tx, pairs, "schedule")

    assert ledger.requests.get(one.request_id) == one
    assert ledger.requests.get(two.request_id) == moved
    assert len(ledger.requests.events(one.request_id)) == 1


def test_many_requests_that_change_to_different_values_are_each_changed(ledger: Ledger) -> None:
    records = [record(i) for i in range(600)]
    add(ledger, *records)
    pairs = [
        (r, replace(r, state=State.SCHEDULED, batch_id=f"b{i % 3}")) for i, r in enumerate(records)
    ]

    with ledger.write() as tx:
        ledger.requests.change_many(tx, pairs, "schedule")

    assert ledger.requests.find() == [after for _, after in pairs]


def test_an_idempotency_key_is_used_once_and_a_refused_commit_adds_nothing(ledger: Ledger) -> None:
    first = record(idempotency_key="k")
    add(ledger, first)

    with pytest.raises(DuplicateError, match=r"\['k'\]"):
        add(ledger, record(1), record(2, idempotency_key="k"))

    assert ledger.requests.find() == [first]
    assert len(ledger.requests.payloads([first.request_id])) == 1


# ---- payloads


def test_a_payload_lives_until_it_is_destroyed_and_its_key_until_the_last_of_its_commit(
    ledger: Ledger, home: Path
) -> None:
    one, two, other = record(), record(1), record(2)
    add(ledger, one, two)
    add(ledger, other)
    keys = home / "keys" / "payload"
    assert ledger.requests.payload(one.request_id) == PAYLOAD
    assert len(list(keys.iterdir())) == 2
    assert {path.stat().st_mode & 0o777 for path in keys.iterdir()} == {0o600}

    with ledger.write() as tx:
        ledger.requests.destroy_payloads(tx, [one.request_id])
    assert ledger.requests.payload(one.request_id) is None
    assert ledger.requests.payload(two.request_id) == PAYLOAD
    assert len(list(keys.iterdir())) == 2
    with ledger.write() as tx:
        ledger.requests.destroy_payloads(tx, [two.request_id])

    assert len(list(keys.iterdir())) == 1
    assert ledger.requests.payload(other.request_id) == PAYLOAD


def test_a_destruction_that_is_rolled_back_destroys_nothing(ledger: Ledger) -> None:
    one = record()
    add(ledger, one)

    with pytest.raises(KeyboardInterrupt), ledger.write() as tx:
        ledger.requests.destroy_payloads(tx, [one.request_id])
        raise KeyboardInterrupt

    assert ledger.requests.payload(one.request_id) == PAYLOAD


def test_keys_that_no_request_needs_go_when_the_lease_is_taken(
    ledger: Ledger, opened: Open
) -> None:
    one = record()
    add(ledger, one)
    with pytest.raises(KeyboardInterrupt), ledger.write() as tx:
        ledger.requests.add(tx, [record(1)], {}, {})
        ledger.vault.new_key()
        raise KeyboardInterrupt
    assert len(ledger.vault.names()) == 2
    ledger.close()

    again = opened()
    again.acquire()

    assert len(again.vault.names()) == 1
    assert again.requests.payload(one.request_id) == PAYLOAD


def test_a_missing_or_wrong_payload_key_is_named(ledger: Ledger, home: Path) -> None:
    one = record()
    add(ledger, one)
    (path,) = (home / "keys" / "payload").iterdir()
    path.write_bytes(os.urandom(32))

    with pytest.raises(HomeError, match="does not open with its key"):
        ledger.requests.payload(one.request_id)
    path.unlink()
    with pytest.raises(HomeError, match=f"{path.name} cannot be read"):
        ledger.requests.payload(one.request_id)


def test_no_external_id_stands_in_clear_in_the_database(
    ledger: Ledger, home: Path, database: str
) -> None:
    one = record()
    add(ledger, one)

    assert ledger.requests.payload(one.request_id) == PAYLOAD
    held = b"".join(_everything(ledger, home))
    assert one.request_id.encode() in held
    assert SECRET_ID.encode() not in held
    assert SECRET_ID[:8].encode() not in held


def _everything(ledger: Ledger, home: Path) -> Iterator[bytes]:
    """Raw bytes of the database's files, and every column of every row."""
    for path in home.glob("ledger.db*"):
        yield path.read_bytes()
    with ledger.read() as tx:
        for table in metadata.tables.values():
            for row in tx.execute(text(f"SELECT * FROM {table.name}")):
                for value in row:
                    yield value if isinstance(value, bytes) else str(value).encode()


def test_another_home_key_is_refused(ledger: Ledger, opened: Open, home: Path) -> None:
    ledger.close()
    path = home / "keys" / "home.key"
    path.write_bytes(os.urandom(32))

    with pytest.raises(HomeError, match="is not the key of the ledger"):
        opened()
    path.write_bytes(b"short")
    with pytest.raises(HomeError, match="holds 5 bytes"):
        opened()
    path.unlink()
    with pytest.raises(HomeError, match=r"home\.key cannot be read"):
        opened()


# ---- tombstones


def test_tombstones_belong_to_requests_and_the_first_request_is_named(ledger: Ledger) -> None:
    first, second, third = record(), record(1, state=State.UNLEARNED), record(2)
    a, b = ledger.mark("node", b"a"), ledger.mark("edge", b"a", b"b")
    with ledger.write() as tx:
        ledger.requests.add(
            tx,
            [third, second, first],
            {},
            {
                third.request_id: {a: "node", b: "edge"},
                second.request_id: {a: "node"},
                first.request_id: {a: "node"},
            },
        )

    assert ledger.erased_by([a, b, b"other"]) == {a: first.request_id, b: third.request_id}
    assert ledger.erased_by([a, b], unlearned_only=True) == {a: second.request_id}
    assert ledger.tombstone_kinds() == {"node", "edge"}
    with ledger.write() as tx:
        ledger.remove_of(tx, third.request_id)
        ledger.remove_of(tx, first.request_id)
    assert ledger.erased_by([a, b]) == {a: second.request_id}


# ---- audit log


def test_the_audit_log_is_a_chain_that_any_reader_can_hash_again(ledger: Ledger) -> None:
    assert ledger.audit.head() == (0, GENESIS)
    for number in range(3):
        with ledger.write() as tx:
            seq = ledger.audit.append(tx, "accept", "ada", f"req_{number}", {"n": number}, at=NOW)
    with ledger.write() as tx:
        ledger.audit.add_signed_head(tx, "envelope")

    rows = list(ledger.audit.rows())

    assert seq == 3
    assert [row.seq for row in rows] == [1, 2, 3]
    previous = GENESIS
    for row in rows:
        assert row.hash == row_hash(previous, row.content())
        previous = row.hash
    assert ledger.audit.head() == (3, previous)
    assert list(ledger.audit.rows(after=2)) == rows[2:]
    assert ledger.audit.signed_heads() == {3: "envelope"}


def test_a_row_of_the_log_that_is_rolled_back_leaves_no_gap(ledger: Ledger) -> None:
    with pytest.raises(KeyboardInterrupt), ledger.write() as tx:
        ledger.audit.append(tx, "lost")
        raise KeyboardInterrupt

    with ledger.write() as tx:
        assert ledger.audit.append(tx, "kept") == 1


# ---- epochs, settings, artefacts, generations


def test_epochs_count_up_by_one_and_a_rollback_takes_none(ledger: Ledger) -> None:
    assert ledger.epoch() == 0
    with ledger.write() as tx:
        assert [ledger.next_epoch(tx), ledger.next_epoch(tx)] == [1, 2]
    with pytest.raises(KeyboardInterrupt), ledger.write() as tx:
        ledger.next_epoch(tx)
        raise KeyboardInterrupt

    assert ledger.epoch() == 2


def test_settings_and_artefacts_are_kept(ledger: Ledger) -> None:
    ledger.set_settings({"a": "1", "b": "2"})
    ledger.set_settings({"a": "3"})
    items = {("content", f"{i:064}") for i in range(700)}
    ledger.register(items, 1)
    ledger.register([*items][:3], 2)

    ledger.unregister([("content", f"{i:064}") for i in range(1, 700)])

    assert (ledger.setting("a"), ledger.setting("b"), ledger.setting("c")) == ("3", "2", "")
    assert ledger.registered() == {("content", "0" * 64)}
    ledger.register([], 1)
    ledger.unregister([])


def test_a_generation_is_published_with_what_belongs_to_it_or_not_at_all(ledger: Ledger) -> None:
    ledger.publish(1, {"epoch": 0})
    one = record()
    add(ledger, one)
    after = replace(one, state=State.UNLEARNED)

    with pytest.raises(KeyboardInterrupt), ledger.write() as tx:
        ledger.publish(2, {"epoch": 1}, tx)
        ledger.requests.change(tx, one, after, event(after))
        raise KeyboardInterrupt
    assert ledger.current_generation() == (1, {"epoch": 0})
    with ledger.write() as tx:
        ledger.publish(2, {"epoch": 1}, tx)
        ledger.requests.change(tx, one, after, event(after))

    assert ledger.current_generation() == (2, {"epoch": 1})
    assert ledger.requests.get(one.request_id) == after
    with pytest.raises(HomeError, match="published by another process"):
        ledger.publish(2, {})


# ---- certificates, batches, backups


def test_certificates_are_found_by_request_and_by_shard(ledger: Ledger) -> None:
    for number, (request, shards) in enumerate([("r1", [0, 1]), ("r2", [1]), ("r1", [2])]):
        with ledger.write() as tx:
            ledger.certificates.add(
                tx, f"cert_{number}", request, "b", f"{{{number}}}", b"leaf key", shards=shards
            )
    table = ledger.certificates

    first = table.get("cert_0")
    assert first is not None
    assert (first.envelope, first.secret, first.batch_id) == ("{0}", b"leaf key", "b")
    last = table.of_request("r1")
    assert last is not None
    assert last.certificate_id == "cert_2"
    assert [c.certificate_id for c in table.list()] == ["cert_0", "cert_1", "cert_2"]
    assert [c.certificate_id for c in table.list(after="cert_0", limit=1)] == ["cert_1"]
    assert [table.latest_of_shard(shard) for shard in range(4)] == [
        "cert_0",
        "cert_1",
        "cert_2",
        None,
    ]
    assert table.latest_of_shard(1, before="cert_1") == "cert_0"
    assert (table.get("x"), table.of_request("x")) == (None, None)


def test_a_list_of_batches_needs_no_key_that_may_go_meanwhile(ledger: Ledger) -> None:
    batch = Batch("b1", "open", (3,), 1, NOW, ledger.lease.fence, {"shard": 3})
    with ledger.write() as tx:
        ledger.batches.add(tx, batch)

    ledger.vault.destroy(ledger.vault.names())  # as when a batch ends between a row and its key

    assert ledger.batches.list() == [replace(batch, evidence=None)]
    with pytest.raises(HomeError, match="cannot be read"):
        ledger.batches.get("b1")


def test_a_batch_keeps_its_evidence_until_it_is_destroyed(ledger: Ledger) -> None:
    batch = Batch("b1", "running", (0, 3), 2, NOW, 1)
    with ledger.write() as tx:
        ledger.batches.add(tx, batch)
    with ledger.write() as tx:
        ledger.batches.change(tx, "b1", "verifying", evidence={"shard": 3}, shards=[3])
    changed = replace(batch, state="verifying", evidence={"shard": 3}, shards=(3,))

    assert ledger.batches.get("b1") == changed
    assert ledger.batches.list(state="verifying") == [replace(changed, evidence=None)]
    assert ledger.batches.list(state="running") == []
    with ledger.write() as tx:
        ledger.batches.change(tx, "b1", "completed")
        ledger.batches.destroy_evidence(tx, "b1")
    assert ledger.batches.get("b1") == replace(changed, state="completed", evidence=None)


def test_backups_are_listed_until_they_are_removed(ledger: Ledger) -> None:
    day = timedelta(days=1)
    week = Backup("weekly", "/b/weekly", NOW, NOW + 7 * day, 3)
    keep = Backup("forever", "/b/forever", NOW + day, None, 5)
    with ledger.write() as tx:
        ledger.backups.add(tx, week)
        ledger.backups.add(tx, keep)

    assert ledger.backups.list() == [week, keep]
    assert ledger.backups.list(expired_at=NOW + 8 * day) == [week]
    assert ledger.backups.holding(4, NOW) == [week]
    assert ledger.backups.holding(6, NOW + 8 * day) == [keep]
    with pytest.raises(HomeError, match="another name"), ledger.write() as tx:
        ledger.backups.add(tx, replace(week, path="/else"))
    with ledger.write() as tx:
        ledger.backups.remove(tx, "weekly")
    assert ledger.backups.list() == [keep]


# ---- threads


def test_two_threads_that_write_at_once_both_get_through(ledger: Ledger) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def count(number: int) -> int:
        with ledger.write() as tx:
            ledger.audit.append(tx, "count")
            return ledger.next_epoch(tx)

    with ThreadPoolExecutor(4) as threads:
        epochs = list(threads.map(count, range(40)))

    assert sorted(epochs) == list(range(1, 41))
    assert all(b.seq == a.seq + 1 for a, b in itertools.pairwise(ledger.audit.rows()))

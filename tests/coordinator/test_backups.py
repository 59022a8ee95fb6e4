"""Backups, their end, and restores that never bring back what was erased."""

from __future__ import annotations

import gc
import json
import sqlite3
import weakref
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster.errors import (
    ConfigError,
    HomeError,
    RearrivalError,
    StalePlanError,
    VerificationError,
)
from cluster.files import stray_files
from coordinator.cli import app
from coordinator.engine import PENDING_CONFIG, Engine
from coordinator.erasure import Erasure
from coordinator.people import kept_map
from coordinator.requests.states import State
from coordinator.restore import Restored, export_tombstones, restore
from coordinator.selectors.rules import SubjectRules, load_rules
from coordinator.selectors.selector import Subject
from coordinator.selectors.subjects import SubjectMap
from coordinator.system import System
from tests.coordinator.bytesearch import Planted, search_tree
from tests.coordinator.clock import Clock
from tests.coordinator.systems import (
    Records,
    Workbench,
    assert_same,
    kept_partition,
    planted,
    summary,
    training_ids,
)
from tests.coordinator.test_asking import ROWS, RULES, households

WINDOWS = {"erasure.cancel_window": "24h", "erasure.batch_window": "6h"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records() -> Records:
    return planted(10, prefix="zanzibar-")


@pytest.fixture
def system(bench: Workbench, records: Records, clock: Clock) -> System:
    return bench.fit(records, WINDOWS, clock=clock)


def names(system: System) -> list[str]:
    return [backup.name for backup in system.backups()]


def residuals(system: System, request_id: str) -> list[tuple[str, str, datetime]]:
    """Kind, name and end of what a certificate says is left."""
    certificate = system.request(request_id).certificate
    assert certificate is not None
    items = certificate.statement["predicate"]["residuals"]
    return [(i["kind"], i["where"], datetime.fromisoformat(i["expires_at"])) for i in items]


def restored(bench: Workbench, clock: Clock, home: Path, backup: Any, **options: Any) -> Restored:
    return restore(home, backup, pool=bench.pool, clock=clock, **options)


# ---- copies


def test_a_backup_is_listed_and_destroyed_when_its_time_is_over(
    system: System, bench: Workbench, clock: Clock
) -> None:
    made = system.backup("monday")

    assert (names(system), made.expires_at) == (["monday"], clock.now + timedelta(days=7))
    assert (system.home / made.path / "backup.json").exists()
    assert system.verify().ok
    clock.forward(days=6)
    system.engine.purge()
    assert names(system) == ["monday"]
    clock.forward(days=1)
    system.engine.purge()

    assert names(system) == []
    assert list((system.home / "backups").iterdir()) == []


def test_a_backup_that_ran_out_while_nobody_looked_goes_when_the_home_is_opened(
    system: System, bench: Workbench, clock: Clock
) -> None:
    system.backup("monday")
    system.close()
    clock.forward(days=8)

    again = bench.open(system.home, clock=clock)

    assert names(again) == []
    assert not (again.home / "backups" / "monday").exists()


def test_a_backup_that_was_interrupted_is_destroyed(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CrashError(Exception):
        pass

    def crash(*arguments: Any) -> None:
        raise CrashError

    monkeypatch.setattr("coordinator.backups._copy_ledger", crash)
    with pytest.raises(CrashError):
        system.backup("half")
    assert names(system) == ["half"]

    system.engine.purge()

    assert names(system) == []
    assert not (system.home / "backups" / "half").exists()


def test_a_backup_without_room_leaves_nothing(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coordinator.backups.shutil.copyfile", full)

    with pytest.raises(HomeError, match="No space left"):
        system.backup("big")

    assert names(system) == []
    assert not (system.home / "backups" / "big").exists()


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "x" * 65, "a b"])
def test_a_backup_s_name_is_that_of_a_folder(system: System, name: str) -> None:
    with pytest.raises(ConfigError, match="backup name"):
        system.backup(name)


def test_a_name_that_is_taken_is_refused_and_an_unknown_one_cannot_be_removed(
    system: System,
) -> None:
    system.backup("a")
    with pytest.raises(HomeError, match="there is a backup 'a'"):
        system.backup("a")
    with pytest.raises(HomeError, match=r"no backup 'b'; it has \['a'\]"):
        system.remove_backup("b")

    system.remove_backup("a")

    assert names(system) == []


def test_a_copy_holds_no_payload_and_no_key_of_one(system: System, clock: Clock) -> None:
    request = system.submit(Erasure(nodes=training_ids(system)[:1]))
    made = system.backup("a")
    folder = system.home / made.path

    with sqlite3.connect(folder / "ledger.db") as copy:
        rows = copy.execute("SELECT request_id, payload, vault_key FROM requests").fetchall()
        assert copy.execute("SELECT count(*) FROM tombstones").fetchone() == (1,)
    copy.close()
    assert rows == [(request.request_id, None, None)]
    assert [path.name for path in (folder / "keys").iterdir()] == ["home.key"]
    assert {p.stat().st_mode & 0o77 for p in folder.rglob("*") if p.parent == folder} <= {0, 0o55}


def test_certificates_list_the_backups_that_hold_a_record(system: System, clock: Clock) -> None:
    first, second, third = training_ids(system)[:3]
    waiting = system.submit(Erasure(nodes=[first]))
    before = system.erase(Erasure(nodes=[second]))  # overtakes it
    made = system.backup("between")
    after = system.erase(Erasure(nodes=[third]))
    clock.forward(hours=31)
    system.run()

    assert residuals(system, before.request_id) == []
    listed = [("backup", "between", made.expires_at)]
    assert residuals(system, after.request_id) == residuals(system, waiting.request_id) == listed


def test_a_backup_that_is_over_is_destroyed_before_a_certificate_is_issued(
    system: System, clock: Clock
) -> None:
    system.backup("old")
    clock.forward(days=7)

    receipt = system.erase(Erasure(nodes=training_ids(system)[:1]))

    assert residuals(system, receipt.request_id) == []
    assert system.backups() == []


# ---- restore in place


def test_a_restore_replays_what_was_erased_since_and_keeps_what_may_be_cancelled(
    system: System, bench: Workbench, clock: Clock, records: Records
) -> None:
    gone, begun, held, waiting = training_ids(system)[:4]
    system.backup("a")
    on_hold = system.submit(Erasure(nodes=[held]))
    on_hold.hold(by="law", reason="claim")
    overdue = system.submit(Erasure(nodes=[begun]))
    clock.forward(hours=25)
    request = system.submit(Erasure(nodes=[waiting]))
    system.erase(Erasure(nodes=[gone]))
    number, partition = system.generation.number, system.partition
    system.close()

    done = restored(bench, clock, system.home, "a")

    assert (done.generation, done.nodes_kept_out) == (number + 1, 2)
    again = bench.open(system.home, clock=clock)
    survivors = records.without(Erasure(nodes=[gone, begun]))
    fresh = bench.fit(survivors, WINDOWS, partition=kept_partition(partition, survivors))
    assert_same(summary(again), summary(fresh))
    assert not any(again.graph.has_node(i) for i in (gone, begun, held, waiting))
    assert again.request(request.request_id).cancel(by="ada").state == State.CANCELLED
    assert again.graph.has_node(waiting)
    clock.forward(hours=7)
    again.run()
    assert again.request(overdue.request_id).state == State.COMPLETED
    assert again.request(on_hold.request_id).state == State.ON_HOLD
    assert again.verify("all").ok


def test_a_restore_leaves_to_a_person_what_they_share_with_one_who_goes(
    bench: Workbench, clock: Clock
) -> None:
    system = bench.fit(households(), WINDOWS, clock=clock)
    system.set_subjects(SubjectMap.from_rows(ROWS, system.graph), load_rules(RULES))
    system.backup("monday")
    first = system.submit(Subject("ada"))
    second = system.submit(Subject("bob"), priority="urgent")  # not run yet; names dev-2, as last
    system.close()

    restored(bench, clock, system.home, "monday")

    opened = bench.open(system.home, clock=clock)
    opened.request(first.request_id).cancel(by="ada")
    opened.run()
    assert opened.request(second.request_id).state == State.COMPLETED
    assert opened.graph.has_node("dev-2") and not opened.graph.has_node("acc-bob")


def test_a_restore_trains_only_what_newer_erasures_moved(
    system: System, bench: Workbench, clock: Clock
) -> None:
    system.backup("a")
    receipt = system.erase(Erasure(nodes=training_ids(system)[:1]))
    before = summary(system)
    system.close()

    restored(bench, clock, system.home, "a")

    again = bench.open(system.home, clock=clock)
    assert_same(summary(again), before)
    assert again.generation.retrained == ()
    assert receipt.shards_retrained


def test_a_restore_repairs_a_home_whose_graph_is_damaged(
    system: System, bench: Workbench, clock: Clock
) -> None:
    system.backup("a")
    before = summary(system)
    system.close()
    for path in (system.home / "objects" / "segment").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(Exception, match="cannot be read"):
        bench.open(system.home, clock=clock)

    restored(bench, clock, system.home, "a")

    assert_same(summary(bench.open(system.home, clock=clock)), before)


def test_rolling_back_builds_the_surviving_graph_under_the_older_configuration(
    system: System, bench: Workbench, clock: Clock, records: Records
) -> None:
    gone = Erasure(nodes=training_ids(system)[:1])
    partition = system.partition
    system.backup("old")
    system.close()
    newer = {**yaml.safe_load((system.home / "config.yaml").read_text())}
    newer["shards"]["training_epochs"] = 2
    restored(bench, clock, system.home, "old", config=newer)
    changed = bench.open(system.home, clock=clock)
    assert changed.config.shards.training_epochs == 2
    changed.erase(gone)
    changed.close()

    restored(bench, clock, system.home, "old", config="backup")

    again = bench.open(system.home, clock=clock)
    survivors = records.without(gone)
    fresh = bench.fit(survivors, WINDOWS, partition=kept_partition(partition, survivors))
    assert_same(summary(again), summary(fresh))
    assert again.config.shards.training_epochs == 5
    assert again.engine.ledger.setting(PENDING_CONFIG) == ""


def test_a_restore_that_dies_after_publication_leaves_the_configuration_to_the_next_opening(
    system: System, bench: Workbench, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.backup("old")
    newer = system.config.model_dump()
    newer["shards"]["training_epochs"] = 2
    system.close()
    settled = Engine._settled
    monkeypatch.setattr(Engine, "_settled", lambda self, config: settled(self, config)
                        if not hasattr(self, "live") else 1 / 0)  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        restored(bench, clock, system.home, "old", config=newer)
    assert "training_epochs: 5" in (system.home / "config.yaml").read_text()

    again = bench.open(system.home, clock=clock)

    assert again.config.shards.training_epochs == 2
    assert "training_epochs: 2" in (system.home / "config.yaml").read_text()
    assert again.verify("all").ok


# ---- people


LOOSE = SubjectRules(max_nodes=7)


def map_people(system: System) -> list[str]:
    """Give six people two training nodes each; the second node of each is the next one's too."""
    nodes = training_ids(system)
    people = [f"person-{number}" for number in range(6)]
    rows: list[Any] = [(name, nodes[at], "owner") for at, name in enumerate(people)]
    rows += [(name, nodes[at + 1], "owner") for at, name in enumerate(people)]
    system.set_subjects(SubjectMap.from_rows(rows, system.graph), LOOSE)
    return people


def mapped(system: System) -> list[str]:
    """People of the stored map, which names no node that the graph is without."""
    assert system.subjects is not None
    assert system.engine.people.absent_nodes(system.subjects) == []
    assert kept_map(system.engine.ledger) <= set(system.engine.store.keys())
    found: list[str] = system.subjects.subjects.tolist()
    return found


def holding(folder: Path, names: Iterable[str]) -> dict[str, set[str]]:
    """File below a folder -> which of these people are in it, for files with any."""
    return search_tree(folder, Planted({name: (name.encode(),) for name in names}))


def reasons(system: System, request_id: str) -> list[str]:
    certificate = system.request(request_id).certificate
    assert certificate is not None
    return [item["reason"] for item in certificate.statement["predicate"]["residuals"]]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in place", "new home"])
def test_a_restored_map_is_without_the_people_and_nodes_forgotten_since(
    elsewhere: bool, system: System, bench: Workbench, clock: Clock, tmp_path: Path
) -> None:
    people = map_people(system)
    ada, bob, eve, *others = people
    nodes = training_ids(system)
    plain = nodes[4]  # one of the nodes of the fourth and fifth
    home = system.home
    system.backup("a")
    assert holding(home / "backups" / "a", [ada])
    overdue = system.submit(Subject(bob))
    clock.forward(hours=25)
    waiting = system.submit(Subject(eve))
    system.erase(Subject(ada))
    system.erase(Erasure(nodes=[plain]))
    system.close()

    target = tmp_path / "new" if elsewhere else home
    restored(bench, clock, home, "a", to=target if elsewhere else None)

    again = bench.open(target, clock=clock)
    # the fourth's nodes were eve's or went; in place the overdue wait for their batch, masked
    left = others[1:] if elsewhere else [bob, eve, *others]
    gone = (nodes[0], nodes[1], plain) if elsewhere else (nodes[0], plain)
    assert mapped(again) == left
    assert again.subject_rules == LOOSE
    assert again.subjects is not None
    assert plain not in again.subjects.nodes.tolist()
    assert not any(again.engine.live.graph.has_node(i) for i in gone)
    erased = {*(set(people) - set(left)), *map(str, gone)}
    assert holding(home / "backups" / "a", erased)
    found = holding(target, erased)
    assert all(Path(path).is_relative_to(home / "backups") for path in found)
    assert again.verify().ok
    if not elsewhere:
        assert again.request(waiting.request_id).cancel(by="ada").state == State.CANCELLED
        assert again.request(overdue.request_id).state == State.ACCEPTED
        clock.forward(hours=7)
        again.run()
        assert again.request(overdue.request_id).state == State.COMPLETED
        assert mapped(again) == [eve, *others]
        assert not again.engine.live.graph.has_node(nodes[1])


def test_a_map_that_was_replaced_comes_back_with_its_rules_and_one_that_was_not_copied_stays(
    system: System, bench: Workbench, clock: Clock
) -> None:
    system.backup("before")
    people = map_people(system)
    system.backup("with")
    nodes = training_ids(system)
    system.set_subjects(SubjectMap.from_rows([("zoe", nodes[9], "owner")], system.graph), None)
    system.erase(Subject(people[0]), unknown="report")
    plan = system.plan(Erasure(nodes=nodes[20:21]))
    system.close()

    restored(bench, clock, system.home, "before")
    again = bench.open(system.home, clock=clock)
    assert (mapped(again), again.subject_rules) == (["zoe"], None)
    again.close()
    restored(bench, clock, system.home, "with")

    again = bench.open(system.home, clock=clock)
    assert (mapped(again), again.subject_rules) == (people, LOOSE)
    with pytest.raises(StalePlanError):
        again.erase(plan)


def test_a_damaged_map_is_repaired_by_a_restore(
    system: System, bench: Workbench, clock: Clock
) -> None:
    people = map_people(system)
    system.backup("a")
    ((kind, key),) = kept_map(system.engine.ledger)
    system.engine.store.path(kind, key).write_bytes(b"damaged")
    system.close()

    restored(bench, clock, system.home, "a")

    assert mapped(bench.open(system.home, clock=clock)) == people


def test_a_copy_of_the_first_format_is_restored_without_a_map(
    system: System, bench: Workbench, clock: Clock, tmp_path: Path
) -> None:
    folder = system.home / system.backup("a").path
    data = json.loads((folder / "backup.json").read_text())
    del data["subjects"], data["rules"]
    (folder / "backup.json").write_text(json.dumps(data | {"format": 1}))

    restored(bench, clock, system.home, "a", to=tmp_path / "new")

    assert bench.open(tmp_path / "new", clock=clock).subjects is None


def test_certificates_say_which_backups_hold_the_subject_map(system: System, clock: Clock) -> None:
    system.backup("without")
    people = map_people(system)
    clock.forward(hours=1)
    system.backup("with")

    receipt = system.erase(Subject(people[0]))

    assert reasons(system, receipt.request_id) == [
        "a named copy, destroyed when it expires",
        "a named copy with the subject map, destroyed when it expires",
    ]


def test_a_map_that_was_rewritten_is_not_kept_in_memory(system: System) -> None:
    people = map_people(system)
    before = weakref.ref(system.subjects)

    system.erase(Subject(people[0]))
    gc.collect()

    assert before() is None
    assert mapped(system) == people[1:]


# ---- restore elsewhere, and without a ledger


def test_a_restore_into_a_new_home_knows_what_was_erased(
    system: System, bench: Workbench, clock: Clock, records: Records, tmp_path: Path
) -> None:
    gone, waiting, *_ = training_ids(system)
    partition = system.partition
    system.backup("a")
    system.erase(Erasure(nodes=[gone], labels=[training_ids(system)[5]]))
    system.submit(Erasure(nodes=[waiting]))

    done = restored(bench, clock, system.home, "a", to=tmp_path / "new")  # the home is in use

    assert done.nodes_kept_out == 2
    new = bench.open(tmp_path / "new", graph=records.graph(), clock=clock)
    survivors = records.without(
        Erasure(nodes=[gone, waiting], labels=[training_ids(bench.fit(records))[5]])
    )
    fresh = bench.fit(survivors, WINDOWS, partition=kept_partition(partition, survivors))
    assert_same(summary(new), summary(fresh))
    assert set(new.erasing.forgotten([gone, waiting])) == {gone, waiting}
    assert new.verify("all").ok
    with pytest.raises(HomeError, match="holds a system already"):
        restored(bench, clock, system.home, "a", to=tmp_path / "new")


def test_without_a_ledger_only_a_newer_export_of_tombstones_allows_a_restore(
    system: System, bench: Workbench, clock: Clock, tmp_path: Path
) -> None:
    gone = training_ids(system)[0]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(export_tombstones(system.engine.ledger, clock())))
    system.backup("a")
    system.erase(Erasure(nodes=[gone]))
    new = tmp_path / "new.json"
    new.write_text(json.dumps(export_tombstones(system.engine.ledger, clock())))
    system.close()
    for path in system.home.glob("ledger.db*"):
        path.unlink()

    for to in (None, tmp_path / "x"):
        with pytest.raises(HomeError, match=r"no ledger.db, so it is not known what was erased"):
            restored(bench, clock, system.home, "a", to=to)
    with pytest.raises(HomeError, match="is older than the backup"):
        restored(bench, clock, system.home, "a", to=tmp_path / "x", tombstones=old)
    forged = json.loads(new.read_text())
    forged["tombstones"] = []
    old.write_text(json.dumps(forged))
    with pytest.raises(HomeError, match="was changed since"):
        restored(bench, clock, system.home, "a", to=tmp_path / "x", tombstones=old)
    assert not (system.home / "ledger.db").exists()
    assert not (tmp_path / "x").exists()

    done = restored(bench, clock, system.home, "a", to=tmp_path / "x", tombstones=new)

    assert done.nodes_kept_out == 1
    assert not bench.open(tmp_path / "x", clock=clock).graph.has_node(gone)
    assert gone not in new.read_text()


def test_a_ledger_that_was_put_back_to_before_the_backup_is_refused(
    system: System, bench: Workbench, clock: Clock
) -> None:
    system.erase(Erasure(nodes=training_ids(system)[:1]))
    system.close()
    earlier = (system.home / "ledger.db").read_bytes()
    again = bench.open(system.home, clock=clock)
    again.erase(Erasure(nodes=training_ids(again)[:1]))
    again.backup("a")
    again.close()
    for path in system.home.glob("ledger.db-*"):
        path.unlink()
    (system.home / "ledger.db").write_bytes(earlier)

    with pytest.raises(HomeError, match="is older than the backup or of another home"):
        restored(bench, clock, system.home, "a")


def test_bad_options_of_a_restore_are_named(
    system: System, bench: Workbench, clock: Clock, tmp_path: Path
) -> None:
    system.close()
    with pytest.raises(HomeError, match="holds no finished backup"):
        restored(bench, clock, system.home, "nothing")
    bench.open(system.home, clock=clock).backup("a")
    with pytest.raises(ConfigError, match="a tombstone file stands for a lost ledger"):
        restored(bench, clock, system.home, "a", tombstones=tmp_path / "x")


# ---- no command publishes an erased record


@pytest.mark.parametrize(
    "command",
    ["erase", "run", "rebuild", "verify --repair", "open graph", "restore", "restore to", "cut"],
)
def test_no_command_publishes_an_erased_record(
    command: str, system: System, bench: Workbench, clock: Clock, records: Records, tmp_path: Path
) -> None:
    gone, other, third, *_ = training_ids(system)
    system.backup("a")
    system.erase(Erasure(nodes=[gone]))
    home = system.home
    if command == "erase":
        system.erase(Erasure(nodes=[other]))
    elif command == "run":
        system.submit(Erasure(nodes=[third]), priority="urgent")
        system.run()
    elif command == "rebuild":
        system.rebuild()
    elif command == "verify --repair":
        assert system.verify(repair=True).ok
    else:
        system.close()
    if command == "open graph":
        for path in (home / "objects" / "segment").iterdir():
            path.write_bytes(b"damaged")
        bench.open(home, graph=records.graph(), clock=clock).close()
    elif command == "restore":
        restored(bench, clock, home, "a")
    elif command == "cut":
        newer = system.config.model_dump()
        newer["partition"]["num_shards"] = 2
        restored(bench, clock, home, "a", config=newer)
    elif command == "restore to":
        home = tmp_path / "new"
        restored(bench, clock, system.home, "a", to=home)

    system.close()
    again = bench.open(home, clock=clock)

    assert not again.engine.live.graph.has_node(gone)
    assert again.verify().ok


@pytest.mark.parametrize(
    "asked",
    [
        lambda i, e: Erasure(nodes=[i]),
        lambda i, e: Erasure(edges=[e]),
        lambda i, e: Erasure(features={i: None}),
        lambda i, e: Erasure(labels=[i]),
    ],
)
def test_the_gate_of_publication_refuses_a_graph_with_an_erased_record(
    asked: Any, system: System, bench: Workbench, records: Records
) -> None:
    before = system.engine.live.graph
    system.erase(asked(training_ids(system)[0], sorted(records.edges)[0]))
    generation = system.generation
    forged = system.engine.build(system.engine.wanted(None, before, 99))

    with pytest.raises(VerificationError, match="records that were erased here"):
        system.engine.publish(forged)

    assert system.generation == generation
    assert system.engine.ledger.current_generation()[0] == generation.number  # type: ignore[index]


def test_only_the_engine_publishes() -> None:
    root = Path(__file__).parents[2]
    callers = [
        (path.name, line.strip())
        for package in ("cluster", "shards", "coordinator")
        for path in (root / package).rglob("*.py")
        for line in path.read_text().splitlines()
        if "ledger.publish(" in line or "reconciler().publish(" in line
    ]

    assert callers == [
        ("reconcile.py", "self.ledger.publish(built.generation.number, body, tx)"),
        ("engine.py", "self.reconciler().publish(built, also)"),
    ]


# ---- opening with the source again


def test_a_source_that_still_holds_erased_records_is_filtered_or_refused(
    bench: Workbench, records: Records
) -> None:
    for policy in ("quarantine", "allow_as_new", "block"):
        system = bench.fit(records, {"erasure.rearrival": policy})
        gone = training_ids(system)[0]
        system.erase(Erasure(nodes=[gone]))
        system.close()
        if policy == "block":
            with pytest.raises(RearrivalError, match=rf"1 nodes; nodes '{gone}'"):
                bench.open(system.home, graph=records.graph())
        else:
            assert not bench.open(system.home, graph=records.graph()).graph.has_node(gone)


def test_a_file_that_nobody_registered_is_found(system: System) -> None:
    (system.home / "notes.csv").write_text("zanzibar-0001")
    (system.home / "objects" / "content" / "copy.safetensors").write_bytes(b"x")

    stray = stray_files(system.home, system.engine.ledger.registered(), set())

    assert stray == ["notes.csv", "objects/content/copy.safetensors"]
    assert not system.verify().ok


def test_the_commands_back_up_list_export_and_restore(
    bench: Workbench, records: Records, tmp_path: Path
) -> None:
    system = bench.fit(records)
    gone = training_ids(system)[0]
    system.close()

    def unweave(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--home", str(system.home), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output.splitlines()[-1])

    assert unweave("backup", "--name", "a")["path"] == "backups/a"
    unweave("erase", "--node", str(gone), "--pool", "inline")
    assert [row["name"] for row in unweave("backups")["backups"]] == ["a"]
    out = str(tmp_path / "stones.json")
    assert unweave("tombstones", "export", "--out", out)["tombstones"] == 1
    new = str(tmp_path / "new")
    assert unweave("restore", "--backup", "a", "--to", new)["nodes_kept_out"] == 1
    assert unweave("restore", "--backup", "a", "--config", "backup")["generation"] == 3
    assert unweave("backups", "--remove", "a")["backups"] == []

"""Plan, erase and requests on the command line: people, predicates, files, deadlines."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import main
from coordinator.erasure import Erasure
from coordinator.selectors.rules import load_rules
from coordinator.selectors.subjects import SubjectMap
from coordinator.system import System
from tests.coordinator.systems import Workbench
from tests.coordinator.test_asking import ROWS, RULES, households

WINDOWS = {
    "erasure.cancel_window": "24h",
    "erasure.batch_window": "6h",
    "erasure.approve_above": 4,
    "erasure.timezone": "Europe/Berlin",
}


@dataclass(frozen=True)
class Done:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out.splitlines()[-1])


Shell = Callable[..., Done]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Types a command, in this process."""
    monkeypatch.setenv("COLUMNS", "140")

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["unweave", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        found = capsys.readouterr()
        return Done(code, found.out, found.err)

    return run


@pytest.fixture(scope="module")
def fitted(shared_bench: Workbench) -> Path:
    system = shared_bench.fit(households(), WINDOWS)
    system.set_subjects(SubjectMap.from_rows(ROWS, system.graph), load_rules(RULES))
    system.close()
    return system.home


@pytest.fixture
def home(fitted: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of a fitted home, for one test."""
    yield Path(shutil.copytree(fitted, tmp_path / "home"))


ADA = re.compile(r"\bada\b")  # a person; those three letters are in many a digest too


def submit(shell: Shell, home: Path, *what: object) -> Any:
    return shell("erase", "--home", home, *what, "--submit", "--json").answer


def nodes_of(home: Path, bench: Workbench) -> set[str]:
    system = bench.open(home)
    found = {str(i) for i in system.graph.ids if not str(i).startswith("n")}
    system.close()
    return found


# ---- plan and erase


def test_a_plan_names_cost_purge_and_due_date_and_its_file_names_nobody(
    shell: Shell, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "plan.json"
    what = ("plan", "--home", home, "--subject", "ada", "--regulation", "ccpa")

    found = shell(*what, "--out", out, "--json").answer
    text = shell(*what)

    assert found["records"]["nodes"] == 2 and found["kind"] == "subject"
    assert found["seconds"] <= found["full_retrain_seconds"]
    assert found["purges"]["subjects"] == 1 and found["plan_id"].startswith("pln_")
    due = datetime.fromisoformat(found["due_at"])
    assert timedelta(days=44) < due - datetime.now(UTC) < timedelta(days=46)
    assert not ADA.search(out.read_text()) and found["generation_key"] not in out.read_text()
    assert found["plan_id"] in text.out and "Europe/Berlin" in text.out
    assert "kept: another subject owns it" in text.out and "destroys 1 content" in text.out


def test_a_person_is_submitted_shown_listed_and_cancelled(
    shell: Shell, home: Path, bench: Workbench
) -> None:
    found = submit(shell, home, "--subject", "ada", "--requested-by", "desk")
    key = found["request_id"]

    assert (found["state"], found["urgency"], found["kind"]) == ("accepted", "ok", "subject")
    assert {"estimated_s", "full_retrain_s"} == found["cost"].keys()
    assert not ADA.search(json.dumps(found))
    shown = shell("requests", "show", key, "--home", home)
    assert "cancellable until" in shown.out and "Europe/Berlin" in shown.out
    listed = shell("requests", "ls", "--home", home, "--subject", "ada", "--json").answer
    assert [request["request_id"] for request in listed["requests"]] == [key]
    assert not shell("requests", "ls", "--home", home, "--subject", "bob", "--json").answer[
        "requests"
    ]
    assert key in shell("requests", "ls", "--home", home, "--state", "accepted").out
    assert nodes_of(home, bench) == {"acc-bob", "acc-eve", "dev-2"}

    cancelled = shell("requests", "cancel", key, "--home", home, "--by", "desk", "--json").answer

    assert cancelled["state"] == "cancelled"
    assert len(nodes_of(home, bench)) == 5
    events = shell("requests", "events", key, "--home", home, "--follow", "--json").answer["events"]
    assert [event["action"] for event in events] == ["accept", "cancel"]
    assert "cancel by desk" in shell("requests", "events", key, "--home", home).out


def test_lists_are_read_beside_a_running_coordinator(
    shell: Shell, home: Path, bench: Workbench
) -> None:
    running = bench.open(home)
    request = running.submit(Erasure(nodes=["acc-eve"]))

    listed = shell("requests", "ls", "--home", home, "--json").answer["requests"]
    shown = shell("requests", "show", request.request_id, "--home", home, "--json").answer
    blocked = shell("requests", "cancel", request.request_id, "--home", home)

    assert [found["request_id"] for found in listed] == [request.request_id]
    assert shown["state"] == "accepted"
    assert blocked.code == 3 and "in use by process" in blocked.err
    request.cancel()


def test_a_predicate_needs_its_plan_and_the_plan_the_same_state(
    shell: Shell, home: Path, tmp_path: Path
) -> None:
    where, out = ("--home", home, "--where", "type = 'account'"), tmp_path / "plan.json"
    without = shell("erase", *where, "--submit")
    assert without.code == 3 and "--plan plan.json" in without.err
    assert shell("plan", *where, "--out", out).code == 0
    other = shell("erase", "--home", home, "--where", "type = 'device'", "--plan", out, "--submit")
    assert other.code == 2 and "something else" in other.err

    found = shell("erase", *where, "--plan", out, "--submit", "--json").answer
    again = shell("erase", *where, "--plan", out, "--submit")

    assert (found["kind"], found["records"]["nodes"]) == ("predicate", 3)
    assert again.code == 2 and "make a new plan" in again.err
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    assert shell("erase", *where, "--plan", broken).code == 2


def test_much_at_once_is_confirmed_by_a_plan_or_by_typing_the_number(
    shell: Shell, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [part for at in range(5) for part in ("--node", f"n000{at}")]
    what = ("--home", home, *nodes)
    people = ("--requested-by", "ada", "--approved-by", "boss", "--pool", "inline")
    out = tmp_path / "plan.json"
    assert shell("erase", *what, "--yes").code == 3
    assert "5 nodes and edges" in shell("erase", *what, *people).err
    shell("plan", *what, "--out", out)
    alone = shell("erase", *what, "--plan", out, "--yes", "--pool", "inline")
    assert alone.code == 2 and "approved_by" in alone.err
    own = ("--requested-by", "ada", "--approved-by", "Ada", "--pool", "inline")
    assert "four eyes" in shell("erase", *what, "--plan", out, "--yes", *own).err

    receipt = shell("erase", *what, "--plan", out, "--yes", *people, "--json").answer

    assert receipt["records"]["nodes"] == 5
    more = ("erase", "--home", home, "--where", "type = 'account'", "--pool", "inline", "--json")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda *a, **k: "4")
    assert "not confirmed" in shell(*more).err
    monkeypatch.setattr("typer.prompt", lambda *a, **k: "3")
    assert shell(*more).answer["records"]["nodes"] == 3


def test_a_file_of_ids_is_a_parent_with_its_parts_and_run_carries_out_what_is_due(
    shell: Shell, home: Path, tmp_path: Path
) -> None:
    ids = tmp_path / "people.csv"
    ids.write_text("subject_id\nada\nbob\n")
    what = ("--ids-file", ids, "--kind", "subjects", "--external-id", "drop-1")
    what += ("--serving-policy", "exclude")

    planned = shell("plan", "--home", home, *what[:4], "--json").answer
    found = submit(shell, home, *what)
    key = found["request_id"]

    assert (planned["kind"], planned["records"]["nodes"]) == ("file", 4)
    assert (found["kind"], found["state"], found["records"]["nodes"]) == ("file", "accepted", 4)
    assert submit(shell, home, *what)["request_id"] == key
    listed = shell("requests", "ls", "--home", home, "--json").answer["requests"]
    assert [request["request_id"] for request in listed] == [key]
    parts = shell("requests", "ls", "--home", home, "--parent", key, "--json").answer["requests"]
    assert {part["kind"] for part in parts} == {"subject"} and len(parts) == 2
    assert {part["serving_policy"] for part in (found, *parts)} == {"exclude"}
    assert found["expected_completion_at"] > found["cancel_until"]
    receipt = tmp_path / "acceptance.dsse"
    shell("requests", "acceptance", key, "--home", home, "--out", receipt)
    issuer = home / "keys" / "issuer.pub"
    assert f"Acceptance of request {key}" in shell("verify", receipt, "--key", issuer).out
    assert shell("verify", receipt, "--key", issuer, "--json").answer["ok"]
    shown = shell("requests", "show", key, "--home", home).out
    assert re.search(r"serving policy\W+exclude", shown)
    waiting = shell("requests", "run", "--home", home, "--pool", "inline")
    assert "nothing is due" in waiting.out and "next at" in waiting.out
    shell("requests", "expedite", key, "--home", home)
    shown = shell("requests", "show", key, "--home", home, "--json").answer
    ran = shell("requests", "run", "--home", home, "--pool", "inline", "--json").answer
    done = shell("requests", "show", key, "--home", home, "--json").answer
    assert shown["priority"] == "urgent" and shown["parts"] == {"accepted": 2}
    assert (done["state"], done["parts"]) == ("completed", {"completed": 2})
    assert ran["failing"] == []


def test_hashed_ids_are_erased_at_once_without_submit(
    shell: Shell, home: Path, tmp_path: Path, bench: Workbench
) -> None:
    import hashlib

    ids = tmp_path / "ids.csv"
    ids.write_text("id\n" + hashlib.sha256(b"acc-eve").hexdigest() + "\n")

    done = shell(
        "erase", "--home", home, "--ids-file", ids, "--format", "sha256", "--pool", "inline",
        "--json",
    ).answer  # fmt: skip

    assert done["state"] == "completed"
    assert "acc-eve" not in nodes_of(home, bench)


def test_a_large_request_is_approved_by_somebody_else(shell: Shell, home: Path) -> None:
    nodes = [part for at in range(5) for part in ("--node", f"n000{at}")]
    key = submit(shell, home, *nodes, "--requested-by", "ada")["request_id"]

    own = shell("requests", "approve", key, "--home", home, "--by", "ada")
    approved = shell("requests", "approve", key, "--home", home, "--by", "boss", "--json").answer

    assert own.code == 2 and "four eyes" in own.err
    assert (approved["state"], approved["approved_by"]) == ("accepted", "boss")


def test_a_deadline_at_risk_has_its_own_exit_code(shell: Shell, home: Path) -> None:
    early = (datetime.now(UTC) - timedelta(days=27)).isoformat()
    assert shell("requests", "ls", "--home", home, "--check").code == 0
    submit(shell, home, "--node", "acc-eve")
    assert shell("requests", "ls", "--home", home, "--check").code == 0
    key = submit(shell, home, "--node", "acc-bob", "--received-at", early)["request_id"]

    checked = shell("requests", "ls", "--home", home, "--check", "--due-within", "7d", "--json")

    assert checked.code == 6
    found = json.loads(checked.out.splitlines()[-1])["requests"]
    assert [(request["request_id"], request["urgency"]) for request in found] == [(key, "soon")]


# ---- bad input


def test_wrong_options_say_what_is_wrong_and_change_nothing(
    shell: Shell, home: Path, tmp_path: Path
) -> None:
    ids = tmp_path / "ids.csv"
    ids.write_text("node\n11\n")
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("id\nacc-eve\nghost\n")
    erase = ("erase", "--home", home, "--submit")
    eve = ("--node", "acc-eve")
    wrong: list[tuple[tuple[object, ...], int, str]] = [
        ((*erase,), 3, "--ids-file"),
        ((*erase, *eve, "--subject", "ada"), 3, "two requests"),
        ((*erase, *eve, "--regulation", "hipaa"), 2, "choose one of"),
        ((*erase, *eve, "--received-at", "31.12.2025"), 2, "no ISO 8601 time"),
        ((*erase, *eve, "--received-at", "2025-12-31T10:00"), 2, "without a zone"),
        ((*erase, *eve, "--received-at", "2999-12-31"), 2, "in the future"),
        ((*erase, "--subject", "nobody"), 4, "subject"),
        ((*erase, "--where", "nope = 1"), 4, "nope"),
        ((*erase, "--ids-file", ids), 4, "no column 'id'"),
        ((*erase, "--ids-file", mixed), 4, "nothing was accepted"),
        ((*erase, "--ids-file", tmp_path / "gone.csv"), 4, "no file"),
        ((*erase, "--ids-file", mixed, "--kind", "cats"), 4, "choose one of"),
        ((*erase, "--ids-file", mixed, "--format", "md5"), 3, "--format"),
        (("erase", "--home", home, *eve, "--wait"), 3, "--submit"),
        (("requests", "show", "req_0", "--home", home), 2, "no request 'req_0'"),
        (("requests", "cancel", "req_0", "--home", home), 2, "no request 'req_0'"),
        (("requests", "ls", "--home", home, "--state", "asleep"), 3, "states are"),
        (("requests", "ls", "--home", home, "--due-within", "soon"), 3, "7d"),
        (("requests", "ls", "--home", tmp_path), 3, "no system in"),
    ]

    for arguments, code, text in wrong:
        done = shell(*arguments)
        assert (done.code, text in done.err) == (code, True), (arguments, done)
    assert shell("requests", "ls", "--home", home, "--json").answer["requests"] == []


def test_actions_out_of_place_are_refused_with_the_state_named(shell: Shell, home: Path) -> None:
    key = submit(shell, home, "--node", "acc-eve", "--external-id", "dsr-1")["request_id"]
    act = ("--home", home, "--by", "legal")
    assert shell("requests", "hold", key, *act).code == 2  # no reason
    assert shell("requests", "release", key, *act).code == 2
    other = shell(
        "erase", "--home", home, "--node", "acc-bob", "--submit", "--external-id", "dsr-1"
    )
    assert other.code == 2 and "dsr-1" in other.err
    shell("requests", "expedite", key, *act)
    shell("requests", "run", "--home", home, "--pool", "inline")

    late = shell("requests", "cancel", key, *act)
    held = shell("requests", "hold", key, *act, "--reason", "claim 7", "--json")

    assert late.code == 2 and "completed" in late.err
    assert held.code == 2
    error = json.loads(held.out.splitlines()[-1])["error"]
    assert error["type"] == "HoldError" and "completed" in error["message"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes wherever it likes")
def test_a_home_that_cannot_be_written_is_named(shell: Shell, home: Path) -> None:
    home.chmod(0o500)
    try:
        done = shell("erase", "--home", home, "--node", "acc-eve", "--submit")
    finally:
        home.chmod(0o700)

    assert done.code == 3 and "cannot be written" in done.err


def test_a_ledger_that_cannot_be_written_is_named_and_nothing_is_lost(
    bench: Workbench, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import event

    from cluster.errors import HomeError

    system: System = bench.open(home)
    with system.engine.ledger.read() as tx:
        engine = tx.engine
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA query_only=ON"))
    engine.dispose()

    with pytest.raises(HomeError, match="cannot be written"):
        system.submit(Erasure(nodes=["acc-eve"]))
    assert system.requests() == [] and system.graph.has_node("acc-eve")


def test_run_tells_of_a_request_that_was_expedited_before(shell: Shell, home: Path) -> None:
    made = submit(shell, home, "--node", "acc-eve")
    shell("requests", "expedite", made["request_id"], "--home", home, "--by", "grace")

    ran = shell("requests", "run", "--home", home, "--pool", "inline", "--json").answer

    assert [batch["requests"] for batch in ran["batches"]] == [1]
    shown = shell("requests", "show", made["request_id"], "--home", home, "--json").answer
    assert shown["state"] == "completed"

"""A new erasure from look-up to receipt, and its approval."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from coordinator.pools.inline import InlinePool
from coordinator.serving.office import Office
from tests.coordinator.serving.conftest import QUIET
from tests.coordinator.serving.console.browsing import (
    BASE,
    Page,
    Visitor,
    console_app,
    erase,
    submitted,
    visitor,
)
from tests.coordinator.systems import Workbench, planted


def test_an_erasure_from_look_up_to_receipt(admin: Visitor, office: Office, ids: Any) -> None:
    form = admin.page("/erase").form("/preview")

    found = admin.send(form, to=f"{BASE}/erase/look-up", what=f"{ids[14]}\n999999")
    address = erase(
        admin, str(ids[14]), priority="urgent", reason="asked by letter", serving_policy="block"
    )

    request = office.request(address.rpartition("/")[2])
    assert "1 found, 1 not here" in " ".join(Page(found.text).text.split())
    assert request["impact"]["nodes"] == 1 and request["priority"] == "urgent"
    assert request["reason"] == "asked by letter" and request["serving_policy"] == "block"
    assert "block: what those shards own" in admin.page(address.removeprefix(BASE)).text
    assert "this page is its receipt" in admin.page(address.removeprefix(BASE) + "?did=submit").text


def test_look_ups_and_previews_are_in_the_audit_log(admin: Visitor, office: Office) -> None:
    form, before = admin.page("/erase").form("/preview"), office.audit_head()["seq"]

    admin.send(form, to=f"{BASE}/erase/look-up", what="777777")
    admin.send(form, what="777777")

    rows = office.audit(before, 10)["items"]
    assert [row["action"] for row in rows] == ["lookup", "lookup"]
    assert len({row["actor"] for row in rows}) == 1 and "777777" not in str(rows)


def test_the_count_has_to_be_typed_right(admin: Visitor, office: Office, ids: Any) -> None:
    form = admin.page("/erase").form("/preview")
    confirm = Page(admin.send(form, what=str(ids[15])).text).form("/confirm")
    before = sum(office.status()["requests"].values())

    answers = [admin.send(confirm, count=count) for count in ("", "999", "x")]

    assert [answer.status_code for answer in answers] == [400] * 3
    assert "Nothing was changed" in answers[0].text
    assert sum(office.status()["requests"].values()) == before


def test_a_confirmation_sent_twice_is_one_request(admin: Visitor, office: Office, ids: Any) -> None:
    form = admin.page("/erase").form("/preview")
    preview = Page(admin.send(form, what="424242").text)
    confirm = preview.form("/confirm")

    sent = [admin.send(confirm, count="0").headers["location"] for _ in range(2)]

    assert sent[0] == sent[1]


def test_a_form_cannot_name_the_idempotency_key_of_another_caller(
    admin: Visitor, office: Office
) -> None:
    asked = {"kind": "nodes", "selector": {"ids": ["nobody-at-all"]}}
    theirs = office.submit(asked, options={"idempotency_key": "key:somebody/letter-1"})
    form = admin.page("/erase").form("/preview")
    confirm = Page(admin.send(form, what="424243").text).form("/confirm")

    sent = admin.send(confirm, count="0", once="key:somebody/letter-1")

    assert sent.status_code == 303 and theirs["request_id"] not in sent.headers["location"]


def test_a_plan_that_the_graph_left_behind_is_explained(
    admin: Visitor, office: Office, ids: Any
) -> None:
    form = admin.page("/erase").form("/preview")
    confirm = Page(admin.send(form, what=str(ids[16])).text)
    submitted(office, ids[17])

    total = re.search(r"records that go, (\d+)", confirm.text)
    assert total is not None
    answer = admin.send(confirm.form("/confirm"), count=total[1])

    assert answer.status_code == 409 and "make a new plan" in Page(answer.text).text


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("edges", "1 2 3"),
        ("subject", "a\nb"),
        ("predicate", "import os"),
        ("nodes", "   "),
    ],
)
def test_what_cannot_be_asked_is_explained_beside_the_form(
    admin: Visitor, kind: str, what: str
) -> None:
    form = admin.page("/erase").form("/preview")

    answer = admin.send(form, kind=kind, what=what)

    page = Page(answer.text)
    assert answer.status_code == 400
    assert page.has_form("/preview") and 'role="alert"' in answer.text


def test_no_id_of_a_person_is_in_an_address_a_header_or_a_log(
    shared_bench: Workbench,
    pool: InlinePool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared_bench.fit(planted(3, prefix="person-"), home=tmp_path / "home").close()
    caplog.set_level(logging.DEBUG)
    with Office(tmp_path / "home", pool, settings=QUIET) as office:
        person = visitor(console_app(office), office, "admin")
        seen = watched(person)
        request_id = erase(person, "person-0002", priority="urgent").rpartition("/")[2]
        office.system.run()
        erase(person, "person-0002\nperson-nobody")
        done = person.page(f"/requests/{request_id}")

    assert "completed" in done.text and "person-" not in done.text
    assert len(seen) > 10
    assert not [text for text in (*seen, caplog.text) if "person-" in text]


def watched(person: Visitor) -> list[str]:
    """Addresses and headers of every request and answer from now on."""
    seen: list[str] = []

    def note(message: Any) -> None:
        seen.append(f"{getattr(message, 'url', '')} {message.headers}")

    person.http.event_hooks = {"request": [note], "response": [note]}
    return seen


def test_an_approval_is_by_the_key_and_never_by_whoever_asked(
    app: FastAPI, office: Office, ids: Any
) -> None:
    asker = visitor(app, office, "admin")
    asked = erase(asker, "\n".join(map(str, ids[:21])))
    request_id = asked.rpartition("/")[2]
    assert office.request(request_id)["state"] == "needs_approval"

    own = asker.send(asker.page(f"/requests/{request_id}").form("/approve"))
    other = visitor(app, office, "approver")
    page = other.follow(other.send(other.page(f"/requests/{request_id}").form("/approve")))

    assert own.status_code == 403 and "four eyes" in Page(own.text).text
    assert "Approved." in page.text
    assert office.request(request_id)["state"] == "accepted"


def test_several_requests_are_approved_together_and_the_others_say_why_not(
    app: FastAPI, office: Office, ids: Any
) -> None:
    asker, approver = (visitor(app, office, role) for role in ("admin", "approver"))
    large = "\n".join(map(str, ids[:21]))
    mine, hers = erase(asker, large), erase(visitor(app, office, "requester"), large)
    first, second = (address.rpartition("/")[2] for address in (mine, hers))
    form = asker.page("/queue?state=needs_approval").form("/queue/approve")
    ticked = {"csrf": form.fields["csrf"], "reason": "checked", first: "yes", second: "yes"}

    nothing = asker.http.post(form.action, data={"csrf": form.fields["csrf"]})
    page = Page(asker.http.post(form.action, data=ticked).text)
    states = [office.request(request_id)["state"] for request_id in (first, second)]
    again = approver.page("/queue?state=needs_approval")

    assert nothing.status_code == 400 and "Nothing was chosen" in Page(nothing.text).text
    assert "1 request approved. Not approved:" in page.text and "four eyes" in page.text
    assert states == ["needs_approval", "accepted"]
    assert {first, second} & again.form("/queue/approve").fields.keys() == {first}
    assert not again.unlabelled
    operator = visitor(app, office, "operator")
    assert not operator.page("/queue?state=needs_approval").has_form("/queue/approve")
    office.act(first, "reject", "somebody", "a test")

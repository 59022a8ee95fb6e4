"""Sessions and forms: who is let in, and whose form is taken."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from coordinator.serving.console.sessions import COOKIE, LoginBrake
from coordinator.serving.office import Office
from tests.coordinator.serving.console.browsing import (
    BASE,
    Page,
    Visitor,
    console_app,
    submitted,
    visitor,
)


@pytest.mark.parametrize("token", [None, "", "0" * 64])
def test_a_form_without_the_token_of_its_session_is_refused(
    admin: Visitor, office: Office, ids: Any, token: str | None
) -> None:
    request_id = submitted(office, ids[13])
    data = {"reason": "x"} if token is None else {"reason": "x", "csrf": token}

    answer = admin.http.post(f"{BASE}/requests/{request_id}/hold", data=data)

    assert answer.status_code == 403
    assert office.request(request_id)["state"] == "accepted"


def test_a_token_of_another_session_is_refused(app: FastAPI, office: Office) -> None:
    one, other = visitor(app, office, "requester"), visitor(app, office, "requester")

    form = other.page("/erase").form("/preview")

    assert one.send(form, what="1").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.test"},
        {"origin": "null"},
    ],
)
def test_a_form_sent_from_another_site_is_refused(admin: Visitor, headers: dict[str, str]) -> None:
    form = admin.page("/erase").form("/preview")

    sent = admin.http.post(form.action, data=form.fields | {"what": "11"}, headers=headers)
    own = {"origin": "http://unweave.test", "sec-fetch-site": "same-origin"}
    mine = admin.http.post(form.action, data=form.fields | {"what": "11"}, headers=own)

    assert sent.status_code == 403
    assert mine.status_code == 200


def test_the_cookie_is_strict_and_does_not_hold_the_key(app: FastAPI, office: Office) -> None:
    key = office.create_key("viewer", "test")["key"]
    answer = Visitor(app).log_in(key)

    cookie = answer.headers["set-cookie"]

    assert {"HttpOnly", "SameSite=strict", f"Path={BASE}"} <= set(cookie.split("; "))
    assert key not in cookie and key.split("_", 3)[3] not in cookie


def test_a_cookie_that_was_changed_is_nobodys(app: FastAPI, office: Office) -> None:
    person = visitor(app, office, "admin")
    text = str(person.http.cookies[COOKIE])
    person.http.cookies.clear()
    person.http.cookies.set(COOKIE, ("B" if text[0] == "A" else "A") + text[1:], path=BASE)

    assert person.get("/").status_code == 303


def test_a_deleted_key_ends_its_sessions_at_once(app: FastAPI, office: Office) -> None:
    made = office.create_key("viewer", "test")
    person = Visitor(app)
    person.log_in(made["key"])
    assert person.get("/").status_code == 200

    office.delete_key(made["key_id"], "test")

    assert person.get("/").status_code == 303


def test_logging_out_ends_every_copy_of_the_cookie(app: FastAPI, office: Office) -> None:
    person, thief = visitor(app, office, "viewer"), Visitor(app)
    thief.http.cookies.set(COOKIE, str(person.http.cookies[COOKIE]), path=BASE)
    assert thief.get("/").status_code == 200

    person.send(person.page("/").form("/logout"))

    assert person.get("/").status_code == thief.get("/").status_code == 303


def test_logging_in_gives_a_new_session(app: FastAPI, office: Office) -> None:
    person = Visitor(app)
    before = Page(person.get("/login").text).form("/login").fields["csrf"]
    person.log_in(office.create_key("viewer", "test")["key"])

    assert person.page("/").form("/logout").fields["csrf"] != before


def test_wrong_keys_are_refused_and_slowed(office: Office) -> None:
    person = Visitor(console_app(office))

    answers = [person.log_in(f"uw_k1_none_{n}").status_code for n in range(4)]
    slowed = person.log_in(office.create_key("viewer", "test")["key"])

    assert answers[:3] == [401] * 3
    assert slowed.status_code == 429 and int(slowed.headers["retry-after"]) >= 1


def test_the_brake_waits_twice_as_long_each_time_and_forgets_who_passed() -> None:
    now = [0.0]
    brake = LoginBrake(lambda: now[0])

    waits = []
    for _ in range(12):
        brake.failed("a")
        waits.append(brake.wait_s("a"))
    brake.passed("a")

    assert waits[:6] == [0, 0, 1, 2, 4, 8] and waits[-1] == LoginBrake.LONGEST_S
    assert brake.wait_s("a") == brake.wait_s("b") == 0


def test_a_form_too_large_or_of_another_type_is_refused(admin: Visitor) -> None:
    form = admin.page("/erase").form("/preview")
    token = form.fields["csrf"]

    large = admin.http.post(form.action, data=form.fields | {"what": "1\n" * (3 << 20)})
    json = admin.http.post(form.action, json={"csrf": token})

    assert large.status_code == 413
    assert json.status_code == 415


def test_a_part_of_a_page_that_cannot_be_had_leaves_the_page_as_it_is(
    app: FastAPI, admin: Visitor
) -> None:
    part = {"hx-request": "true"}

    stranger = Visitor(app).http.get(f"{BASE}/live", headers=part)
    missing = admin.http.get(f"{BASE}/requests/req_none/live", headers=part)

    assert stranger.status_code == 401 and stranger.headers["hx-refresh"] == "true"
    assert missing.status_code == 404 and missing.headers["hx-reswap"] == "none"

"""The console without a browser: pages, roles, sessions, forms, headers."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from coordinator.pools.inline import InlinePool
from coordinator.serving.api.app import make_app
from coordinator.serving.backend import LocalOffice
from coordinator.serving.console import ConsoleSettings, make_console
from coordinator.serving.console.desk import SECURITY_HEADERS
from coordinator.serving.console.router import ADDRESSES, MENU
from coordinator.serving.console.sessions import COOKIE, LoginBrake
from coordinator.serving.office import Office
from tests.coordinator.clock import Clock
from tests.coordinator.serving.browsing import BASE, Page, Visitor, console_app, visitor
from tests.coordinator.serving.conftest import QUIET, Replicas
from tests.coordinator.systems import Workbench, planted

PLAIN = ("/", "/shards", "/shards/0", "/queue", "/queue?state=accepted&due=14", "/erase", "/costs")
MORE = ("/certificates", "/models", "/artefacts", "/audit", "/settings")
CSP = "default-src 'self'"
ABSOLUTE = re.compile(r"""(?:src|href|action|url)\s*[=(]\s*["']?\s*(?:[a-z]+:)?//""", re.IGNORECASE)


@pytest.fixture(scope="module")
def app(office: Office) -> FastAPI:
    return console_app(office)


@pytest.fixture(scope="module")
def admin(app: FastAPI, office: Office) -> Visitor:
    return visitor(app, office, "admin")


def submitted(office: Office, node: Any, **options: Any) -> str:
    """Id of a request for one node."""
    asked = {"kind": "nodes", "selector": {"ids": [node]}}
    return str(office.submit(asked, None, {"requested_by": "somebody"} | options)["request_id"])


def completed(office: Office, clock: Clock, node: Any) -> str:
    """Id of a request that was carried out."""
    request_id = submitted(office, node, priority="urgent")
    office.system.run()
    assert office.request(request_id)["state"] == "completed"
    return request_id


# ---- pages


@pytest.mark.parametrize("path", PLAIN + MORE)
def test_every_page_is_whole_html_with_one_heading_and_a_title(admin: Visitor, path: str) -> None:
    page = admin.page(path)

    assert page.count["h1"] == page.count["title"] == page.count["main"] == 1
    assert page.count["nav"] >= 1
    assert not page.unlabelled
    assert page.count.get("table", 0) == page.count.get("caption", 0)


def test_pages_of_a_request_and_of_its_certificate(
    admin: Visitor, office: Office, clock: Clock, ids: Any
) -> None:
    request_id = completed(office, clock, ids[0])

    page = admin.page(f"/requests/{request_id}")
    certificate = next(link for link in page.links if "/certificates/" in link)
    shown = admin.page(certificate.removeprefix(BASE))
    envelope = admin.get(certificate.removeprefix(BASE) + "/envelope")

    assert page.count["h1"] == shown.count["h1"] == 1
    assert "Not claimed" in shown.text and "What this proves" in shown.text
    assert office.verify(envelope.text)["ok"]
    assert "attachment" in envelope.headers["content-disposition"]
    assert str(ids[0]) not in re.findall(r"[\w.-]+", envelope.headers["content-disposition"])


def test_every_response_has_a_strict_policy_and_is_kept_by_nobody(admin: Visitor) -> None:
    for path in (*PLAIN, *MORE, "/login", "/nowhere", "/requests/req_none", "/costs/data"):
        headers = admin.get(path).headers

        assert headers["content-security-policy"].startswith(CSP), path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store", path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_no_page_loads_anything_from_elsewhere_or_has_anything_inline(
    app: FastAPI, admin: Visitor
) -> None:
    pages = {path: admin.get(path).text for path in PLAIN + MORE}
    pages["/login"] = Visitor(app).get("/login").text
    for path, html in pages.items():
        page = Page(html)

        assert not page.inline, path
        assert not ABSOLUTE.search(html), path
        for asset in page.assets:
            answer = admin.http.get(asset)
            assert asset.startswith(f"{BASE}/static/") and answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]


def test_every_link_of_the_pages_leads_somewhere(admin: Visitor) -> None:
    links = {link for path in PLAIN + MORE for link in admin.page(path).links}

    for link in sorted(links):
        address = link if link.startswith(("/", "#")) else f"{BASE}/{link}"
        if not address.startswith("#"):
            assert admin.http.get(address).status_code == 200, link


def test_what_people_write_is_shown_as_text(admin: Visitor, office: Office, ids: Any) -> None:
    script = "<script>alert(1)</script>"
    request_id = submitted(office, ids[-1], reason=script, external_request_id=f"'\"{script}")
    office.create_key("viewer", "test", note=script)

    pages = [admin.get(path).text for path in (f"/requests/{request_id}", "/settings")]

    for html in pages:
        assert script not in html and "&lt;script&gt;" in html
        assert not Page(html).inline


def test_what_is_not_there_is_a_page_too(admin: Visitor) -> None:
    assert admin.get("/nowhere").status_code == 404
    assert admin.get("/requests/req_none").status_code == 404
    assert admin.get("/shards/99").status_code == 404
    assert admin.get("/shards/x").status_code == 404
    assert admin.get("/certificates/cert_none").status_code == 404
    assert admin.get("/queue?state=nonsense").status_code == 400
    assert admin.get("/static/..%2f__init__.py").status_code == 404


def test_the_queue_is_paged(office: Office, ids: Any) -> None:
    person = visitor(console_app(office, ConsoleSettings(page_size=1)), office, "operator")
    wanted = {submitted(office, node) for node in ids[1:4]}

    address, seen = "/queue?state=accepted", []
    while address:
        page = person.page(address)
        seen += [link.rpartition("/")[2] for link in page.links if "/requests/" in link]
        following = [link for link in page.links if "cursor=" in link]
        address = f"/{following[0].removeprefix(BASE + '/')}" if following else ""

    assert wanted <= set(seen)
    assert len(seen) == len(set(seen))


def test_it_is_mounted_beside_the_api(office: Office) -> None:
    link = LocalOffice(office)
    app = make_app(link, Replicas(office), QUIET)
    app.include_router(make_console(link))
    person = visitor(app, office, "viewer")

    headers = person.get("/").headers

    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert headers.get_list("content-security-policy") == [policy]
    assert headers.get_list("referrer-policy") == ["same-origin"]
    assert person.http.get("/v1/shards").status_code == 401  # the cookie is nothing to the API
    assert not [path for path in app.openapi()["paths"] if path.startswith(BASE)]


# ---- who may


def test_without_a_session_every_page_asks_to_log_in(app: FastAPI) -> None:
    stranger = Visitor(app)

    for address in ADDRESSES:
        if address.roles is None:
            continue
        path = re.sub(r"\{[^}]*\}", "x", address.path)
        answer = stranger.http.request(address.method, BASE + path)
        assert answer.status_code == 303, address
        assert answer.headers["location"] == f"{BASE}/login"


@pytest.mark.parametrize("role", ["viewer", "predictor", "requester", "approver", "auditor"])
def test_a_role_sees_its_pages_alone(app: FastAPI, office: Office, role: str) -> None:
    person = visitor(app, office, role)

    for item in MENU:
        answer = person.get(item.path)
        assert answer.status_code == (200 if role in item.roles else 403), item
        shown = {link.removeprefix(BASE) for link in Page(answer.text).links}
        assert shown.isdisjoint({other.path for other in MENU if role not in other.roles} - {"/"})


def test_actions_are_shown_and_taken_by_their_roles_alone(
    app: FastAPI, office: Office, ids: Any
) -> None:
    request_id = submitted(office, ids[4])
    operator, auditor = (visitor(app, office, role) for role in ("operator", "auditor"))
    form = operator.page(f"/requests/{request_id}").form("/hold")
    foreign = Page(auditor.get(f"/requests/{request_id}").text)
    token = foreign.form("/logout").fields

    refused = auditor.http.post(form.action, data=token | {"reason": "claim"})
    taken = operator.send(form, reason="a legal claim")

    assert not foreign.has_form("/hold") and not foreign.has_form("/cancel")
    assert refused.status_code == 403
    assert "Put on hold." in operator.follow(taken).text
    assert office.request(request_id)["state"] == "on_hold"
    assert office.request(request_id)["held_by"] != ""


# ---- sessions and forms


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
    assert key not in cookie and key.rpartition("_")[2] not in cookie


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


# ---- a new erasure


def erase(person: Visitor, what: str, **options: str) -> str:
    """Look up, preview and confirm; the address of the request."""
    form = person.page("/erase").form("/preview")
    person.send(form, to=f"{BASE}/erase/look-up", what=what)
    preview = Page(person.send(form, what=what).text)
    confirm = preview.form("/confirm")
    total = re.search(r"records that go, (\d+)", preview.text)
    assert total is not None, preview.text
    answer = person.send(confirm, count=total[1], **options)
    assert answer.status_code == 303, Page(answer.text).text
    return str(answer.headers["location"]).split("?")[0]


def test_an_erasure_from_look_up_to_receipt(admin: Visitor, office: Office, ids: Any) -> None:
    form = admin.page("/erase").form("/preview")

    found = admin.send(form, to=f"{BASE}/erase/look-up", what=f"{ids[14]}\n999999")
    address = erase(admin, str(ids[14]), priority="urgent", reason="asked by letter")

    request = office.request(address.rpartition("/")[2])
    assert "1 found, 1 not here" in " ".join(Page(found.text).text.split())
    assert request["impact"]["nodes"] == 1 and request["priority"] == "urgent"
    assert request["reason"] == "asked by letter"
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


# ---- settings


def test_a_key_is_shown_once_and_works_until_it_is_deleted(
    app: FastAPI, admin: Visitor, office: Office
) -> None:
    form = admin.page("/settings").form("/settings/keys")

    made = Page(admin.send(form, role="viewer", note="a wall screen", days="7").text)
    key = re.search(r"uw_k1_\S+", made.text)
    assert key is not None
    again = admin.page("/settings")
    person = Visitor(app)
    entered = person.log_in(key[0])
    key_id = next(k["key_id"] for k in office.list_keys() if k["note"] == "a wall screen")
    admin.send(again.form(f"/{key_id}/delete"))

    assert key[0] not in again.text and "a wall screen" in again.text
    assert entered.headers["location"] == f"{BASE}/"
    assert person.get("/").status_code == 303


def test_an_operator_sees_no_keys(app: FastAPI, office: Office) -> None:
    operator = visitor(app, office, "operator")

    page = operator.page("/settings")
    token = page.form("/logout").fields
    sent = operator.http.post(f"{BASE}/settings/keys", data=token | {"role": "admin"})

    assert not page.has_form("/settings/keys")
    assert sent.status_code == 403


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

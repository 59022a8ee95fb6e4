"""The pages without a browser: whole, safe, paged, and for their roles alone."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest
from fastapi import FastAPI

from coordinator.serving.api.app import make_app
from coordinator.serving.backend import LocalOffice
from coordinator.serving.console import ConsoleSettings, make_console
from coordinator.serving.console.desk import SECURITY_HEADERS
from coordinator.serving.console.router import ADDRESSES, MENU
from coordinator.serving.office import Office
from tests.coordinator.clock import Clock
from tests.coordinator.serving.conftest import QUIET, Replicas
from tests.coordinator.serving.console.browsing import (
    BASE,
    Page,
    Visitor,
    completed,
    console_app,
    submitted,
    visitor,
)

PLAIN = ("/", "/shards", "/shards/0", "/queue", "/queue?state=accepted&due=14", "/erase", "/costs")
MORE = ("/certificates", "/models", "/artefacts", "/audit", "/settings")
CSP = "default-src 'self'"
ABSOLUTE = re.compile(r"""(?:src|href|action|url)\s*[=(]\s*["']?\s*(?:[a-z]+:)?//""", re.IGNORECASE)


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


def test_a_request_at_work_has_a_bar_for_each_of_its_shards(
    admin: Visitor, office: Office, ids: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, pages = office.system.engine, []
    owner = engine.live.partition.assignment
    shards = sorted(set(owner.values()))[:2]
    chosen = [next(i for i in ids if owner.get(i) == shard) for shard in shards]
    asked = {"kind": "nodes", "selector": {"ids": chosen}}
    request_id = office.submit(asked, None, {"requested_by": "a", "priority": "urgent"})
    note = engine.progress

    def watch(stage: str, done: int, total: int) -> None:
        note(stage, done, total)
        if stage == "training":
            pages.append(admin.page(f"/requests/{request_id['request_id']}/live"))

    monkeypatch.setattr(engine, "progress", watch)
    office.system.run()

    first, last = (re.findall(r"Shard (\d+): ([a-z ]+)", page.text) for page in pages)
    one, two = map(str, shards)
    assert first in (
        [(one, "trained"), (two, "in training")],
        [(one, "in training"), (two, "trained")],
    )
    assert last == [(one, "trained"), (two, "trained")]
    assert not pages[0].unlabelled and pages[0].count["progress"] == 3


def test_the_models_page_shows_the_replicas_that_hold_a_lease(
    admin: Visitor, office: Office
) -> None:
    office.lease("replica-1", office.system.generation.number, 0)

    page = admin.page("/models")

    assert "replica-1" in page.text and "catching up" in page.text


def test_the_queue_foretells_the_next_batches(admin: Visitor, office: Office, ids: Any) -> None:
    request_id = submitted(office, ids[0])
    shards = office.request(request_id)["shards"]

    (batch,) = office.coming_batches()
    page = admin.page("/queue")

    assert batch["shards"] == shards and batch["requests"] == 1
    free = office.request(request_id)["cancel_until"]
    begins, ends, due = (
        datetime.fromisoformat(batch[f"{at}_at"]) for at in ("starts", "ends", "due")
    )
    assert datetime.fromisoformat(free) < begins <= ends < due
    assert "the first waited the batch window" in page.text
    office.act(request_id, "cancel", "somebody", "a test")
    assert "Nothing is waiting for a batch." in admin.page("/queue").text


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

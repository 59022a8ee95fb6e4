"""Routes: what each answers, and to whom."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator.evidence.acceptance import brief
from coordinator.serving.api.routing import rule_of
from coordinator.serving.office import Office
from coordinator.serving.roles import ROLES, may
from tests.coordinator.clock import Clock
from tests.coordinator.serving.conftest import Api

PROBLEM = "application/problem+json"


def nodes(*ids: Any) -> dict[str, Any]:
    return {"kind": "nodes", "selector": {"ids": list(ids)}}


def test_probes_answer_without_a_key(api: Api) -> None:
    for path in ("/healthz", "/readyz", "/version", "/metrics", "/docs", "/openapi.json"):
        assert api.ask("GET", path, None).status_code == 200, path
    text = api.ask("GET", "/metrics", None).text
    assert 'unweave_http_requests_total{method="GET",route="/healthz",status="200"} ' in text
    assert "unweave_queue_depth" in text and "unweave_retrain_seconds_bucket" in text


def test_the_whole_way_over_http(api: Api, clock: Clock, ids: Any, office: Office) -> None:
    found = api.ask("POST", "/v1/subjects:lookup", "requester", json=nodes(ids[0], "nobody"))
    assert found.json()["found"] == 1 and found.json()["unknown"] == 1

    plan = api.ask("POST", "/v1/erasure-plans", "requester", json=nodes(ids[0]))
    assert plan.status_code == 201
    assert api.ask("GET", plan.headers["Location"], "requester").json() == plan.json()

    body = {"plan_id": plan.json()["plan_id"], "regulation": "gdpr", "reason": "asked by letter"}
    made = api.ask("POST", "/v1/erasures", "requester", json=body)
    assert made.status_code == 201 and made.json()["masked"]
    path = made.headers["Location"]
    assert api.ask("GET", f"{path}/receipt", "requester").status_code == 404

    answers = api.ask("POST", "/v1/predict", "predictor", json={"ids": [ids[0], ids[1], "nobody"]})
    codes = [item.get("error", {}).get("status") for item in answers.json()["results"]]
    assert codes == [410, None, 404]

    clock.forward(hours=40)
    office.system.run()
    done = api.ask("GET", path, "auditor").json()
    assert done["state"] == "completed"
    assert api.ask("GET", f"{path}/receipt", "requester").json()["records"]["nodes"] == 1
    name = done["certificate_id"]
    envelope = api.ask("GET", f"/v1/certificates/{name}.dsse", "auditor")
    statement = api.ask("GET", f"/v1/certificates/{name}.json", "auditor").json()
    assert statement["predicate"]["certificate"] == name
    assert name in api.ask("GET", f"/v1/certificates/{name}.html", "auditor").text
    for sent in (envelope.text, envelope.json()):
        verified = api.ask("POST", "/v1/certificates:verify", "auditor", json={"envelope": sent})
        assert verified.json()["ok"]
    assert api.ask("DELETE", path, "requester").status_code == 409


def test_reading_routes_answer(api: Api) -> None:
    for path in (
        "/v1/status",
        "/v1/shards",
        "/v1/shards/0",
        "/v1/shard-graph",
        "/v1/history?days=7",
        "/v1/artifacts?limit=3",
        "/v1/backups",
        "/v1/deliveries?state=dead",
        "/v1/certificates",
        "/v1/keys",
        "/v1/audit?newest_first=true&limit=2",
        "/v1/audit/head",
        "/v1/api-keys",
        "/v1/webhook-secrets",
        "/v1/erasures?state=open&limit=2",
    ):
        answer = api.ask("GET", path)
        assert answer.status_code == 200, (path, answer.text)
    picture = api.ask("GET", "/v1/shard-graph.svg")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert picture.text.count("<circle") == 3


def guarded(api: Api) -> list[tuple[str, str, tuple[str, ...]]]:
    found = []
    for route in api.client.app.routes:  # type: ignore[attr-defined]
        roles = rule_of(route.endpoint).roles if hasattr(route, "endpoint") else None
        if route.path.startswith("/v1/"):
            assert roles is not None, f"{route.path} has no rule"
            found += [(method, route.path, roles) for method in route.methods]
    assert len(found) > 30
    return found


PLACES = {
    "{request_id}": "req_01J8V300000000000000000000",
    "{plan_id}": "pln_" + "0" * 24,
    "{certificate_id}": "cert_" + "0" * 26,
    "{shard}": "0",
    "{key_id}": "0" * 16,
    "{secret_id}": "whs_" + "0" * 16,
    "{delivery_id}": "dlv_" + "0" * 26,
    "{action}": "approve",
}


def filled(path: str) -> str:
    for name, value in PLACES.items():
        path = path.replace(name, value)
    return path


def test_no_route_answers_without_a_valid_key(api: Api) -> None:
    for method, path, _ in guarded(api):
        for wrong in (
            "",
            "Bearer",
            "Bearer nonsense",
            "Basic YTpi",
            f"Bearer uw_k1_{'0' * 16}_{'A' * 43}",
        ):
            headers = {"Authorization": wrong} if wrong else {}
            answer = api.client.request(method, filled(path), headers=headers, content=b"{")
            assert answer.status_code == 401, (method, path, wrong)
            assert answer.headers["content-type"] == PROBLEM
            assert answer.headers["www-authenticate"].startswith("Bearer")


def test_no_route_answers_another_role(api: Api) -> None:
    for method, path, allowed in guarded(api):
        for role in ROLES:
            answer = api.ask(method, filled(path), role, content=b"{")
            if may(role, *allowed):
                assert answer.status_code not in (401,), (method, path, role)
            else:
                assert answer.status_code == 403, (method, path, role)
                assert answer.json()["code"] == "UW-S003"


def test_an_action_needs_its_own_role(api: Api, ids: Any) -> None:
    made = api.ask("POST", "/v1/erasures", "requester", json=nodes(ids[2])).json()
    path = f"/v1/erasures/{made['request_id']}"

    assert api.ask("POST", f"{path}:hold", "requester", json={"reason": "x"}).status_code == 403
    assert api.ask("POST", f"{path}:retry", "approver").status_code == 403
    assert api.ask("POST", f"{path}:hold", "approver").status_code == 409  # no reason
    held = api.ask("POST", f"{path}:hold", "approver", json={"reason": "a claim"})
    assert held.json()["state"] == "on_hold"
    assert api.ask("POST", f"{path}:release", "operator").json()["state"] == "accepted"
    assert api.ask("POST", f"{path}:publish", "admin").status_code == 422
    assert api.ask("DELETE", path, "requester").status_code == 202


def test_nobody_approves_their_own_request_whatever_their_role(api: Api, ids: Any) -> None:
    made = api.ask("POST", "/v1/erasures", "admin", json=nodes(*ids[3:30])).json()
    assert made["state"] == "needs_approval"
    path = f"/v1/erasures/{made['request_id']}"

    own = api.ask("POST", f"{path}:approve", "admin")
    assert (own.status_code, own.json()["code"]) == (403, "UW-E012")
    assert api.ask("POST", f"{path}:approve", "approver").json()["state"] == "accepted"
    assert api.ask("POST", f"{path}:cancel", "requester").json()["state"] == "cancelled"


def test_one_idempotency_key_asks_once_for_one_caller(api: Api, ids: Any) -> None:
    headers = {"Idempotency-Key": "5f0c"}
    first = api.ask("POST", "/v1/erasures", "requester", json=nodes(ids[4]), headers=headers)
    again = api.ask("POST", "/v1/erasures", "requester", json=nodes(ids[4]), headers=headers)
    other = api.ask("POST", "/v1/erasures", "requester", json=nodes(ids[5]), headers=headers)
    somebody = api.ask("POST", "/v1/erasures", "admin", json=nodes(ids[5]), headers=headers)

    assert first.json()["request_id"] == again.json()["request_id"]
    assert (other.status_code, other.json()["code"]) == (409, "UW-E014")
    assert somebody.status_code == 201


def test_an_accepted_request_has_a_signed_receipt_links_and_an_expected_end(
    api: Api, clock: Clock, ids: Any, office: Office
) -> None:
    made = api.ask("POST", "/v1/erasures", "requester", json=nodes(ids[8])).json()
    path = f"/v1/erasures/{made['request_id']}"
    begins = datetime.fromisoformat(made["cancel_until"]) + timedelta(hours=6)
    late = datetime.fromisoformat(made["expected_completion_at"]) - begins

    assert abs(late.total_seconds() - made["cost"]["estimated_s"]) < 1e-3
    assert made["links"] == {
        "self": path,
        "events": f"{path}/events",
        "acceptance": f"{path}/acceptance",
    }
    envelope = api.ask("GET", made["links"]["acceptance"], "requester")
    assert brief(envelope.text) == made["acceptance_receipt"]
    checked = {"envelope": envelope.json()}
    assert api.ask("POST", "/v1/certificates:verify", "auditor", json=checked).json()["ok"]
    assert not re.search(rf"\b{ids[8]}\b", base64.b64decode(envelope.json()["payload"]).decode())

    body = {"reason": "many requests"}
    extended = api.ask("POST", f"{path}:extend", "operator", json=body).json()
    held = api.ask("POST", f"{path}:hold", "operator", json={"reason": "a claim"}).json()
    assert extended["due_at"] > made["due_at"] and held["expected_completion_at"] is None
    assert held["acceptance_receipt"] == made["acceptance_receipt"]
    assert api.ask("POST", f"{path}:release", "operator").json()["expected_completion_at"]
    clock.forward(hours=40)
    office.system.run()
    done = api.ask("GET", path, "auditor").json()
    assert done["expected_completion_at"] is None
    assert done["links"]["receipt"] == f"{path}/receipt"
    for name in ("self", "receipt", "acceptance", "certificate"):
        assert api.ask("GET", done["links"][name], "auditor").status_code == 200
    assert api.ask("GET", f"{path}/acceptance", "requester").text == envelope.text


def test_what_is_not_accepted_has_no_receipt_yet(api: Api, ids: Any) -> None:
    made = api.ask("POST", "/v1/erasures", "requester", json=nodes(*ids[9:34])).json()
    path = f"/v1/erasures/{made['request_id']}"

    assert (made["state"], made["acceptance_receipt"]) == ("needs_approval", None)
    assert made["expected_completion_at"] is None and "acceptance" not in made["links"]
    assert api.ask("GET", f"{path}/acceptance", "requester").status_code == 404
    approved = api.ask("POST", f"{path}:approve", "approver").json()
    assert approved["acceptance_receipt"] and approved["expected_completion_at"]
    assert api.ask("DELETE", path, "requester").json()["expected_completion_at"] is None


def test_a_request_says_what_is_answered_while_its_shards_retrain(api: Api, ids: Any) -> None:
    def ask(**options: Any) -> Any:
        return api.ask("POST", "/v1/erasures", "requester", json=nodes(ids[6]) | options)

    made = {name: ask(serving_policy=name).json() for name in ("mask", "exclude", "block")}
    assert {name: found["serving_policy"] for name, found in made.items()} == {
        name: name for name in made
    }
    assert ask().json()["serving_policy"] is None
    assert ask(priority="regulator").json()["serving_policy"] == "exclude"
    assert ask(serving_policy="hide").status_code == 422
    csv = {"content": f"id\n{ids[7]}\n".encode(), "headers": {"Content-Type": "text/csv"}}
    path = "/v1/erasures:bulk?kind=nodes&serving_policy=exclude"
    file = api.ask("POST", path, "requester", **csv).json()
    parts = api.ask("GET", f"/v1/erasures?parent_id={file['request_id']}", "requester").json()
    assert [part["serving_policy"] for part in parts["items"]] == ["exclude"]
    for found in (*made.values(), file):
        assert api.ask("DELETE", f"/v1/erasures/{found['request_id']}").status_code == 202


def test_an_unknown_id_is_taken_and_holds_nothing(api: Api) -> None:
    made = api.ask("POST", "/v1/erasures", "requester", json=nodes("nobody-here"))

    assert made.status_code == 201
    assert made.json()["impact"] == {
        "nodes": 0,
        "edges": 0,
        "features": 0,
        "labels": 0,
        "unknown": 1,
    }


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"content": b"id\n{0}\n{1}\n"}, {"Content-Type": "text/csv"}),
        ({"content": b"{2}\n{3}\n"}, {"Content-Type": "text/plain; charset=utf-8"}),
        ({"files": {"file": ("../../etc/passwd.txt", b"{4}\n{5}\n")}}, {}),
    ],
)
def test_a_file_is_one_request_with_a_part_for_each_line(
    api: Api, ids: Any, body: dict[str, Any], headers: dict[str, str]
) -> None:
    def fill(content: bytes) -> bytes:
        for number in range(6):
            content = content.replace(b"{%d}" % number, str(ids[30 + number]).encode())
        return content

    if "content" in body:
        body = {"content": fill(body["content"])}
    else:
        name, content = body["files"]["file"]
        body = {"files": {"file": (name, fill(content))}}
    made = api.ask("POST", "/v1/erasures:bulk?kind=nodes", "requester", headers=headers, **body)

    assert made.status_code == 201, made.text
    assert made.json()["kind"] == "file" and made.json()["impact"]["nodes"] == 2
    key = made.json()["request_id"]
    parts = api.ask("GET", f"/v1/erasures?parent_id={key}", "requester").json()["items"]
    receipts = {item["acceptance_receipt"]["digest"] for item in (made.json(), *parts)}
    assert len(receipts) == 3 and made.json()["expected_completion_at"]
    assert {part["links"]["parent"] for part in parts} == {f"/v1/erasures/{key}"}
    assert len(parts) == 2 and {part["parent_id"] for part in parts} == {key}
    found = [
        {
            item["request_id"]
            for item in api.ask("GET", f"/v1/erasures?limit=500{more}").json()["items"]
        }
        for more in ("", "&parts=true")
    ]
    assert key in found[0] and not found[0] & {part["request_id"] for part in parts}
    assert {key, *(part["request_id"] for part in parts)} <= found[1]


def test_a_bad_file_is_refused_whole(api: Api, ids: Any) -> None:
    wrong = api.ask(
        "POST", "/v1/erasures:bulk", "requester", content=b"name\n1\n",
        headers={"Content-Type": "text/csv"},
    )  # fmt: skip
    assert (wrong.status_code, wrong.json()["code"]) == (422, "UW-G010")
    named = api.ask(
        "POST", "/v1/erasures:bulk", "requester", content=b"id\n1\nada-lovelace\n",
        headers={"Content-Type": "text/csv"},
    )  # fmt: skip
    assert named.json()["detail"].startswith("the file, line 3: a value in column 'id' is no int")
    assert "ada" not in named.text and "/" not in named.json()["detail"]
    other = api.ask(
        "POST",
        "/v1/erasures:bulk",
        "requester",
        content=b"PK",
        headers={"Content-Type": "application/zip"},
    )
    assert other.status_code == 415


def test_pages_follow_cursors_to_the_end(api: Api) -> None:
    seen: list[str] = []
    path = "/v1/erasures?limit=2"
    while path:
        page = api.ask("GET", path, "requester").json()
        seen += [item["request_id"] for item in page["items"]]
        path = f"/v1/erasures?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""

    everything = api.ask("GET", "/v1/erasures?limit=500", "requester").json()["items"]
    assert seen == [item["request_id"] for item in everything] and len(seen) == len(set(seen))


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines]


def test_events_are_resumed_after_the_last_one_seen(api: Api, ids: Any) -> None:
    made = api.ask("POST", "/v1/erasures", "requester", json=nodes(ids[6])).json()
    path = f"/v1/erasures/{made['request_id']}"
    api.ask("POST", f"{path}:hold", "approver", json={"reason": "a claim"})
    api.ask("POST", f"{path}:cancel", "requester")

    whole = api.ask("GET", f"{path}/events", "requester")
    rest = api.ask("GET", f"{path}/events", "requester", headers={"Last-Event-ID": "1"})

    assert whole.headers["content-type"].startswith("text/event-stream")
    assert [event["action"] for event in events_of(whole.text)] == ["accept", "hold", "cancel"]
    assert [event["seq"] for event in events_of(rest.text)] == [2, 3]
    assert "id: 3" in rest.text and "event: cancelled" in rest.text
    for bad in ("-1", "1; DROP TABLE", "9" * 40):
        answer = api.ask("GET", f"{path}/events", "requester", headers={"Last-Event-ID": bad})
        assert answer.status_code == 422
    unknown = api.ask("GET", filled("/v1/erasures/{request_id}/events"), "requester")
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, PROBLEM)


def test_a_key_is_shown_once_and_ends_when_it_is_taken_back(api: Api, office: Office) -> None:
    made = api.ask("POST", "/v1/api-keys", json={"role": "viewer", "note": "wall"}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert api.client.get("/v1/shards", headers=headers).status_code == 200
    listed = api.ask("GET", "/v1/api-keys").text
    secret = made["key"].split("_", 3)[3]
    assert made["key_id"] in listed and secret not in listed
    raw = b"".join(path.read_bytes() for path in office.system.home.glob("ledger.db*"))
    assert secret.encode() not in raw and made["key_id"].encode() in raw

    assert api.ask("DELETE", f"/v1/api-keys/{made['key_id']}").status_code == 200

    assert api.client.get("/v1/shards", headers=headers).status_code == 401
    assert api.ask("DELETE", f"/v1/api-keys/{made['key_id']}").status_code == 404


def test_a_key_ends_at_its_time(api: Api, office: Office, clock: Clock) -> None:
    end = clock().replace(microsecond=0)
    past = api.ask("POST", "/v1/api-keys", json={"role": "viewer", "expires_at": end.isoformat()})
    assert past.status_code == 422
    clock.forward(seconds=-60)
    made = office.create_key("viewer", "test", end)
    assert office.authenticate(made["key"]) == {"key_id": made["key_id"], "role": "viewer"}
    clock.forward(seconds=60)
    assert office.authenticate(made["key"]) is None
    changed = made["key"][:-1] + ("A" if made["key"][-1] != "A" else "B")
    assert office.authenticate(changed) is None


def test_the_table_in_the_docs_is_that_of_the_routes(api: Api) -> None:
    text = (Path(__file__).parents[3] / "docs" / "rest.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+) (\S+)` \| ([a-z, ]+) \|$", text, re.MULTILINE)
    documented = {(method, path): roles for method, path, roles in rows}
    wanted = {}
    for route in api.client.app.routes:  # type: ignore[attr-defined]
        if not hasattr(route, "endpoint") or route.path == "/openapi.json":
            continue
        if route.path.startswith("/console"):  # docs/console.md says who may open which page
            continue
        roles = rule_of(route.endpoint).roles
        for method in route.methods - {"HEAD"}:
            wanted[method, route.path] = "everybody" if roles is None else ", ".join(roles)

    assert documented == wanted

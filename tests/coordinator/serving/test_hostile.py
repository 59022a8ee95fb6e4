"""Bodies, headers and paths of a hostile client; every error is a problem, and none leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest

from cluster.errors import (
    CorruptArtefactError,
    LeaseError,
    NoLeaseError,
    StaleShardError,
    UnknownIdError,
)
from coordinator.serving.api.bodies import check_depth
from coordinator.serving.api.problems import ProblemError
from coordinator.serving.office import Office
from coordinator.serving.settings import ServeSettings
from tests.coordinator.serving.asgi import send_raw
from tests.coordinator.serving.conftest import Api, make_api

STRICT = ServeSettings(
    run_batches=False,
    max_body_bytes=4096,
    max_file_bytes=8192,
    body_timeout_s=0.3,
    predict_rate="3/minute",
    max_ids=5,
)
JSON = (b"content-type", b"application/json")


@pytest.fixture(scope="module")
def strict(office: Office) -> Iterator[Api]:
    api = make_api(office, STRICT)
    with api.client:
        yield api


def key(api: Api, role: str = "admin") -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {api.keys[role]}".encode()


def assert_problem(answer: Any, status: int) -> dict[str, Any]:
    code = getattr(answer, "status_code", getattr(answer, "status", None))
    assert code == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"]
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert {"type", "title", "detail", "code"} <= found.keys()
    return found


# ---- size, time, depth


def test_an_endless_body_is_cut_at_the_limit(strict: Api) -> None:
    for path, limit in (("/v1/predict", 4096), ("/v1/erasures:bulk", 8192)):
        headers = [key(strict), JSON if "bulk" not in path else (b"content-type", b"text/csv")]
        answer = send_raw(strict.client.app, "POST", path, headers, repeat(b"[" * 1024))
        assert_problem(answer, 413)
        assert answer.taken == limit // 1024 + 1


def test_a_declared_length_over_the_limit_is_refused_before_the_body(strict: Api) -> None:
    headers = [key(strict), JSON, (b"content-length", b"99999999999999999999999")]
    answer = send_raw(strict.client.app, "POST", "/v1/predict", headers)
    assert_problem(answer, 413)
    assert answer.taken == 0
    wrong = send_raw(
        strict.client.app, "POST", "/v1/predict", [key(strict), (b"content-length", b"-5")]
    )
    assert_problem(wrong, 400)


def test_a_slow_body_is_given_up(strict: Api) -> None:
    headers = [key(strict), JSON]
    answer = send_raw(strict.client.app, "POST", "/v1/predict", headers, repeat(b" "), pause_s=0.05)
    assert_problem(answer, 408)
    silent = send_raw(strict.client.app, "POST", "/v1/predict", headers)
    assert_problem(silent, 408)


def test_without_a_key_no_body_is_read(strict: Api) -> None:
    answer = send_raw(strict.client.app, "POST", "/v1/erasures:bulk", [], repeat(b"x"))
    assert_problem(answer, 401)
    assert answer.taken == 0


def test_deep_json_is_refused_and_brackets_in_text_are_not(strict: Api) -> None:
    deep = b'{"ids":' + b"[" * 500 + b"]" * 500 + b"}"
    found = strict.ask(
        "POST", "/v1/predict", content=deep, headers={"Content-Type": "application/json"}
    )
    assert "nested" in assert_problem(found, 422)["detail"]

    flat = {"ids": ["[" * 500 + '\\"{{{{']}
    assert strict.ask("POST", "/v1/predict", json=flat).status_code == 200


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 500_000, b'"' * 1_000_001, b"[]" * 500_000])
def test_looking_at_the_depth_takes_no_longer_for_a_crooked_body(body: bytes) -> None:
    check_depth(body, 16)  # quadratic time would take minutes


def test_depth_counts_open_brackets() -> None:
    check_depth(b"[[[]],[[]]]", 3)
    with pytest.raises(ProblemError):
        check_depth(b"[[[[]]]]", 3)
    with pytest.raises(ProblemError):
        check_depth(b'{"a":"\\\\"' + b"[" * 4, 3)


def test_only_json_is_taken_as_json(strict: Api) -> None:
    for kind in ("text/plain", "application/xml", "multipart/form-data; boundary=x", ""):
        headers = {"Content-Type": kind} if kind else {}
        found = strict.ask("POST", "/v1/predict", content=b'{"ids":[1]}', headers=headers)
        assert_problem(found, 415)


def test_long_headers_are_refused(strict: Api) -> None:
    found = strict.ask("GET", "/v1/shards", headers={"X-Long": "x" * 20_000})
    assert_problem(found, 431)


def test_a_form_with_many_parts_is_refused(strict: Api) -> None:
    files = [("file", (f"{n}.csv", b"id\n1\n")) for n in range(9)]
    found = strict.ask("POST", "/v1/erasures:bulk", files=files)
    assert_problem(found, 400)
    empty = strict.ask("POST", "/v1/erasures:bulk", files={"other": ("a.csv", b"id\n1\n")})
    assert_problem(empty, 422)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"garbage"),
        ("multipart/form-data; boundary=x", b"--x\r\nbad header\r\n\r\n"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: x\r\n\r\n1\r\n--x",
        ),
        ("multipart/form-data; boundary=" + "x" * 300, b"--x"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; charset=nonsense; boundary=x", b"--x\r\n"),
    ],
)
def test_crooked_forms_are_problems(strict: Api, kind: str, body: bytes) -> None:
    found = strict.ask("POST", "/v1/erasures:bulk", content=body, headers={"Content-Type": kind})
    assert found.status_code in (400, 422)
    assert_problem(found, found.status_code)


# ---- what is in them


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'{"ids":[true]}',
        b'{"ids":[1.5]}',
        b'{"ids":[NaN]}',
        b'{"ids":[1e999]}',
        b'{"ids":[%d]}' % 2**63,
        b'{"ids":[' + b"9" * 3000 + b"]}",
        b'{"ids":["\\ud800"]}',
        b'{"\\ud800":1,"ids":[1]}',
        b'{"ids":[1],"evil":NaN}',
        b'{"ids":"abc"}',
        b'{"ids":[]}',
        b'{"ids":[1],"top_k":true}',
        b'{"ids":[1,2,3,4,5,6]}',
        b"\xff\xfe",
        '{"ids":["ü"]}'.encode("utf-16"),
    ],
)
def test_a_body_that_is_not_understood_is_a_problem_without_what_was_sent(
    api: Api, strict: Api, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    which = strict if body.count(b",") == 5 else api
    answer = which.ask("POST", "/v1/predict", content=body, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert_problem(answer, answer.status_code)


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "nodes"},
        {"selector": {"ids": [1]}},
        {"kind": "nodes", "selector": {"ids": [1]}, "plan_id": "pln_x"},
        {},
        {"kind": "nodes", "selector": {"ids": [1], "evil": 1}},
        {"kind": "nodes", "selector": {"ids": [1]}, "requested_by": "somebody else"},
        {"kind": "nodes", "selector": {"ids": [1]}, "approved_by": "me"},
        {"kind": "nodes", "selector": {"ids": [1]}, "reason": "\u0000"},
        {"kind": "nodes", "selector": {"ids": [1]}, "received_at": "2026-01-01T00:00:00"},
        {"kind": "nodes", "selector": {"ids": [1]}, "received_at": "9999-12-31T23:59:59-23:59"},
        {"kind": "edges", "selector": {"pairs": [[1]]}},
        {"kind": "predicate", "selector": {"where": "__import__('os')"}},
        {"kind": "subject", "selector": {"subject_id": "ada"}},
        {"kind": "features", "selector": {"ids": [1], "columns": ["f99"]}},
    ],
)
def test_a_request_that_is_wrong_is_refused(api: Api, body: dict[str, Any]) -> None:
    answer = api.ask("POST", "/v1/erasures", json=body)
    assert_problem(answer, 422)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/erasures/../../etc/passwd",
        "/v1/erasures/req_%2e%2e%2f%2e%2e",
        "/v1/erasures/req_0000000000%0d%0aSet-Cookie:x=1",
        "/v1/erasures/req_00000000000'%20OR%201=1--",
        "/v1/certificates/cert_%2fetc%2fpasswd.html",
        "/v1/certificates/<script>alert(1)</script>.html",
        "/v1/shards/99999999999999999999",
        "/v1/shards/-1",
        "/v1/nothing",
        "/v1/shards/",
        "/v1/artifacts?cursor=%00",
        "/v1/audit?cursor=" + "9" * 30,
    ],
)
def test_crooked_paths_are_problems(api: Api, path: str) -> None:
    answer = api.ask("GET", path)
    assert answer.status_code in (404, 422)
    found = assert_problem(answer, answer.status_code)
    assert "location" not in answer.headers and "set-cookie" not in answer.headers
    assert "script" not in json.dumps(found) and "passwd" not in json.dumps(found)


@pytest.mark.parametrize(
    "path", ["//evil.example/v1/shards", "/v1/erasures/req_00000000\x00", "/v1/\r\nX: y", "", "*"]
)
def test_crooked_raw_paths_are_problems(api: Api, path: str) -> None:
    answer = send_raw(api.client.app, "GET", path, [key(api)])
    found = assert_problem(answer, answer.status)
    assert answer.status in (404, 422) and "evil" not in json.dumps(found)
    assert "location" not in answer.headers


def test_a_wrong_method_names_the_right_ones(api: Api) -> None:
    answer = api.ask("PUT", "/v1/predict")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST"
    odd = send_raw(api.client.app, "BREW", "/v1/predict", [key(api)])
    assert_problem(odd, 405)


@pytest.mark.parametrize("value", ["x" * 201, "a b", "a\tb", "\xff", ""])
def test_crooked_idempotency_keys_are_refused(api: Api, value: str) -> None:
    headers = {"Idempotency-Key": value.encode("latin-1")}
    body = {"kind": "nodes", "selector": {"ids": ["nobody"]}}
    answer = api.ask("POST", "/v1/erasures", json=body, headers=headers)
    assert_problem(answer, 422)


def test_a_host_header_reaches_no_answer(api: Api, ids: Any) -> None:
    body = {"kind": "nodes", "selector": {"ids": [ids[0]]}}
    made = api.ask("POST", "/v1/erasure-plans", json=body, headers={"Host": "evil.example"})
    assert made.headers["location"].startswith("/v1/")
    assert "evil" not in made.text


def test_every_answer_carries_the_security_headers(api: Api) -> None:
    for path in ("/docs", "/healthz", "/v1/shards", "/v1/shard-graph.svg", "/nothing"):
        headers = api.ask("GET", path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
    page = api.ask("GET", "/docs").text
    assert "http://" not in page and "https://" not in page and "<script" not in page


# ---- rates and failures


def test_predictions_are_limited_by_key_and_requests_never(strict: Api, office: Office) -> None:
    headers = {"Authorization": f"Bearer {office.create_key('predictor', 'test')['key']}"}

    def predict() -> Any:
        return strict.client.post("/v1/predict", json={"ids": ["nobody"]}, headers=headers)

    assert [predict().status_code for _ in range(3)] == [200, 200, 200]
    limited = predict()
    assert_problem(limited, 429)
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    other = strict.ask("POST", "/v1/predict", "predictor", json={"ids": ["nobody"]})
    assert other.status_code == 200
    for number in range(12):
        body = {"kind": "nodes", "selector": {"ids": [f"nobody-{number}"]}}
        assert strict.ask("POST", "/v1/erasures", "requester", json=body).status_code == 201


@pytest.mark.parametrize(
    "selector",
    [
        ("nodes", {"ids": ["zanzibar"]}),
        ("edges", {"pairs": [["zanzibar", "b"]]}),
        ("features", {"ids": ["zanzibar"], "columns": ["none"]}),
        ("labels", {"ids": ["zanzibar"]}),
    ],
)
def test_ids_that_are_not_here_are_not_repeated(api: Api, selector: Any) -> None:
    kind, parts = selector
    body = {"kind": kind, "selector": parts, "unknown": "raise"}
    answer = api.ask("POST", "/v1/erasure-plans", json=body)
    assert_problem(answer, 422 if kind == "features" else 404)
    assert "zanzibar" not in answer.text


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NoLeaseError("no replica holds a lease"), 503, "UW-S001"),
        (StaleShardError("shard 1 is being retrained"), 503, "UW-S002"),
        (LeaseError("/secret/home: another process"), 503, "UW-H002"),
        (CorruptArtefactError("/secret/home/x", "is gone"), 500, "UW-A001"),
        (UnknownIdError(["a"], "the graph"), 404, "UW-G002"),
        (RuntimeError("secret 4711"), 500, "UW-S500"),
    ],
)
def test_failures_have_their_status_and_keep_secrets(
    api: Api, failure: Exception, status: int, code: str
) -> None:
    api.replicas.failure = failure
    try:
        answer = api.ask("POST", "/v1/predict", json={"ids": [1]})
    finally:
        api.replicas.failure = None

    assert assert_problem(answer, status)["code"] == code
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "secret" not in answer.text

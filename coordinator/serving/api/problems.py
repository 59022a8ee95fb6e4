"""Errors as RFC 9457 problem details: every answer that is no success is one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from cluster.errors import (
    AccessError,
    ApprovalError,
    CapacityError,
    ConfigError,
    DuplicateError,
    GoneError,
    GraphError,
    HoldError,
    HomeError,
    LeaseError,
    NoLeaseError,
    NotFoundError,
    RearrivalError,
    RequestError,
    StalePlanError,
    StaleShardError,
    TransitionError,
    UnknownIdError,
    UnweaveError,
    VerificationError,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
MAX_FINDINGS: Final = 20  # of one body
STATUS: Final[Mapping[type[UnweaveError], int]] = {
    GoneError: 410,
    UnknownIdError: 404,
    NotFoundError: 404,
    StalePlanError: 409,
    TransitionError: 409,
    ApprovalError: 403,
    HoldError: 409,
    DuplicateError: 409,
    RearrivalError: 409,
    AccessError: 403,
    NoLeaseError: 503,
    StaleShardError: 503,
    LeaseError: 503,
    CapacityError: 503,
    HomeError: 503,
    RequestError: 422,
    GraphError: 422,
    ConfigError: 422,
    VerificationError: 422,
}
CODES: Final = {
    400: "UW-S400",
    401: AccessError.code,
    403: AccessError.code,
    404: "UW-S404",
    405: "UW-S405",
    408: "UW-S408",
    413: "UW-S413",
    415: "UW-S415",
    422: "UW-S422",
    429: "UW-S429",
    431: "UW-S431",
    500: "UW-S500",
    503: "UW-S503",
}


class ProblemError(Exception):
    """An error that is answered as it is.

    Attributes:
        status: of HTTP.
        title: what kind of problem, the same for each of its kind.
        detail: what is wrong this time, and what to do.
        code: stable code.
        kind: last part of its type.
        headers: to answer with.
        more: further members.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail)
        phrase = _phrase(status)
        self.status, self.detail, self.title = status, detail, title or phrase
        self.code = code or CODES.get(status, f"UW-S{status}")
        self.kind = kind or re.sub(r"[^a-z]+", "-", phrase.lower()).strip("-")
        self.headers, self.more = dict(headers or {}), dict(more or {})

    def body(self) -> bytes:
        """The problem as JSON in ASCII, so that any text can stand in it."""
        members = {
            "type": f"about:unweave/{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        return json.dumps(self.more | members).encode("ascii")

    def response(self) -> Response:
        """The answer."""
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem_of(error: UnweaveError) -> ProblemError:
    """The problem of an error; what only an operator may see is left to the log."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__.removesuffix("Error")).lower()
    title = (type(error).__doc__ or "").strip().splitlines()[0].rstrip(".") or _phrase(status)
    detail = _detail(error, status)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    return ProblemError(status, detail, title=title, code=error.code, kind=kind, headers=headers)


def _detail(error: UnweaveError, status: int) -> str:
    if isinstance(error, UnknownIdError):  # its text names them
        many = f"{len(error.ids)} {error.kind}(s) are not in {error.graph}"
        return f"{many}; check the ids and their type, or pass unknown='report' to list them"
    if status >= 500 and not isinstance(error, NoLeaseError | StaleShardError):
        return "the operator's log says more, by this code"
    return str(error)


def unexpected() -> ProblemError:
    """What is answered to an error that nobody foresaw."""
    return ProblemError(500, "an unexpected error; the operator's log says more", kind="internal")


def add_handlers(app: FastAPI) -> None:
    """Answer every error as a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(UnweaveError, _on_unweave)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response()


async def _on_unweave(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnweaveError)
    return problem_of(error).response()


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: "there is no such route; GET /docs lists them",
        405: "this route has other methods; see Allow",
    }
    detail = details.get(error.status_code, str(error.detail))
    return ProblemError(error.status_code, detail, headers=error.headers).response()


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return validation_problem(error.errors()).response()


def validation_problem(found: Sequence[Any]) -> ProblemError:
    """What is wrong with a body, a parameter or a header; what was sent is not repeated."""
    errors = [
        {"at": ".".join(map(str, item["loc"])), "problem": str(item["msg"])}
        for item in found[:MAX_FINDINGS]
    ]
    places = ", ".join(dict.fromkeys(item["at"] for item in errors))
    more = {"errors": errors}
    return ProblemError(422, f"not understood: {places}; see errors", kind="validation", more=more)

"""Plans, requests and what people do about them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Path, Query, Request, Response
from pydantic import AwareDatetime, BaseModel
from starlette.formparsers import MultiPartException, MultiPartParser

from coordinator.requests.serving import ServingPolicy
from coordinator.serving.api.bodies import media_type
from coordinator.serving.api.models import (
    Action,
    ActionIn,
    ErasureIn,
    FileKind,
    LookupIn,
    LookupOut,
    OptionsIn,
    PlanIn,
    PlanOut,
    Priority,
    Regulation,
    RequestOut,
    RequestPage,
    SelectorIn,
)
from coordinator.serving.api.problems import ProblemError
from coordinator.serving.api.routing import (
    Asker,
    Services,
    Serving,
    allow,
    new_router,
    problems,
    services_of,
)
from coordinator.serving.asked import own_key
from coordinator.serving.office import Office
from coordinator.serving.roles import (
    ACTION_ROLES,
    APPROVER,
    AUDITOR,
    OPERATOR,
    REQUESTER,
    may,
)

router = new_router("erasures")

READERS = (REQUESTER, APPROVER, OPERATOR, AUDITOR)
DSSE = "application/vnd.dsse.envelope.v1+json"
RequestId = Annotated[str, Path(pattern=r"^req_[0-9A-Za-z]{8,40}$", description="req_...")]
PlanId = Annotated[str, Path(pattern=r"^pln_[0-9a-f]{24}$", description="pln_...")]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9A-Za-z_/-]{1,200}$")]
Limit = Annotated[int, Query(ge=1, le=500)]
IdempotencyKey = Annotated[
    str | None, Header(pattern=r"^[\x21-\x7e]{1,200}$", description="the same key asks once")
]


# ---- plans and look-ups


@router.post(
    "/erasure-plans",
    status_code=201,
    response_model=PlanOut,
    responses=problems(404, 410, 413, 415),
)
@allow(REQUESTER)
async def make_plan(body: PlanIn, services: Serving, response: Response) -> Any:
    """Say what an erasure would do; changes nothing. The plan is kept for a while."""
    asked = _asked(body.kind, body.selector, services)
    plan = await services.office.ask(Office.plan, asked, body.unknown, body.regulation)
    response.headers["Location"] = f"/v1/erasure-plans/{plan['plan_id']}"
    return plan


@router.get("/erasure-plans/{plan_id}", response_model=PlanOut, responses=problems(404))
@allow(REQUESTER)
async def read_plan(plan_id: PlanId, services: Serving) -> Any:
    """A plan that was made before."""
    return await services.office.ask(Office.kept_plan, plan_id)


@router.post("/subjects:lookup", response_model=LookupOut, responses=problems(413, 415))
@allow(REQUESTER)
async def look_up(body: LookupIn, services: Serving, caller: Asker) -> Any:
    """Count how much of what is asked is here; noted in the audit log."""
    asked = _asked(body.kind, body.selector, services)
    return await services.office.ask(Office.lookup, asked, caller.name)


# ---- requests


@router.post(
    "/erasures",
    status_code=201,
    response_model=RequestOut,
    responses=problems(404, 409, 413, 415),
)
@allow(REQUESTER)
async def submit(
    body: ErasureIn,
    services: Serving,
    caller: Asker,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Ask to forget; once this is answered, no prediction reads the records.

    What is not here is taken too, and its certificate says that nothing was held.
    """
    if (body.kind is None) != (body.selector is None) or (body.kind is None) == (
        body.plan_id is None
    ):
        raise ProblemError(422, "give either kind and selector, or plan_id", kind="validation")
    asked = None
    if body.kind is not None and body.selector is not None:
        asked = _asked(body.kind, body.selector, services)
    options = _options(body, caller.name, idempotency_key)
    made = await services.office.ask(Office.submit, asked, body.plan_id, options)
    response.headers["Location"] = f"/v1/erasures/{made['request_id']}"
    return made


_FILE = {
    "requestBody": {
        "required": True,
        "content": {
            "text/csv": {"schema": {"type": "string"}, "example": "id\n17\n"},
            "text/plain": {"schema": {"type": "string"}, "example": "17\n"},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


@router.post(
    "/erasures:bulk",
    status_code=201,
    response_model=RequestOut,
    responses=problems(400, 409, 413, 415),
    openapi_extra=_FILE,
)
@allow(REQUESTER, is_file=True)
async def submit_file(
    request: Request,
    services: Serving,
    caller: Asker,
    response: Response,
    kind: FileKind = "nodes",
    hashed: bool = False,
    regulation: Regulation | None = None,
    priority: Priority = "normal",
    serving_policy: ServingPolicy | None = None,
    received_at: AwareDatetime | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Ask to forget every line of a file: one request, and a part of it for each line."""
    content, form = await _file_of(request)
    wanted = OptionsIn(
        regulation=regulation,
        priority=priority,
        serving_policy=serving_policy,
        received_at=received_at,
    )
    options = _options(wanted, caller.name, idempotency_key)
    made = await services.office.ask(Office.submit_file, content, form, kind, hashed, options)
    response.headers["Location"] = f"/v1/erasures/{made['request_id']}"
    return made


@router.get("/erasures", response_model=RequestPage)
@allow(*READERS)
async def list_requests(
    services: Serving,
    state: Annotated[str | None, Query(pattern=r"^[a-z_]{1,40}$")] = None,
    due_before: AwareDatetime | None = None,
    kind: Annotated[str | None, Query(pattern=r"^[a-z]{1,40}$")] = None,
    parent_id: Annotated[str | None, Query(pattern=r"^req_[0-9A-Za-z]{8,40}$")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    parts: bool = False,
) -> Any:
    """Requests in the order of their receipt; state may be ``open`` or ``closed``.

    Parts of files are listed with their parent's id as ``parent_id``, or with ``parts``.
    """
    ask = services.office.ask
    return await ask(Office.find, state, due_before, kind, parent_id, cursor, limit, parts)


@router.get("/erasures/{request_id}", response_model=RequestOut, responses=problems(404))
@allow(*READERS)
async def read_request(request_id: RequestId, services: Serving) -> Any:
    """One request and where it stands."""
    return await services.office.ask(Office.request, request_id)


@router.get("/erasures/{request_id}/receipt", responses=problems(404))
@allow(*READERS)
async def read_receipt(request_id: RequestId, services: Serving) -> dict[str, Any]:
    """What a request did, once models without the records are live."""
    found = await services.office.ask(Office.request, request_id)
    if found["receipt"] is None:
        raise ProblemError(404, f"the request is {found['state']} and has no receipt", kind="early")
    receipt: dict[str, Any] = found["receipt"]
    return receipt | {"certificate_id": found["certificate_id"]}


@router.get("/erasures/{request_id}/acceptance", responses=problems(404))
@allow(*READERS)
async def read_acceptance(request_id: RequestId, services: Serving) -> Response:
    """The signed receipt of a request's acceptance, byte for byte as it was made then."""
    envelope = await services.office.ask(Office.acceptance, request_id)
    return Response(envelope, media_type=DSSE)


@router.delete(
    "/erasures/{request_id}",
    status_code=202,
    response_model=RequestOut,
    responses=problems(404, 409),
)
@allow(REQUESTER)
async def cancel(request_id: RequestId, services: Serving, caller: Asker) -> Any:
    """Take a request back, while its window is open."""
    return await services.office.ask(Office.act, request_id, "cancel", caller.name)


@router.post(
    "/erasures/{request_id}:{action}",
    response_model=RequestOut,
    responses=problems(404, 409, 413, 415),
)
@allow(REQUESTER, APPROVER, OPERATOR)
async def act(
    request_id: RequestId,
    action: Action,
    services: Serving,
    caller: Asker,
    body: ActionIn | None = None,
) -> Any:
    """Approve, reject, hold, release, extend, retry, expedite or cancel a request."""
    allowed = ACTION_ROLES[action]
    if not may(caller.role, *allowed):
        needs = " or ".join(allowed)
        raise ProblemError(403, f"the role {caller.role} may not {action}; it needs {needs}")
    reason = body.reason if body is not None else ""
    return await services.office.ask(Office.act, request_id, action, caller.name, reason)


# ---- parts


def _asked(kind: str, selector: SelectorIn, services: Services) -> dict[str, Any]:
    """Kind and selector as the office takes them.

    Raises:
        ProblemError: 422, too many ids.
    """
    parts, most = selector.model_dump(), services.settings.max_ids
    named = len(parts.get("ids", ())) + len(parts.get("pairs", ()))
    if named > most:
        text = f"{named} ids, {most} at most; send a file to POST /v1/erasures:bulk"
        raise ProblemError(422, text, kind="validation")
    return {"kind": kind, "selector": parts}


def _options(body: BaseModel, name: str, key: str | None) -> dict[str, Any]:
    """Options as the office takes them; an idempotency key counts for its caller alone."""
    wanted = body.model_dump(include=set(OptionsIn.model_fields))
    return wanted | {"requested_by": name, "idempotency_key": own_key(name, key)}


async def _file_of(request: Request) -> tuple[bytes, str]:
    """The file of a request, and whether it is ``csv`` or ``txt``.

    Raises:
        ProblemError: 415, or 422 where there is no file in the form.
    """
    found = media_type(request)
    forms = {"text/csv": "csv", "text/plain": "txt"}
    if found in forms:
        return await request.body(), forms[found]
    if found != "multipart/form-data":
        raise ProblemError(415, "send text/csv, text/plain or multipart/form-data")
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=10)
    parser.spool_max_size = services_of(request).settings.max_file_bytes  # never to the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ProblemError(400, f"the form cannot be read: {error.message}") from None
    upload = form.get("file")
    if upload is None or isinstance(upload, str):
        raise ProblemError(422, "the form has no file named 'file'", kind="validation")
    is_text = (upload.filename or "").lower().endswith(".txt")
    return await upload.read(), "txt" if is_text else "csv"

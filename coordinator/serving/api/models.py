"""Bodies of requests and answers, as the OpenAPI document shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StrictInt

from coordinator.requests.serving import ServingPolicy
from coordinator.serving.roles import ROLES

Role = Literal["viewer", "predictor", "requester", "approver", "operator", "auditor", "admin"]
Kind = Literal["nodes", "edges", "features", "labels", "subject", "predicate"]
FileKind = Literal["nodes", "edges", "features", "labels", "subjects"]
Action = Literal["approve", "reject", "hold", "release", "extend", "retry", "expedite", "cancel"]
Priority = Literal["normal", "urgent", "regulator"]
Regulation = Literal["gdpr", "uk_gdpr", "ccpa", "contract"]
assert set(ROLES) == set(Role.__args__)  # type: ignore[attr-defined]

_PLAIN = frozenset("\t\n\r")


def _printable(text: str) -> str:
    if any(ord(char) < 32 and char not in _PLAIN for char in text):
        raise ValueError("it holds control characters")
    return text


Text = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
IntId = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
TextId = Annotated[str, Field(min_length=1, max_length=1000)]
Id = IntId | TextId
Pair = Annotated[list[Id], Field(min_length=2, max_length=2)]


class In(BaseModel):
    """A body that takes no field it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class IdsIn(In):
    """Of kind nodes, labels or features; of features all columns."""

    ids: list[Id]


class CellsIn(In):
    """Of kind features: some columns of some nodes."""

    ids: list[Id]
    columns: Annotated[list[Name], Field(min_length=1)]


class PairsIn(In):
    """Of kind edges: (u, v) each."""

    pairs: list[Pair]


class PersonIn(In):
    """Of kind subject: a person of the subject map."""

    subject_id: Id


class WhereIn(In):
    """Of kind predicate: the nodes for which it holds, as ``type = 'account'``."""

    where: Annotated[str, Field(min_length=1, max_length=4000)]


SelectorIn = IdsIn | CellsIn | PairsIn | PersonIn | WhereIn


class PlanIn(In):
    """What to plan."""

    kind: Kind
    selector: SelectorIn
    unknown: Literal["raise", "report"] = Field(
        "report", description="whether ids that are not here are listed or refused"
    )
    regulation: Regulation | None = None


class LookupIn(In):
    """What to count."""

    kind: Kind
    selector: SelectorIn


class CallbackIn(In):
    """Who is told of every change of state."""

    url: Annotated[str, Field(min_length=1, max_length=2000)]
    secret_id: Name


class OptionsIn(In):
    """How a request is to be taken."""

    regulation: Regulation | None = None
    priority: Priority = "normal"
    reason: Text = ""
    serving_policy: ServingPolicy | None = Field(
        default=None,
        description="while its shards retrain; else that of the service, exclude for a regulator",
    )
    external_request_id: Name | None = Field(
        default=None, description="your own id; the same asks once"
    )
    received_at: AwareDatetime | None = Field(
        default=None, description="when it reached you; its clock starts then"
    )
    callbacks: Annotated[list[CallbackIn], Field(max_length=5)] = []


class ErasureIn(OptionsIn):
    """A request: kind and selector, or the id of a plan."""

    kind: Kind | None = None
    selector: SelectorIn | None = None
    plan_id: Name | None = None


class ActionIn(In):
    """Why; needed to reject, hold and extend."""

    reason: Text = ""


class PredictIn(In):
    """Which nodes to predict."""

    ids: Annotated[list[Id], Field(min_length=1)]
    policy: ServingPolicy | None = Field(
        default=None, description="while shards retrain; else the strictest of open requests'"
    )
    top_k: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None


class VerifyIn(In):
    """A certificate or an acceptance receipt: the DSSE envelope, as text or the object itself."""

    envelope: str | dict[str, Any]


class KeyIn(In):
    """A new key."""

    role: Role
    note: Text = ""
    expires_at: AwareDatetime | None = None


class SecretIn(In):
    """A new signing secret."""

    note: Text = ""


# ---- answers


class Out(BaseModel):
    """An answer; a later release may add fields."""

    model_config = ConfigDict(extra="allow")


class ProblemOut(Out):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow", title="Problem")
    type: str
    title: str
    status: int
    detail: str
    code: str


class PlanOut(Out):
    """What an erasure would do."""

    plan_id: str
    kind: str
    epoch: int
    records: dict[str, int]
    shards: list[int]
    estimated_seconds: float
    full_retrain_seconds: float
    purges: dict[str, int]
    kept: dict[str, int]
    already: dict[str, int]
    unknown: int
    unknown_ids: list[Any]
    subjects: int
    regulation: str
    due_at: datetime
    expires_at: datetime


class AcceptanceOut(Out):
    """A signed receipt of acceptance in short; the envelope is at ``links.acceptance``."""

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    signature: Annotated[str, Field(pattern=r"^ed25519:[0-9A-Za-z+/=]{88}$")]
    key_id: str


class RequestOut(Out):
    """A request and where it stands; it names no record."""

    request_id: str
    external_request_id: str | None
    kind: str
    state: str
    epoch: int | None
    is_closed: bool
    reason: str
    regulation: str
    priority: str
    serving_policy: ServingPolicy | None
    submitted_at: datetime | None
    received_at: datetime
    accepted_at: datetime | None
    due_at: datetime
    cancel_until: datetime
    expected_completion_at: datetime | None
    completed_at: datetime | None
    requested_by: str
    approved_by: str
    batch_id: str | None
    parent_id: str | None
    duplicate_of: str | None
    attempts: int
    impact: dict[str, int]
    shards: list[int]
    cost: dict[str, float | None]
    receipt: dict[str, Any] | None
    certificate_id: str | None
    callbacks: list[dict[str, Any]]
    progress: dict[str, Any] | None
    masked: bool
    actions: list[str]
    acceptance_receipt: AcceptanceOut | None
    links: dict[str, str]


class RequestPage(Out):
    """Some requests, and where the next ones are."""

    items: list[RequestOut]
    next_cursor: str | None


class Page(Out):
    """Some items, and where the next ones are."""

    items: list[dict[str, Any]]
    next_cursor: str | int | None


class PredictOut(Out):
    """Answers of one generation under one mask."""

    generation: int
    epoch: int
    policy: ServingPolicy
    stale_shards: list[int]
    shard_policies: dict[str, ServingPolicy]
    results: list[dict[str, Any]]


class LookupOut(Out):
    """How much of what is asked is here."""

    found: int
    unknown: int
    gone: int
    kind: str
    records: dict[str, int]


class KeyOut(Out):
    """A key without its secret."""

    key_id: str
    role: str
    note: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    deleted_at: datetime | None
    is_valid: bool


class NewKeyOut(KeyOut):
    """A new key; ``key`` is shown this once."""

    key: str

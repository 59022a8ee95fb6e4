"""Certificates, keys and the audit log, for whoever does not want to trust this system."""

from __future__ import annotations

import json
from html import escape
from typing import Annotated, Any

from fastapi import Path, Query, Response
from fastapi.responses import HTMLResponse

from coordinator.evidence.describe import describe
from coordinator.serving.api.erasures import DSSE, Cursor, Limit
from coordinator.serving.api.models import Page, VerifyIn
from coordinator.serving.api.routing import Serving, allow, new_router, problems
from coordinator.serving.office import Office
from coordinator.serving.roles import APPROVER, AUDITOR, OPERATOR, REQUESTER

router = new_router("evidence")

READERS = (REQUESTER, APPROVER, AUDITOR, OPERATOR)
CertificateId = Annotated[
    str, Path(pattern=r"^(cert|req)_[0-9A-Za-z]{8,40}$", description="cert_... or req_...")
]


@router.get("/certificates", response_model=Page, responses=problems(404))
@allow(*READERS)
async def list_certificates(services: Serving, cursor: Cursor = None, limit: Limit = 50) -> Any:
    """Certificates in the order of their issue."""
    return await services.office.ask(Office.certificates, cursor, limit)


@router.get("/certificates/{certificate_id}.dsse", responses=problems(404))
@allow(*READERS)
async def read_envelope(certificate_id: CertificateId, services: Serving) -> Response:
    """The signed envelope, byte for byte as it was issued."""
    found = await services.office.ask(Office.certificate, certificate_id)
    return Response(found["envelope"], media_type=DSSE)


@router.get("/certificates/{certificate_id}.json", responses=problems(404))
@allow(*READERS)
async def read_statement(certificate_id: CertificateId, services: Serving) -> dict[str, Any]:
    """The in-toto statement alone, its signature checked."""
    found = await services.office.ask(Office.certificate, certificate_id)
    statement: dict[str, Any] = found["statement"]
    return statement


@router.get(
    "/certificates/{certificate_id}.html",
    response_class=HTMLResponse,
    responses=problems(404),
)
@allow(*READERS)
async def read_page(certificate_id: CertificateId, services: Serving) -> HTMLResponse:
    """The certificate for people, as a plain page."""
    found = await services.office.ask(Office.certificate, certificate_id)
    name, text = escape(found["certificate_id"]), escape(describe(found["statement"]))
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        f"<h1>Certificate {name}</h1><pre>{text}</pre>"
        f'<p><a href="{name}.dsse">signed envelope</a>, <a href="{name}.json">statement</a></html>'
    )


@router.get("/certificates/{certificate_id}", responses=problems(404))
@allow(*READERS)
async def read_certificate(certificate_id: CertificateId, services: Serving) -> dict[str, Any]:
    """A certificate by its own id or by its request's."""
    return await services.office.ask(Office.certificate, certificate_id)


@router.post("/certificates:verify", responses=problems(413, 415))
@allow(*READERS)
async def verify(body: VerifyIn, services: Serving) -> dict[str, Any]:
    """Check a certificate or an acceptance receipt; ``ok`` says the outcome."""
    envelope = body.envelope if isinstance(body.envelope, str) else json.dumps(body.envelope)
    return await services.office.ask(Office.verify, envelope)


@router.get("/keys")
@allow(*READERS)
async def list_issuer_keys(services: Serving) -> dict[str, Any]:
    """The issuer's public keys, the one in use first."""
    return {"items": await services.office.ask(Office.keys)}


@router.get("/audit", response_model=Page)
@allow(AUDITOR)
async def read_audit(
    services: Serving,
    cursor: Annotated[int | None, Query(ge=0, lt=2**53)] = None,
    limit: Limit = 50,
    newest_first: bool = False,
) -> Any:
    """Rows of the audit log; each is hashed together with all before it."""
    return await services.office.ask(Office.audit, cursor, limit, newest_first)


@router.get("/audit/head")
@allow(AUDITOR)
async def read_audit_head(services: Serving) -> dict[str, Any]:
    """Number and hash of the last row, and the last signature over the log."""
    return await services.office.ask(Office.audit_head)

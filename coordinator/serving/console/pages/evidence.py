"""Certificates, the artefact ledger, the audit log."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import segno
from fastapi import Response
from fastapi.responses import JSONResponse
from markupsafe import Markup

from coordinator.serving.console.desk import Desk, Visit
from coordinator.serving.console.refusals import refusal
from coordinator.serving.office import Office

NUMBER: Final = re.compile(r"[0-9]{1,18}")
PHASES: Final = ("received", "accepted", "started", "unlearned", "purged", "issued", "due")
SHORT_CODE: Final = 8  # hex digits that two people can compare aloud
ENVELOPE_TYPE: Final = "application/vnd.in-toto+json"


async def certificates(desk: Desk, visit: Visit) -> Response:
    """All of them, paged."""
    cursor = visit.query("cursor") or None
    found = await desk.ask(Office.certificates, cursor, desk.settings.page_size)
    return desk.page(
        visit,
        "certificates.html",
        certificates=found["items"],
        next_cursor=found["next_cursor"],
        first=cursor is None,
    )


async def certificate(desk: Desk, visit: Visit) -> Response:
    """One certificate for people."""
    found = await desk.ask(Office.certificate, visit.request.path_params["certificate_id"])
    report = await desk.ask(Office.verify, found["envelope"])
    digest = digest_of(found["envelope"])
    facts = found["statement"]["predicate"]
    return desk.page(
        visit,
        "certificate.html",
        facts=facts,
        times=sorted(facts["times"].items(), key=lambda item: (item[1], _rank(item[0]))),
        digest=digest,
        short_code=short_code(digest),
        qr=qr_code(f"sha256:{digest}"),
        report=report,
    )


def _rank(phase: str) -> int:
    return PHASES.index(phase) if phase in PHASES else len(PHASES)


async def envelope(desk: Desk, visit: Visit) -> Response:
    """The signed envelope, byte for byte, to keep."""
    found = await desk.ask(Office.certificate, visit.request.path_params["certificate_id"])
    name = f"{found['certificate_id']}.dsse.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(found["envelope"], media_type=ENVELOPE_TYPE, headers=headers)


async def issuer_keys(desk: Desk, visit: Visit) -> Response:
    """The issuer's public keys, for the check in the browser."""
    return JSONResponse({"keys": await desk.ask(Office.keys)})


def digest_of(envelope: str) -> str:
    """SHA-256 of the envelope in hex."""
    return hashlib.sha256(envelope.encode()).hexdigest()


def short_code(digest: str) -> str:
    """Its beginning in two groups."""
    half = SHORT_CODE // 2
    return f"{digest[:half]} {digest[half:SHORT_CODE]}".upper()


def qr_code(text: str) -> Markup:
    """The text as a QR code in SVG; its quiet zone is white in every colour scheme."""
    svg = segno.make(text, error="m", micro=False).svg_inline(
        scale=3, border=4, light="#fff", svgclass="qr", lineclass=None, omitsize=True
    )
    return Markup(svg.replace("<svg ", '<svg role="img" aria-label="QR code of the digest" ', 1))


async def artefacts(desk: Desk, visit: Visit) -> Response:
    """Every file that was made from the graph, paged, and the backups."""
    cursor = visit.query("cursor") or None
    found = await desk.ask(Office.artefacts, cursor, desk.settings.page_size)
    return desk.page(
        visit,
        "artefacts.html",
        artefacts=found["items"],
        next_cursor=found["next_cursor"],
        first=cursor is None,
        backups=await desk.ask(Office.backups),
    )


async def audit(desk: Desk, visit: Visit) -> Response:
    """The audit log, paged, and its head."""
    cursor = visit.query("cursor")
    if cursor and not NUMBER.fullmatch(cursor):
        raise refusal(400, "No such page", "cursor is the number of a row")
    found = await desk.ask(
        Office.audit, int(cursor) if cursor else None, desk.settings.page_size, newest_first=True
    )
    return desk.page(
        visit,
        "audit.html",
        rows=[row | {"about": _about(row)} for row in found["items"]],
        next_cursor=found["next_cursor"],
        first=not cursor,
        head=await desk.ask(Office.audit_head),
    )


def _about(row: Mapping[str, Any]) -> str:
    """What a row is about, in one line; the log holds no ids of records."""
    parts = [f"{name}: {_shown(value)}" for name, value in row["detail"].items()]
    known = [row["request_id"] or "", *(part for part in parts if not part.endswith(": "))]
    return "; ".join(filter(None, known))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{item} {name}" for name, item in value.items() if item)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "" if value is None else str(value)

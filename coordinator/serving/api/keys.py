"""API keys and signing secrets."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from coordinator.serving.api.models import KeyIn, KeyOut, NewKeyOut, SecretIn
from coordinator.serving.api.routing import Asker, Serving, allow, new_router, problems
from coordinator.serving.office import Office
from coordinator.serving.roles import ADMIN

router = new_router("keys")
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
SecretId = Annotated[str, Path(pattern=r"^whs_[0-9a-f]{16}$")]


@router.get("/api-keys")
@allow(ADMIN)
async def list_keys(services: Serving) -> dict[str, list[KeyOut]]:
    """All keys, without their secrets; those that ended too."""
    found = await services.office.ask(Office.list_keys)
    return {"items": [KeyOut(**item) for item in found]}


@router.post("/api-keys", status_code=201, response_model=NewKeyOut, responses=problems(413, 415))
@allow(ADMIN)
async def create_key(body: KeyIn, services: Serving, caller: Asker) -> Any:
    """Make a key; it is shown this once."""
    ask = services.office.ask
    return await ask(Office.create_key, body.role, caller.name, body.expires_at, body.note)


@router.delete("/api-keys/{key_id}", response_model=KeyOut, responses=problems(404))
@allow(ADMIN)
async def delete_key(key_id: KeyId, services: Serving, caller: Asker) -> Any:
    """Take a key back; every ingress knows within two seconds."""
    found = await services.office.ask(Office.delete_key, key_id, caller.name)
    services.door.forget()
    return found


@router.get("/webhook-secrets")
@allow(ADMIN)
async def list_secrets(services: Serving) -> dict[str, Any]:
    """All signing secrets, without what they are."""
    return {"items": await services.office.ask(Office.list_webhook_secrets)}


@router.post("/webhook-secrets", status_code=201, responses=problems(413, 415))
@allow(ADMIN)
async def create_secret(
    services: Serving, caller: Asker, body: SecretIn | None = None
) -> dict[str, Any]:
    """Make a signing secret; it is shown this once."""
    note = body.note if body is not None else ""
    return await services.office.ask(Office.create_webhook_secret, caller.name, note)


@router.delete("/webhook-secrets/{secret_id}", status_code=204, responses=problems(404))
@allow(ADMIN)
async def delete_secret(secret_id: SecretId, services: Serving, caller: Asker) -> None:
    """Take a signing secret back; callbacks that name it fail from then on."""
    await services.office.ask(Office.delete_webhook_secret, secret_id, caller.name)

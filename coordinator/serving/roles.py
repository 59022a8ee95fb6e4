"""Roles of whoever asks over HTTP; none holds another, but admin holds all."""

from __future__ import annotations

from typing import Final

VIEWER: Final = "viewer"  # shards and their state
PREDICTOR: Final = "predictor"  # predictions
REQUESTER: Final = "requester"  # plans, requests, cancelling
APPROVER: Final = "approver"  # the second pair of eyes; holds
OPERATOR: Final = "operator"  # what is stuck; artefacts, deliveries
AUDITOR: Final = "auditor"  # certificates and the audit log
ADMIN: Final = "admin"  # keys, and everything else
ROLES: Final = (VIEWER, PREDICTOR, REQUESTER, APPROVER, OPERATOR, AUDITOR, ADMIN)

ACTION_ROLES: Final = {
    "approve": (APPROVER,),
    "reject": (APPROVER,),
    "hold": (APPROVER, OPERATOR),
    "release": (APPROVER, OPERATOR),
    "extend": (APPROVER, OPERATOR),
    "retry": (OPERATOR,),
    "expedite": (APPROVER, OPERATOR),
    "cancel": (REQUESTER,),
}


def may(role: str, *allowed: str) -> bool:
    """Whether a role is one of those allowed; admin always."""
    return role == ADMIN or role in allowed

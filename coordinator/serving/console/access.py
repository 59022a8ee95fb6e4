"""Which role may see which page and press which button; the admin may everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coordinator.requests.states import Action

VIEWER, PREDICTOR, REQUESTER, APPROVER = "viewer", "predictor", "requester", "approver"
OPERATOR, AUDITOR, ADMIN = "operator", "auditor", "admin"
ROLES: Final = (VIEWER, PREDICTOR, REQUESTER, APPROVER, OPERATOR, AUDITOR, ADMIN)

STAFF: Final = frozenset({REQUESTER, APPROVER, OPERATOR, AUDITOR, ADMIN})  # see requests
PEOPLE: Final = STAFF | {VIEWER}  # a predictor is a program: no page is for it
ASKERS: Final = frozenset({REQUESTER, OPERATOR, ADMIN})
KEEPERS: Final = frozenset({OPERATOR, AUDITOR, ADMIN})
AUDITORS: Final = frozenset({AUDITOR, ADMIN})
OPERATORS: Final = frozenset({OPERATOR, ADMIN})
ADMINS: Final = frozenset({ADMIN})

ACTIONS: Final[Mapping[Action, frozenset[str]]] = {
    Action.APPROVE: frozenset({APPROVER, ADMIN}),
    Action.REJECT: frozenset({APPROVER, ADMIN}),
    Action.EXPEDITE: OPERATORS,
    Action.HOLD: OPERATORS,
    Action.RELEASE: OPERATORS,
    Action.EXTEND: OPERATORS,
    Action.RETRY: OPERATORS,
    Action.CANCEL: ASKERS,
}

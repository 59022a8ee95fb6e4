"""Which role may open which page; actions on requests are as in the API."""

from __future__ import annotations

from typing import Final

from coordinator.serving.roles import (
    ACTION_ROLES,
    ADMIN,
    APPROVER,
    AUDITOR,
    OPERATOR,
    REQUESTER,
    ROLES,
    VIEWER,
)

EVERYBODY: Final = frozenset(ROLES)
STAFF: Final = frozenset({REQUESTER, APPROVER, OPERATOR, AUDITOR, ADMIN})  # see requests
PEOPLE: Final = STAFF | {VIEWER}  # a predictor is a program: no page is for it
ASKERS: Final = frozenset({REQUESTER, ADMIN})
KEEPERS: Final = frozenset({OPERATOR, AUDITOR, ADMIN})
AUDITORS: Final = frozenset({AUDITOR, ADMIN})
OPERATORS: Final = frozenset({OPERATOR, ADMIN})
ADMINS: Final = frozenset({ADMIN})
ACTIONS: Final = {action: frozenset(roles) | {ADMIN} for action, roles in ACTION_ROLES.items()}

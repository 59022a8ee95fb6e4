"""What the console refuses, and the status that an error has."""

from __future__ import annotations

from cluster.errors import (
    AccessError,
    ApprovalError,
    CapacityError,
    DuplicateError,
    HoldError,
    NoLeaseError,
    NotFoundError,
    RequestError,
    StalePlanError,
    TransitionError,
    UnknownIdError,
    UnweaveError,
)

_STATUS: tuple[tuple[type[UnweaveError], int, str], ...] = (
    (NotFoundError, 404, "Not here"),
    (AccessError, 403, "Not allowed"),
    (ApprovalError, 409, "Somebody else has to approve"),
    (HoldError, 409, "On hold"),
    (TransitionError, 409, "Not possible in this state"),
    (DuplicateError, 409, "Asked before"),
    (StalePlanError, 409, "The graph moved on since this plan"),
    (UnknownIdError, 404, "Not here"),
    (RequestError, 400, "That request cannot be taken"),
    (NoLeaseError, 503, "Not ready"),
    (CapacityError, 503, "No room"),
)


class RefusalError(Exception):
    """A page that says why it is not the one asked for."""

    def __init__(self, status: int, title: str, detail: str, *, retry_after_s: int = 0) -> None:
        super().__init__(status, title, detail)
        self.status, self.title, self.detail = status, title, detail
        self.retry_after_s = retry_after_s


class LoginNeededError(Exception):
    """Nobody is logged in, or no longer."""


def refusal_of(error: UnweaveError) -> RefusalError:
    """An error of the core as a page."""
    found = next((row for row in _STATUS if isinstance(error, row[0])), None)
    _, status, title = found or (UnweaveError, 400, "That did not work")
    return RefusalError(status, title, f"{error} ({error.code})")

"""Pages that say why they are not the one asked for: the API's problems, shown to people."""

from __future__ import annotations

from coordinator.serving.api.problems import ProblemError


class LoginNeededError(Exception):
    """Nobody is logged in, or no longer."""


def refusal(status: int, title: str, detail: str, *, retry_after_s: int = 0) -> ProblemError:
    """A problem with a title of its own."""
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    return ProblemError(status, detail, title=title, headers=headers)

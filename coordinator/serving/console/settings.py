"""Knobs of the console."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

PREFIX: Final = "/console"
SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class ConsoleSettings:
    """How the console behaves; it decides nothing about models or requests.

    Attributes:
        secret: signs sessions. Every ingress process of one home needs the same; a random one (the
            default) ends all sessions when the process does.
        session_lifetime: time after which one has to log in again.
        secure_cookies: mark the cookie Secure although the request came as plain HTTP: for an
            ingress behind a proxy that speaks TLS. On HTTPS it always is.
        max_form_bytes: largest form; ids are the most of it.
        form_timeout_s: longest time that a form may take to arrive.
        max_ids: most lines of ids of one request or look-up, as in the API.
        page_size: rows of a page of a list.
        refresh_s: seconds between two looks at what changes by itself.
        history_days: days that the plots go back.
    """

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(SECRET_BYTES), repr=False)
    session_lifetime: timedelta = timedelta(hours=8)
    secure_cookies: bool = False
    max_form_bytes: int = 1 << 20
    form_timeout_s: float = 30.0
    max_ids: int = 10_000
    page_size: int = 25
    refresh_s: int = 2
    history_days: int = 30

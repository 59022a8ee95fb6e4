"""Who is logged in: a signed cookie that names a session and a key, never the key itself."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from coordinator.serving.console.settings import PREFIX, ConsoleSettings

COOKIE: Final = "unweave_console"
SALT: Final = "unweave.console.session"
SID_BYTES: Final = 16
MOST_DOUBLINGS: Final = 20  # of the time to wait; its limit is reached long before
MOST_ENDED: Final = 10_000  # sessions remembered as ended; each is forgotten when it has expired


@dataclass(frozen=True)
class Session:
    """One browser's session.

    Attributes:
        sid: random; a new one at every login, so that none can be planted.
        key_id: id of the API key it was opened with; empty before the login.
    """

    sid: str
    key_id: str = ""


class Sessions:
    """Signs sessions, reads them back, and knows which were ended by logging out."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        self._lifetime_s = settings.session_lifetime.total_seconds()
        self._signer = URLSafeTimedSerializer(
            settings.secret, SALT, signer_kwargs={"digest_method": hashlib.sha256}
        )
        self._ended: dict[str, float] = {}
        self._lock = threading.Lock()

    def read(self, request: Request) -> Session | None:
        """The session of a request's cookie; None without one, or when it is forged or over."""
        text = request.cookies.get(COOKIE)
        if not text:
            return None
        try:
            sid, key_id = self._signer.loads(text, max_age=int(self._lifetime_s))
        except (BadSignature, ValueError, TypeError):
            return None
        with self._lock:
            return None if sid in self._ended else Session(sid, key_id)

    def start(self, key_id: str = "") -> Session:
        """A new session."""
        return Session(secrets.token_urlsafe(SID_BYTES), key_id)

    def end(self, session: Session) -> None:
        """Let nobody use this session again, even with a copy of its cookie."""
        now = time.monotonic()
        with self._lock:
            fresh = {sid: at for sid, at in self._ended.items() if now - at < self._lifetime_s}
            self._ended = dict(list(fresh.items())[-MOST_ENDED + 1 :]) | {session.sid: now}

    def write(self, session: Session, request: Request, response: Response) -> None:
        """Set the cookie."""
        response.set_cookie(
            COOKIE,
            self._signer.dumps([session.sid, session.key_id]),
            max_age=int(self._lifetime_s),
            path=path_of(request),
            secure=self._settings.secure_cookies or request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def csrf_token(self, session: Session) -> str:
        """What a form of this session has to send back."""
        message = f"csrf:{session.sid}".encode()
        return hmac.new(self._settings.secret, message, hashlib.sha256).hexdigest()

    def is_csrf_token(self, session: Session, token: str) -> bool:
        """Whether a form sent back this session's token; compared in constant time."""
        return hmac.compare_digest(self.csrf_token(session).encode(), token.encode())


def path_of(request: Request) -> str:
    """Path of the console as the browser sees it."""
    return str(request.scope.get("root_path", "")) + PREFIX


class LoginBrake:
    """Makes a client that fails to log in wait: nothing for the first few, then twice as long.

    Args:
        clock: seconds that only grow.
    """

    FREE, LONGEST_S, MOST_CLIENTS = 3, 60.0, 4096

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}  # client -> failures, wait until
        self._lock = threading.Lock()

    def wait_s(self, client: str) -> float:
        """Seconds that this client has yet to wait."""
        with self._lock:
            _, until = self._failures.get(client, (0, 0.0))
        return max(0.0, until - self._clock())

    def failed(self, client: str) -> None:
        """Note a failure."""
        with self._lock:
            count = self._failures.pop(client, (0, 0.0))[0] + 1
            wait = (
                min(2.0 ** (min(count, 20) - self.FREE), self.LONGEST_S)
                if count >= self.FREE
                else 0.0
            )
            self._failures[client] = count, self._clock() + wait
            if len(self._failures) > self.MOST_CLIENTS:
                self._failures.pop(next(iter(self._failures)))

    def _wait_after(self, failures: int) -> float:
        over = min(failures - self.FREE, MOST_DOUBLINGS)
        return 0.0 if over < 0 else min(2.0**over, self.LONGEST_S)

    def passed(self, client: str) -> None:
        """Forget the failures of a client that logged in."""
        with self._lock:
            self._failures.pop(client, None)

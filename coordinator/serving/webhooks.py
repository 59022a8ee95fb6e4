"""Calls to other systems: to allowed hosts and public addresses only, signed, never redirected.

The address that is checked is the one that is connected to, so a name that resolves to another
address a moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from cluster.errors import RequestError
from coordinator.serving.settings import ServeSettings

MAX_URL: Final = 2000
MAX_ANSWER_BYTES: Final = 64 << 10
SIGNATURE: Final = "Unweave-Signature"
DELIVERY: Final = "Unweave-Delivery"
PORTS: Final = {"https": 443, "http": 80}
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True)
class Outcome:
    """What became of one call.

    Attributes:
        status: of HTTP; None where there was no answer.
        error: in a word, why it was no success; empty where it was.
    """

    status: int | None
    error: str = ""


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def check_url(url: str, settings: ServeSettings) -> SplitResult:
    """The parts of a callback URL that may be called.

    Raises:
        RequestError: it is none, goes without TLS, or its host is not on the allow-list.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise RequestError("a callback URL cannot be read; give https://host/path") from None
    schemes = ("https", "http") if settings.webhook_http else ("https",)
    is_plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL
    if parts.scheme not in schemes or not host or not is_plain or port == 0:
        raise RequestError(f"a callback URL begins with {' or '.join(schemes)}:// and names a host")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise RequestError(
            "a callback URL holds neither a user nor a fragment; callbacks are signed"
        )
    if not any(_matches(host, allowed) for allowed in settings.webhook_hosts):
        raise RequestError(
            "the host of a callback URL is not on the allow-list; add it to serve.webhook_hosts"
        )
    return parts


def _matches(host: str, allowed: str) -> bool:
    if allowed == "*":
        return True
    host, allowed = host.lower(), allowed.lower()
    return host.endswith(allowed) if allowed.startswith(".") else host == allowed


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, whatever it is wrapped in."""
    try:
        found: Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        last = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if found.ipv4_mapped or found in _NAT64:
            return is_public(str(last))
        if found.sixtofour or found.teredo:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """``t=<seconds>,v1=<hex>``: HMAC-SHA256 of ``<seconds>.<body>``."""
    mac = hmac.digest(secret, b"%d." % timestamp + body, hashlib.sha256)
    return f"t={timestamp},v1={mac.hex()}"


class Caller:
    """Makes calls.

    Attributes:
        settings: hosts and addresses that may be called, time limits.
        resolve: host and port -> addresses.
    """

    def __init__(self, settings: ServeSettings, resolve: Resolve = resolve) -> None:
        self.settings, self.resolve = settings, resolve

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """POST a body; success is a status from 200 to 299, and nothing is followed."""
        try:
            parts = check_url(url, self.settings)
            host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
            address = self._address(host, port)
        except RequestError:
            return Outcome(None, "not_allowed")
        except (OSError, UnicodeError):
            return Outcome(None, "no_such_host")
        if address is None:
            return Outcome(None, "private_address")
        try:
            status = self._send(parts, address, port, body, headers)
        except ssl.SSLError:
            return Outcome(None, "tls")
        except TimeoutError:
            return Outcome(None, "timeout")
        except (OSError, http.client.HTTPException, ValueError):
            return Outcome(None, "no_answer")
        return Outcome(status, "" if 200 <= status < 300 else "status")

    def _address(self, host: str, port: int) -> str | None:
        """An address of a host; None where any of them may not be called."""
        found = list(self.resolve(host, port))
        if not found:
            raise OSError("no address")
        is_open = self.settings.webhook_private or all(is_public(item) for item in found)
        return found[0] if is_open else None

    def _send(
        self, parts: SplitResult, address: str, port: int, body: bytes, headers: Mapping[str, str]
    ) -> int:
        limit = self.settings.webhook_timeout_s
        plain = socket.create_connection((address, port), timeout=limit)
        with _wrapped(plain, parts) as channel:
            end = threading.Timer(limit, _cut, [channel])  # whatever a slow server dribbles
            end.daemon = True
            end.start()
            try:
                if isinstance(channel, ssl.SSLSocket):
                    channel.do_handshake()
                return _talk(parts, channel, body, headers)
            finally:
                end.cancel()


def _wrapped(plain: socket.socket, parts: SplitResult) -> socket.socket:
    """The channel to speak over; of TLS the handshake is still to be done."""
    if parts.scheme == "http":
        return plain
    return ssl.create_default_context().wrap_socket(
        plain, server_hostname=parts.hostname, do_handshake_on_connect=False
    )


def _talk(
    parts: SplitResult, channel: socket.socket, body: bytes, headers: Mapping[str, str]
) -> int:
    """One request over an open channel; returns the status."""
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
    connection.sock = channel
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, body, {**headers, "Host": parts.netloc})
        with connection.getresponse() as answer:
            answer.read(MAX_ANSWER_BYTES)
            return int(answer.status)
    finally:
        connection.close()


def _cut(channel: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(channel, socket.SHUT_RDWR)  # below TLS, which is in use

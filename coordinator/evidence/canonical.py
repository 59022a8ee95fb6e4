"""RFC 8785 canonical JSON, and a reader that takes nothing else."""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from coordinator.evidence.errors import CanonicalError, JsonError


def canonical(value: Any) -> bytes:
    """The one UTF-8 text of a JSON value.

    Raises:
        CanonicalError: it holds what JSON numbers cannot (NaN, an integer beyond 2^53), or a
            type that JSON does not have.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise CanonicalError(
            f"no canonical JSON: {error}; write large integers and times as text"
        ) from None


def read_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object in which no member is named twice.

    Raises:
        JsonError: it is none.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="strict")
        value = json.loads(text, object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise JsonError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise JsonError(f"{where} is {type(value).__name__}, not a JSON object")
    return value


def read_canonical(text: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object that must be in canonical form.

    Raises:
        JsonError: it is no JSON object.
        CanonicalError: the same value has another canonical text.
    """
    value = read_object(text, where)
    if canonical(value) != text:
        raise CanonicalError(f"{where} is not in RFC 8785 canonical form; it was written anew")
    return value


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member is named twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")

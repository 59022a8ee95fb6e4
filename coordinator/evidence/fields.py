"""Strict shapes of JSON values: every field is known, present and of its type, or has its error.

A shape is a type (``str``, ``int``, ``float``, ``bool``), a compiled pattern (text that matches),
:class:`Maybe` (or null), a list ``[shape]``, a mapping ``{str: shape}`` with free names, or a
mapping of field name -> shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from coordinator.evidence.errors import FieldValueError, MissingFieldError, UnknownFieldError

HEX32 = re.compile(r"[0-9a-f]{64}")
HEX = re.compile(r"(?:[0-9a-f]{2})*")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z")
ANY = object()


class Maybe(NamedTuple):
    """A shape, or null."""

    shape: Any


def require(value: Any, shape: Any, path: str) -> None:
    """Check ``value`` against ``shape``.

    Raises:
        MissingFieldError, UnknownFieldError, FieldValueError: naming the field by its path.
    """
    if shape is ANY:
        return
    if isinstance(shape, Maybe):
        if value is not None:
            require(value, shape.shape, path)
    elif isinstance(shape, re.Pattern):
        if not isinstance(value, str) or not shape.fullmatch(value):
            raise FieldValueError(f"{path} does not match {shape.pattern}")
    elif isinstance(shape, list):
        _require_type(value, list, path)
        for number, item in enumerate(value):
            require(item, shape[0], f"{path}[{number}]")
    elif isinstance(shape, Mapping):
        _require_type(value, dict, path)
        _require_members(value, shape, path)
    else:
        _require_type(value, shape, path)


def _require_members(value: dict[str, Any], shape: Mapping[Any, Any], path: str) -> None:
    if str in shape:
        for name, item in value.items():
            require(item, shape[str], f"{path}.{name}")
        return
    missing = sorted(set(shape) - set(value))
    if missing:
        raise MissingFieldError(f"{path} has no field {missing[0]!r}")
    unknown = sorted(set(value) - set(shape))
    if unknown:
        raise UnknownFieldError(f"{path} has a field {unknown[0]!r} that does not belong there")
    for name, item in value.items():
        require(item, shape[name], f"{path}.{name}")


def _require_type(value: Any, kind: Any, path: str) -> None:
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise FieldValueError(f"{path} is {type(value).__name__}, not {kind.__name__}")

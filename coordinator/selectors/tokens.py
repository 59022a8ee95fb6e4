"""A predicate's text in pieces, and errors that point at one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cluster.errors import SelectorError

MAX_LENGTH = 4000  # characters
KEYWORDS = frozenset(
    ["and", "or", "not", "in", "is", "null", "between", "true", "false", "date", "timestamp"]
)
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<string>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")+")
    | (?P<name>[^\W\d]\w*)
    | (?P<sign><=|>=|!=|<>|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_WINDOW = 60  # characters shown on either side of an error


@dataclass(frozen=True)
class Token:
    """A piece of text.

    Attributes:
        kind: ``number``, ``string``, ``column``, ``keyword``, ``sign`` or ``end``.
        text: as it means: keywords in lower case, strings and columns without their quotes.
        at: position of its first character.
    """

    kind: str
    text: str
    at: int


def error_at(text: str, at: int, message: str) -> SelectorError:
    """An error that shows the text with a caret under the position."""
    shown = re.sub(r"\s", " ", text)
    start, end = max(0, at - _WINDOW), at + _WINDOW
    before = "..." if start else ""
    after = "..." if end < len(shown) else ""
    caret = " " * (len(before) + at - start) + "^"
    return SelectorError(
        f"predicate, character {at + 1}: {message}\n  {before}{shown[start:end]}{after}\n  {caret}"
    )


def tokenize(text: str) -> list[Token]:
    """All tokens and an ``end``.

    Raises:
        SelectorError: the text is too long, is no Unicode, or has a character of no meaning.
    """
    if len(text) > MAX_LENGTH:
        raise SelectorError(
            f"the predicate has {len(text)} characters, the most is {MAX_LENGTH}; ask in parts, or "
            "put the ids into a file"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise error_at(
            text.encode("utf-8", "replace").decode(), error.start, "not Unicode text"
        ) from None
    tokens, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise error_at(text, at, _what_is_wrong(text[at]))
        tokens.append(_token(found))
        at = found.end()
    return [*tokens, Token("end", "", len(text.rstrip()))]


def _token(found: re.Match[str]) -> Token:
    kind = str(found.lastgroup)
    raw, at = found[kind], found.start(kind)
    if kind == "string":
        return Token(kind, raw[1:-1].replace("''", "'"), at)
    if kind == "quoted":
        return Token("column", raw[1:-1].replace('""', '"'), at)
    if kind == "name" and raw.lower() in KEYWORDS:
        return Token("keyword", raw.lower(), at)
    return Token("column" if kind == "name" else kind, raw, at)


def _what_is_wrong(character: str) -> str:
    if character == "'":
        return "this text has no end; close it with ' (a quote inside is written twice)"
    if character == '"':
        return 'this column name has no end; close it with " (text stands in single quotes)'
    return f"{character!r} has no meaning here; see docs/selectors.md"

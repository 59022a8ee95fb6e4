"""A small language over node columns, compiled to Arrow expressions; nothing is ever evaluated.

The grammar is in ``docs/selectors.md``. Logic is SQL's: a comparison with an empty cell is neither
true nor false, and neither is its negation, so an empty cell alone never selects a node.
"""

from __future__ import annotations

import datetime
import difflib
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.digest import NodeId
from cluster.errors import shorten
from cluster.graph import Graph
from coordinator.selectors.columns import ARROW_TYPES, Column, column_values, predicate_columns
from coordinator.selectors.tokens import Token, error_at, tokenize

MAX_DEPTH = 32  # parentheses and nots inside each other
_SIGNS: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": eq, "!=": ne, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge,
}  # fmt: skip
_ROW = "\0row"  # no column of a graph is called so
_BITS = 63


@dataclass(frozen=True)
class Predicate:
    """A compiled predicate.

    Attributes:
        expression: Arrow expression over the columns, true where a node is meant.
        columns: the columns it reads.
    """

    expression: Any
    columns: tuple[Column, ...]


def select_nodes(graph: Graph, text: str) -> list[NodeId]:
    """Ids of the nodes that a predicate holds for, ascending.

    Raises:
        SelectorError: the predicate is wrong; shows where.
    """
    predicate = compile_predicate(text, predicate_columns(graph))
    table = pa.table(
        {column.name: column_values(graph, column) for column in predicate.columns}
        | {_ROW: pa.array(np.arange(graph.num_nodes))}
    )
    rows = table.filter(predicate.expression)[_ROW].to_numpy()
    ids: list[NodeId] = graph.ids[rows].tolist()
    return ids


def compile_predicate(text: str, columns: Mapping[str, Column]) -> Predicate:
    """Parse a predicate over some columns.

    Raises:
        SelectorError: it is wrong; shows where, and the nearest column.
    """
    return _Parser(text, columns).parse()


@dataclass(frozen=True)
class _Literal:
    """A value with where it stands; ``kind`` is number, string, bool, date or timestamp."""

    kind: str
    text: str
    at: int


class _Parser:
    """Recursive descent, one method a rule of the grammar."""

    def __init__(self, text: str, columns: Mapping[str, Column]) -> None:
        self.text, self.columns = text, columns
        self.tokens = tokenize(text)
        self.next = 0
        self.used: dict[str, Column] = {}

    def parse(self) -> Predicate:
        expression = self._either(0)
        if self._token.kind != "end":
            raise self._error("expected 'and', 'or' or the end")
        return Predicate(expression, tuple(self.used.values()))

    # ---- tokens

    @property
    def _token(self) -> Token:
        return self.tokens[self.next]

    def _take(self) -> Token:
        token = self._token
        self.next += token.kind != "end"
        return token

    def _accept(self, *texts: str) -> bool:
        """Take the token if it is one of these keywords or signs."""
        hit = self._token.kind in ("keyword", "sign") and self._token.text in texts
        if hit:
            self._take()
        return hit

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._error(f"expected {text!r}")

    def _error(self, message: str, at: int | None = None) -> Exception:
        return error_at(self.text, self._token.at if at is None else at, message)

    # ---- rules

    def _either(self, depth: int) -> Any:
        expression = self._all(depth)
        while self._accept("or"):
            expression = or_(expression, self._all(depth))
        return expression

    def _all(self, depth: int) -> Any:
        expression = self._one(depth)
        while self._accept("and"):
            expression = and_(expression, self._one(depth))
        return expression

    def _one(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} parentheses and nots inside each other")
        if self._accept("not"):
            return ~self._one(depth + 1)
        if self._accept("("):
            expression = self._either(depth + 1)
            self._expect(")")
            return expression
        return self._comparison()

    def _comparison(self) -> Any:
        column = self._column()
        at = self._token.at
        if self._accept("is"):
            return self._is_null(column, at)
        negate = self._accept("not")
        if self._accept("in"):
            expression = self._in(column)
        elif self._accept("between"):
            low = self._literal()
            self._expect("and")
            both = [self._compare(column, ge, low), self._compare(column, le, self._literal())]
            expression = and_(*both)
        elif not negate and self._token.kind == "sign" and self._token.text in _SIGNS:
            sign = self._take()
            if column.kind == "bool" and sign.text not in ("=", "!=", "<>"):
                raise self._error(f"column {column.name!r} is true or false; use = or !=", sign.at)
            return self._compare(column, _SIGNS[sign.text], self._literal())
        else:
            raise self._error(
                "expected a comparison (= != < <= > >=), in (...), between ... and ..., is null"
            )
        return ~expression if negate else expression

    def _column(self) -> Column:
        token = self._token
        if token.kind != "column":
            raise self._error("expected a column" + self._known())
        if token.text not in self.columns:
            near = difflib.get_close_matches(token.text, self.columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else self._known()
            raise self._error(f"no column {token.text!r}{hint}")
        self._take()
        column = self.columns[token.text]
        self.used[column.name] = column
        return column

    def _known(self) -> str:
        return f"; there are {shorten(sorted(self.columns))}"

    def _is_null(self, column: Column, at: int) -> Any:
        negate = self._accept("not")
        self._expect("null")
        if not column.nullable:
            empty = "; an empty cell is '' here" if column.kind == "str" else ""
            raise self._error(f"column {column.name!r} ({column.kind}) is never null{empty}", at)
        is_null = pc.field(column.name).is_null()
        return ~is_null if negate else is_null

    def _in(self, column: Column) -> Any:
        self._expect("(")
        values = [self._literal()]
        while self._accept(","):
            values.append(self._literal())
        self._expect(")")
        kind = ARROW_TYPES[column.kind]
        field = self._field(column, any(value.kind in ("date", "timestamp") for value in values))
        held = field.isin(pa.array([self._value(column, value) for value in values], kind))
        return pc.if_else(field.is_null(), pc.scalar(pa.scalar(None, pa.bool_())), held)

    def _compare(self, column: Column, sign: Callable[[Any, Any], Any], value: _Literal) -> Any:
        scalar = pa.scalar(self._value(column, value), ARROW_TYPES[column.kind])
        field = self._field(column, value.kind in ("date", "timestamp"))
        return sign(field, pc.scalar(scalar))

    def _field(self, column: Column, as_time: bool) -> Any:
        """The column; where it is read as a time, its empty cells are null."""
        field = pc.field(column.name)
        if not as_time:
            return field
        none = pc.scalar(pa.scalar(None, pa.string()))
        return pc.if_else(field == pc.scalar(""), none, field)

    # ---- values

    def _literal(self) -> _Literal:
        token = self._token
        if token.kind in ("number", "string"):
            self._take()
            return _Literal(token.kind, token.text, token.at)
        if self._accept("true", "false"):
            return _Literal("bool", token.text, token.at)
        if self._accept("date", "timestamp"):
            if self._token.kind != "string":
                raise self._error(f"expected text in quotes after {token.text!r}")
            value = _Literal(token.text, self._token.text, self._take().at)
            self._check_time(value)
            return value
        if self._accept("null"):
            raise self._error("null equals nothing; write 'is null'", token.at)
        raise self._error(
            "expected a value: a number, 'text', true, false, date '2026-01-31'; a column stands "
            "on the left only"
        )

    def _check_time(self, value: _Literal) -> None:
        form: Any = datetime.date if value.kind == "date" else datetime.datetime
        example = "2026-01-31" if value.kind == "date" else "2026-01-31T08:00:00Z"
        try:
            good = len(value.text) >= len("2026-01-31") and form.fromisoformat(value.text)
        except ValueError:
            good = None
        if not good or (value.kind == "date" and len(value.text) != len(example)):
            raise self._error(f"no {value.kind}; write {value.kind} '{example}'", value.at)

    def _value(self, column: Column, value: _Literal) -> Any:
        """A literal as a value of a column's type."""
        if column.kind == "bool" and value.kind == "bool":
            return value.text == "true"
        if column.kind in ("int", "float") and value.kind == "number":
            return self._number(column, value)
        if column.kind == "str" and value.kind in ("string", "date", "timestamp"):
            return value.text
        if column.kind == "uuid" and value.kind == "string":
            try:
                return str(uuid.UUID(value.text))
            except ValueError:
                raise self._error("no UUID", value.at) from None
        needed = {
            "int": "a whole number", "float": "a number", "bool": "true or false",
            "str": "text in quotes", "uuid": "a UUID in quotes",
        }  # fmt: skip
        raise self._error(
            f"column {column.name!r} is {column.kind}; compare it with {needed[column.kind]}",
            value.at,
        )

    def _number(self, column: Column, value: _Literal) -> int | float:
        whole = value.text.lstrip("+-").isdigit()
        if column.kind == "float":
            number = float(value.text)
            if not math.isfinite(number) or (whole and int(number) != int(value.text)):
                raise self._error("this number has no exact float64", value.at)
            return number
        if not whole:
            raise self._error(f"column {column.name!r} holds whole numbers; write one", value.at)
        if not -(2**_BITS) <= int(value.text) < 2**_BITS:
            raise self._error("this number does not fit 64 bits", value.at)
        return int(value.text)

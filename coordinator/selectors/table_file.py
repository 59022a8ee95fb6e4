"""CSV, Parquet and plain-text files in batches; every complaint names the line.

Nothing is inferred: text stays text until the caller says what it is, so ``007`` is not 7 by
accident, and a bad value is found with its line and not by a failed cast of a whole column.
"""

from __future__ import annotations

import csv
import difflib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from cluster.errors import LineError, SelectorError, shorten
from cluster.schema import IdType
from coordinator.selectors.lookup import DIGEST_TYPE

Array = npt.NDArray[Any]
Form = Literal["parquet", "csv", "text"]

BATCH_ROWS = 1 << 16
PLAIN_SUFFIXES = (".txt", ".ids")  # one id a line, no header
HEAD_BYTES = 1 << 16
_PARQUET, _GZIP, _UTF16 = b"PAR1", b"\x1f\x8b", (b"\xff\xfe", b"\xfe\xff")
_UNIT_SEPARATOR = "\x1f"  # no id of a plain-text file is cut at it


@dataclass(frozen=True)
class Batch:
    """Some consecutive records of a file.

    Attributes:
        first: number of its first record: a line of a text file, a row of a Parquet file.
        columns: column name -> ``[R]`` Arrow array.
    """

    first: int
    columns: dict[str, Any]

    @property
    def num_rows(self) -> int:
        """R."""
        return len(next(iter(self.columns.values())))


class TableFile:
    """One file of records, read as often as wanted, never as a whole."""

    def __init__(self, path: str | Path) -> None:
        """Look at the first bytes: they decide the form, not the name alone.

        Raises:
            SelectorError: there is no such file, it is empty, or it is UTF-16.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise SelectorError(f"{self.path} is no file; check the path")
        with self.path.open("rb") as file:
            start = file.read(4)
        self.compression = "gzip" if start[:2] == _GZIP else None
        self.form: Form = "parquet" if start == _PARQUET else self._text_form()
        if self.form != "parquet":
            self._check_start()

    def _text_form(self) -> Form:
        name = self.path.with_suffix("") if self.path.suffix == ".gz" else self.path
        if name.suffix == ".parquet":
            raise SelectorError(f"{self.path} is no Parquet file; export it again, or as .csv")
        return "text" if name.suffix in PLAIN_SUFFIXES else "csv"

    def _check_start(self) -> None:
        start = self._head()
        if not start.strip():
            raise SelectorError(f"{self.path} is empty; write one record a line")
        if start[:2] in _UTF16 or b"\0" in start:
            raise SelectorError(f"{self.path} is not UTF-8 (UTF-16?); save it as UTF-8")

    def _head(self) -> bytes:
        try:
            with pa.input_stream(str(self.path), compression=self.compression) as stream:
                start: bytes = stream.read(HEAD_BYTES)
        except OSError as error:
            raise self._unreadable(error) from error
        return start

    def place(self, number: int) -> str:
        """How a message names a record."""
        return f"{self.path}, {'row' if self.form == 'parquet' else 'line'} {number}"

    def _unreadable(self, error: Exception, after: int = 0) -> SelectorError:
        where = f" after {self.place(after)}" if after else f" {self.path}"
        reason = " ".join(str(error).split())
        return SelectorError(f"cannot read{where}: {reason}; mend or export the file again")

    def names(self) -> list[str]:
        """The columns; a plain-text file has one, called ``id``.

        Raises:
            SelectorError: there is no header that can be read.
        """
        if self.form == "text":
            return ["id"]
        if self.form == "parquet":
            try:
                return list(pq.read_schema(self.path).names)
            except (pa.ArrowInvalid, OSError) as error:
                raise self._unreadable(error) from error
        line = self._head().splitlines()[0]
        try:
            return next(csv.reader([line.decode("utf-8-sig")]), [])
        except (UnicodeDecodeError, csv.Error):
            raise SelectorError(
                f"{self.place(1)}: the header is not UTF-8 text; save the file as UTF-8"
            ) from None

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Read some columns, batch by batch.

        Raises:
            SelectorError: a column is missing, or the file breaks off.
        """
        if self.form == "text":
            self._require_one(wanted)
            wanted = ["id"]
        self._require(wanted)
        first = 2 if self.form == "csv" else 1
        source = self._parquet(wanted) if self.form == "parquet" else self._text(wanted)
        try:
            for raw in source:
                if raw.num_rows:
                    yield Batch(first, {name: raw.column(name) for name in wanted})
                first += raw.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(error, first - 1) from error

    def _require_one(self, wanted: Sequence[str]) -> None:
        if len(wanted) != 1:
            raise SelectorError(
                f"{self.path} holds one id a line, and {' and '.join(wanted)} are needed; "
                f"write a CSV file with the header {','.join(wanted)}"
            )

    def _require(self, wanted: Sequence[str]) -> None:
        present = self.names()
        missing = [name for name in wanted if name not in present]
        twice = [name for name in wanted if present.count(name) > 1]
        if twice:
            raise SelectorError(f"{self.path}: column {shorten(twice)} is there twice; drop one")
        if missing:
            near = difflib.get_close_matches(missing[0], present, n=1)
            hint = f"is {near[0]!r} meant? " if near else ""
            raise SelectorError(
                f"{self.path}: no column {shorten(missing)}; it has {shorten(present)}; "
                f"{hint}rename the column, or write it as the first line of the file"
            )

    def _parquet(self, wanted: Sequence[str]) -> Iterator[Any]:
        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=list(wanted))

    def _text(self, wanted: Sequence[str]) -> Iterator[Any]:
        plain = self.form == "text"
        names = list(wanted) if plain else None
        parse = pa_csv.ParseOptions(
            delimiter=_UNIT_SEPARATOR if plain else ",",
            quote_char=False if plain else '"',
            ignore_empty_lines=False,  # line numbers stay true
        )
        convert = pa_csv.ConvertOptions(
            include_columns=list(wanted),
            column_types={name: pa.binary() for name in wanted},
            null_values=[],
        )
        read = pa_csv.ReadOptions(column_names=names, use_threads=False)
        with (
            pa.input_stream(str(self.path), compression=self.compression) as stream,
            pa_csv.open_csv(
                stream, read_options=read, parse_options=parse, convert_options=convert
            ) as reader,
        ):
            yield from reader

    # ---- columns with a meaning

    def text(self, batch: Batch, name: str) -> Any:
        """An Arrow string array; null or empty where the cell is; whole numbers as digits.

        Raises:
            SelectorError: a cell is not UTF-8, or the column holds something else.
        """
        column = batch.columns[name]
        kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        if self.form != "parquet" or _is_text(column.type) or pa.types.is_integer(column.type):
            fix = "save the file as UTF-8"
            return self._cast(batch, name, column, pa.string(), "is not UTF-8 text", fix)
        raise SelectorError(
            f"{self.path}: column {name!r} is {kind}; text is needed, convert the column"
        )

    def filled_text(self, batch: Batch, name: str) -> Any:
        """As :meth:`text`, of which no cell may be empty."""
        column = self.text(batch, name)
        self._refuse_empty(batch, name, column)
        return column

    def ids(self, batch: Batch, name: str, id_type: IdType) -> Array:
        """``[R]`` ids of the graph's type: int64, or objects for str and UUID.

        Raises:
            SelectorError: a cell is empty or of another type.
        """
        column = batch.columns[name]
        whole = pa.types.is_integer(column.type)
        if self.form == "parquet" and id_type != "uuid" and whole != (id_type == "int"):
            raise SelectorError(
                f"{self.path}: column {name!r} is {column.type}, ids of this graph are {id_type}; "
                "convert the column (1 is not '1')"
            )
        if id_type == "int" and whole:
            self._refuse_empty(batch, name, column)
            return self._int64(batch, name, column)
        if id_type == "uuid" and self.form == "parquet" and not _is_text(column.type):
            return self._uuids(batch, name, column.cast(pa.binary(16)).to_pylist())
        text = self.filled_text(batch, name)
        if id_type == "int":
            return self._int64(batch, name, pc.utf8_trim_whitespace(text))
        if id_type == "uuid":
            return self._uuids(batch, name, text.to_pylist())
        return as_objects(text)

    def digests(self, batch: Batch, name: str) -> Array:
        """``[R]`` SHA-256 digests from their hexadecimal form.

        Raises:
            SelectorError: a cell is something else.
        """
        text = self.filled_text(batch, name)
        good = pc.match_substring_regex(text, "^[0-9a-fA-F]{64}$").to_numpy(zero_copy_only=False)
        if not good.all():
            at = int(np.argmin(good))
            wrong = (
                "is no SHA-256 in hexadecimal (64 digits); read the file without format=sha256, or "
                "mend the line"
            )
            raise LineError(self.place(batch.first + at), text[at].as_py(), wrong)
        return np.frombuffer(bytes.fromhex("".join(text.to_pylist())), DIGEST_TYPE)

    def _int64(self, batch: Batch, name: str, column: Any) -> Array:
        fix = "ids of this graph are int (64 bits)"
        numbers = self._cast(batch, name, column, pa.int64(), "is no int id", fix)
        whole: Array = numbers.to_numpy(zero_copy_only=False)
        return whole

    def _uuids(self, batch: Batch, name: str, values: list[Any]) -> Array:
        found = np.empty(len(values), object)
        for at, value in enumerate(values):
            try:
                found[at] = uuid.UUID(bytes=value) if isinstance(value, bytes) else uuid.UUID(value)
            except (ValueError, TypeError, AttributeError):
                raise self._bad(batch, name, at, value, "is no UUID", "mend the line") from None
        return found

    def _refuse_empty(self, batch: Batch, name: str, column: Any) -> None:
        empty = pc.is_null(column)
        if pa.types.is_string(column.type):
            empty = pc.or_(empty, pc.equal(pc.fill_null(column, ""), ""))
        if pc.any(empty).as_py():
            at = int(np.argmax(empty.to_numpy(zero_copy_only=False)))
            raise SelectorError(
                f"{self.place(batch.first + at)}: column {name!r} is empty; fill it or drop the "
                "line"
            )

    def _cast(self, batch: Batch, name: str, column: Any, kind: Any, wrong: str, fix: str) -> Any:
        """Cast a column, and where that fails name the first cell that does not fit."""
        try:
            return column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            at = _first_failing(column, lambda cell: cell.cast(kind))
            raise self._bad(batch, name, at, column[at].as_py(), wrong, fix) from None

    def _bad(
        self, batch: Batch, name: str, at: int, value: Any, wrong: str, fix: str
    ) -> SelectorError:
        where = self.place(batch.first + at)
        return LineError(where, value, f"in column {name!r} {wrong}; {fix}")


def as_objects(text: Any) -> Array:
    """``[R]`` object array of the strings of an Arrow array."""
    values: Array = text.to_numpy(zero_copy_only=False).astype(object)
    return values


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _first_failing(column: Any, convert: Callable[[Any], object]) -> int:
    for at in range(len(column)):
        try:
            convert(column.slice(at, 1))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return at
    return 0

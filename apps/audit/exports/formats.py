"""How entries are written: CSV, JSON lines and Parquet, each in bounded memory."""

import csv
import io
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from importlib.util import find_spec
from typing import IO, Any, Protocol

import orjson

from apps.audit.entries import FIELDS, Entry

MOST_HELD_ROWS, MOST_HELD_BYTES = 20_000, 16 * 1024 * 1024
"""What a group of rows of a Parquet file holds: the next one begins beyond either."""
_LISTS = frozenset({"metadata", "reasons", "policies", "findings", "limits", "attempts", "degraded"})
_NAMES = [name for name, _ in FIELDS]
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  # as wide letters, too


class Writer(Protocol):
    """Writes entries to a file, group by group, and then its end."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a group."""
        ...

    def finish(self) -> None:
        """Write what is left; without it the file is not whole."""
        ...


def writer(format_name: str, out: IO[bytes]) -> Writer:
    """Return the writer of a format. Raises `KeyError` for a format that there is not."""
    writers: dict[str, Callable[[IO[bytes]], Writer]] = {
        "csv": CsvWriter,
        "jsonl": JsonLinesWriter,
        "parquet": ParquetWriter,
    }
    return writers[format_name](out)


def missing(format_name: str) -> str:
    """Return why a format cannot be written here; empty: it can."""
    if format_name == "parquet" and find_spec("pyarrow") is None:
        return "Parquet needs pyarrow, which is not installed here (requirements-server.txt). Choose CSV or JSONL."
    return ""


class JsonLinesWriter:
    """One JSON object a line, UTF-8."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a group."""
        self._out.write(b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in entries))

    def finish(self) -> None:
        """Nothing is left."""


class CsvWriter:
    """Comma-separated values with a line of names (RFC 4180), UTF-8.

    No cell is a formula: one whose text begins as a formula may gets an apostrophe before it, as OWASP advises.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(out, "utf-8", newline="", write_through=True)
        self._csv = csv.writer(self._text)
        self._csv.writerow(_NAMES)

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a group."""
        self._csv.writerows([_cell(name, one[name]) for name in _NAMES] for one in entries)

    def finish(self) -> None:
        """Leave the file to whoever opened it."""
        self._text.detach()


def _cell(name: str, value: Any) -> Any:
    if name in _LISTS:
        return orjson.dumps(value).decode()
    return f"'{value}" if isinstance(value, str) and value.startswith(_STARTS_A_FORMULA) else value


class ParquetWriter:
    """Parquet by pyarrow: moments and money as types of their own, lists and labels as JSON texts."""

    def __init__(self, out: IO[bytes]) -> None:
        import pyarrow  # noqa: PLC0415  # heavy, and not everywhere
        from pyarrow import parquet  # noqa: PLC0415  # as above

        self._pyarrow: Any = pyarrow
        self._schema = pyarrow.schema([(name, self._type(name)) for name in _NAMES])
        self._parquet = parquet.ParquetWriter(out, self._schema, compression="zstd")
        self._rows: list[Entry] = []
        self._bytes = 0

    def write(self, entries: Sequence[Entry]) -> None:
        """Take a group; write when there are enough for a group of the file's."""
        self._rows += entries
        self._bytes += sum(len(one["prompt_redacted"] or "") + len(one["response_redacted"] or "") for one in entries)
        if len(self._rows) >= MOST_HELD_ROWS or self._bytes >= MOST_HELD_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write the last group and the file's directory."""
        self._flush()
        self._parquet.close()

    def _flush(self) -> None:
        if self._rows:
            columns = [[_typed(name, one[name]) for one in self._rows] for name in _NAMES]
            arrays = [
                self._pyarrow.array(column, type=field.type)
                for column, field in zip(columns, self._schema, strict=True)
            ]
            self._parquet.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._bytes = [], 0

    def _type(self, name: str) -> Any:
        if name == "timestamp":
            return self._pyarrow.timestamp("us", tz="UTC")
        if name.endswith("_usd"):
            return self._pyarrow.decimal128(20, 9)
        if name == "streamed":
            return self._pyarrow.bool_()
        is_number = name.startswith("tokens_") or name.endswith("_ms") or name == "http_status"
        return self._pyarrow.int64() if is_number else self._pyarrow.string()


def _typed(name: str, value: Any) -> Any:
    if name in _LISTS:
        return orjson.dumps(value).decode()
    if name == "timestamp":
        return datetime.fromisoformat(value)
    return Decimal(value) if name.endswith("_usd") else value

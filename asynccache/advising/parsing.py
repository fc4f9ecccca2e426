"""Reading traces: CSV with a header, or JSON lines, line by line."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, Final, Literal, TypeAlias

import msgspec

from asynccache.advising.traces import Operation, Trace, TraceBuilder
from asynccache.errors import ConfigurationError
from asynccache.keys import in_sample

__all__ = ["TimeUnit", "read_trace"]

TimeUnit: TypeAlias = Literal["s", "ms", "us", "ns"]

_UNITS: Final[Mapping[str, float]] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "time": ("t", "time", "timestamp", "ts", "at"),
    "operation": ("op", "operation", "type", "action", "command"),
    "key": ("key", "k", "id"),
    "cost": ("cost", "load", "duration", "seconds"),
}
_OPERATIONS: Final[Mapping[str, Operation]] = {
    name: operation
    for operation, names in {
        Operation.GET: ("get", "read", "select", "r"),
        Operation.PUT: ("put", "set", "write", "update", "insert", "w"),
        Operation.DELETE: ("delete", "del", "remove"),
        Operation.INVALIDATE: ("invalidate", "evict"),
        Operation.INCREMENT: ("increment", "incr", "add"),
    }.items()
    for name in names
}


def read_trace(lines: Iterable[str], *, name: str = "trace", unit: TimeUnit = "s", sample: float = 1.0) -> Trace:
    """Reads a trace.

    Args:
        lines: CSV with a header, or a JSON object a line. Fields: a time (`t`, `time`, `timestamp`; a number, or
            ISO 8601 text), an operation (`op`, `operation`: get, put, delete, invalidate, increment, and what others
            call them), a key, and, if known, a `cost` in seconds. Other fields are ignored.
        name: names the trace in messages.
        unit: of times that are numbers.
        sample: takes this share of the keys, chosen by their hash.

    Raises:
        ConfigurationError: it is not such a trace; with the number of the line. A last line that was not written to its
            end is left out instead.
    """
    if unit not in _UNITS:
        raise ConfigurationError(f"unit={unit!r} must be one of {', '.join(_UNITS)}")
    if isinstance(sample, bool) or not isinstance(sample, int | float) or not 0 < sample <= 1:
        raise ConfigurationError(f"sample={sample!r} ({type(sample).__name__}) must be above 0 and at most 1")
    builder = TraceBuilder(share=float(sample))
    source = iter(lines)
    first = next((line for line in source if line.strip()), None)
    if first is None:
        raise ConfigurationError(f"{name}: there is nothing in it")
    read = _json_rows if first.lstrip("\ufeff \t").startswith("{") else _csv_rows
    for number, row in read(chain((first.lstrip("\ufeff"),), source), name, builder):
        try:
            time, operation, key, cost, missing = row
            if sample < 1 and not in_sample(key, sample):
                continue
            known = _operation(operation)
            if missing is True and known is Operation.GET:
                known = Operation.GET_NOTHING
            builder.add(_time(time, _UNITS[unit]), known, key, _cost(cost))
        except (ConfigurationError, ValueError) as error:
            raise ConfigurationError(f"{name}, line {number}: {error}") from None
    if not len(builder):
        raise ConfigurationError(f"{name}: there are no operations in it" + (" that are sampled" if sample < 1 else ""))
    return builder.build()


_Row: TypeAlias = tuple[Any, Any, str, Any, Any]


def _json_rows(lines: Iterator[str], name: str, builder: TraceBuilder) -> Iterator[tuple[int, _Row]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    fields: tuple[str, str, str, str | None] | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = decode(line)
        except (msgspec.DecodeError, UnicodeError) as error:
            if not line.endswith("\n"):
                builder.torn = True
                return
            raise ConfigurationError(f"{name}, line {number}: not a JSON object: {error}") from None
        if fields is None:
            fields = _fields(list(found), f"{name}, line {number}")
        time, operation, key, cost = fields
        try:
            row = found[time], found[operation], _key(found[key])
        except KeyError as error:
            raise ConfigurationError(f"{name}, line {number}: there is no {error.args[0]!r}") from None
        # Only lines with a load have a cost, so that the first line need not show its name.
        yield number, (*row, found.get(cost or "cost"), found.get("missing"))


def _csv_rows(lines: Iterator[str], name: str, builder: TraceBuilder) -> Iterator[tuple[int, _Row]]:
    reader = csv.reader(lines)
    try:
        header = [field.strip() for field in next(reader)]
        time, operation, key, cost = (
            None if field is None else header.index(field) for field in _fields(header, f"{name}, line 1")
        )
        assert time is not None and operation is not None and key is not None  # noqa: S101, PT018 - for the type checker
        for row in reader:
            if not row:
                continue
            if len(row) < len(header):
                raise ConfigurationError(
                    f"{name}, line {reader.line_num}: {len(row)} fields, but the header has {len(header)}"
                )
            yield reader.line_num, (row[time], row[operation], row[key], None if cost is None else row[cost], None)
    except csv.Error as error:
        raise ConfigurationError(f"{name}, line {reader.line_num}: {error}") from None
    del builder


def _fields(given: list[str], where: str) -> tuple[str, str, str, str | None]:
    """The names that this trace has for time, operation, key and cost."""
    by_name = {field.lower(): field for field in given}
    found = [next((by_name[name] for name in names if name in by_name), None) for names in _NAMES.values()]
    for field, (meaning, names) in zip(found, _NAMES.items(), strict=True):
        if field is None and meaning != "cost":
            raise ConfigurationError(
                f"{where}: no field for the {meaning}: name one {' or '.join(names)}; there are: {', '.join(given)}"
            )
    time, operation, key, cost = found
    assert time is not None and operation is not None and key is not None  # noqa: S101, PT018 - for the type checker
    return time, operation, key, cost


def _time(given: Any, unit: float) -> float:
    if isinstance(given, bool) or given is None:
        raise ConfigurationError(f"the time {given!r} is neither a number nor ISO 8601 text")
    with suppress(TypeError, ValueError):  # it is text, then
        return float(given) * unit
    try:
        at = dt.datetime.fromisoformat(str(given).strip())
    except ValueError:
        raise ConfigurationError(f"the time {given!r} is neither a number nor ISO 8601 text") from None
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()


def _operation(given: Any) -> Operation:
    found = _OPERATIONS.get(str(given).strip().lower())
    if found is None:
        raise ConfigurationError(f"the operation {given!r} is none of {', '.join(_OPERATIONS)}")
    return found


def _key(given: Any) -> str:
    # As JSON, 1 and "1" are two keys.
    return given if isinstance(given, str) else f"\0{given!r}"


def _cost(given: Any) -> float | None:
    if given is None or given == "":
        return None
    if isinstance(given, bool):
        raise ConfigurationError(f"the cost {given!r} is not a number of seconds")
    try:
        return float(given)
    except (TypeError, ValueError):
        raise ConfigurationError(f"the cost {given!r} is not a number of seconds") from None

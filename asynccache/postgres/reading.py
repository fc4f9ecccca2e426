"""Rows of the database as values of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from asynccache.errors import SchemaMismatch
from asynccache.postgres.binding import Binding
from asynccache.postgres.row_keys import Parts

__all__ = ["Reader"]

V = TypeVar("V")

_AT_ONCE = 1000
"""Rows that are decoded before other tasks get a turn."""


class Reader(Generic[V]):
    """Makes values of rows: of the binding's fields, and then the key columns."""

    def __init__(self, binding: Binding[V]) -> None:
        self._binding = binding
        self._build = binding.model.put_together([bound.field for bound in binding.read])
        self._key = binding.key
        self._width = len(binding.read)
        self._end = self._width + len(binding.key.columns)
        self._decoders = [
            (index, bound.transport.decode)
            for index, bound in enumerate(binding.read)
            if bound.transport.decode is not None
        ]

    async def values(self, records: Sequence[Any]) -> dict[Parts, V]:
        """The values of rows, by the parts of their keys.

        Args:
            records: rows of asyncpg; what follows the key columns is left alone.

        Raises:
            SchemaMismatch: a row does not fit the model; the message names its key.
        """
        width, end = self._width, self._end
        result: dict[Parts, V] = {}
        for start in range(0, len(records), _AT_ONCE):
            if start:
                await asyncio.sleep(0)
            rows = [list(record.values()) for record in records[start : start + _AT_ONCE]]
            keys = [self._key.returned(tuple(row[width:end])) for row in rows]
            for row in rows:
                self._decode(row)
            try:
                built = self._build(rows)
            except Exception:  # noqa: BLE001 - a validator of the user's may raise anything
                built = [self._one(row, key) for row, key in zip(rows, keys, strict=True)]
            result.update(zip(keys, built, strict=True))
        return result

    def _decode(self, row: list[Any]) -> None:
        del row[self._width :]
        for index, decode in self._decoders:
            if row[index] is not None:
                row[index] = decode(row[index])

    def _one(self, row: Sequence[Any], parts: Parts) -> V:
        try:
            return self._build([row])[0]
        except Exception as error:
            key = parts[0] if len(parts) == 1 else parts
            model, table = self._binding.model, self._binding.table
            raise SchemaMismatch(
                f"the row {key!r} of {table.sql} is no {model.name}: {_reason(error)}; change the model, such as"
                " `| None` for a column that may be null, or the row"
            ) from error


def _reason(error: Exception) -> str:
    return str(error).replace("`$[0].", "`$.").replace("\n", " ")

"""How a batch gets into a table: one statement over arrays, or COPY into a temporary table and a merge; and whether
flushes, which take one or the other by the number of rows, take the better one."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg

from asynccache.postgres.staging import COPIED_FROM
from benchmarks.model import Context, Finding, Series, sample_row

NAME = "flush-statement"
USES_LOOP = False
_SHOWN = 5_000
_SIZES = (100, 1_000, _SHOWN, 20_000)
_ARRAYS, _COPY = "unnest", "COPY and merge"
_COLUMNS = ("id", "name", "email", "bio", "points", "ratio")
_UPDATE = ", ".join(f"{column} = EXCLUDED.{column}" for column in _COLUMNS[1:])
_MERGE = f"ON CONFLICT (id) DO UPDATE SET {_UPDATE}"
_UNNEST = (
    "INSERT INTO bench_batch SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::int[],"
    f" $6::float8[]) {_MERGE}"
)

Rows: TypeAlias = list[tuple[Any, ...]]


async def _by_unnest(connection: Any, rows: Rows) -> None:
    async with connection.transaction():
        await connection.execute(_UNNEST, *map(list, zip(*rows, strict=True)))


async def _by_copy(connection: Any, rows: Rows) -> None:
    numbered = [(*row, number) for number, row in enumerate(rows)]
    async with connection.transaction():
        await connection.fetchval("SELECT to_regclass('pg_temp.bench_staged') IS NOT NULL")
        await connection.copy_records_to_table("bench_staged", records=numbered, columns=(*_COLUMNS, "n"))
        await connection.execute(
            f"INSERT INTO bench_batch SELECT {', '.join(_COLUMNS)} FROM bench_staged ORDER BY n {_MERGE}"
        )


async def run(context: Context) -> Finding:
    connection: Any = await asyncpg.connect(context.database_url)
    context.stack.push_async_callback(connection.close)
    await connection.execute("DROP TABLE IF EXISTS bench_batch")
    await connection.execute(
        "CREATE TABLE bench_batch (id bigint PRIMARY KEY, name text, email text, bio text, points int, ratio float8)"
    )
    # As flushes make it: emptied by the COMMIT, so once for a connection and not for each batch.
    await connection.execute(
        "CREATE TEMPORARY TABLE bench_staged"
        " (id bigint, name text, email text, bio text, points int, ratio float8, n int)"
        " WITH (toast_tuple_target = 8160) ON COMMIT DELETE ROWS"
    )
    ways: dict[str, Callable[[Any, Rows], Awaitable[None]]] = {_ARRAYS: _by_unnest, _COPY: _by_copy}
    found: dict[str, dict[int, list[float]]] = {name: {size: [] for size in _SIZES} for name in ways}
    for turn in range(context.rounds + 1):
        for size in _SIZES:
            batches = max(1, (5_000 if context.quick else 40_000) // size)
            rows = [
                (row.id, row.name, row.email, row.bio, row.points, row.ratio)
                for row in map(sample_row, range(batches * size))
            ]
            for name, way in ways.items():
                await connection.execute("TRUNCATE bench_batch")
                began = time.perf_counter()
                for at in range(0, len(rows), size):
                    await way(connection, rows[at : at + size])
                if turn:
                    found[name][size].append(len(rows) / (time.perf_counter() - began))
    await connection.execute("DROP TABLE bench_batch")
    finding = Finding(
        NAME,
        f"Rows of 300 bytes into a table, {_SHOWN:,} a batch, one connection",
        "rows/s",
        [Series(name, found[name][_SHOWN]) for name in (_COPY, _ARRAYS)],
    )
    for size in _SIZES:
        rates = {name: Series(name, sizes[size]).median for name, sizes in found.items()}
        taken = _COPY if size >= COPIED_FROM else _ARRAYS
        ratio = rates[taken] / max(rates.values())
        finding.targets.append(
            (f"{size:,} rows a batch, for which flushes take {taken}: at least 0.9 x the better", ratio, ratio >= 0.9)
        )
        finding.notes.append(f"{size:,} rows a batch: COPY is {rates[_COPY] / rates[_ARRAYS]:.2f} x unnest")
    finding.curve_axes = ("rows a batch", "rows/s")
    for name, sizes in found.items():
        finding.curves[name] = [(float(size), Series(name, rates).median) for size, rates in sizes.items()]
    return finding

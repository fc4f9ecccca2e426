"""What waits for the database, by strategy and partition, as anybody who reaches Redis can see it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from asynccache.cache import Cache
from asynccache.cli.application import flushers, inspecting
from asynccache.errors import DatabaseUnavailable
from asynccache.supervision import gather
from asynccache.write_behind.flusher import Flusher

__all__ = ["Pending", "look", "print_pending"]

_DATABASE_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Pending:
    """One strategy.

    Attributes:
        strategy: its name.
        pending: keys with a write that is in no batch yet.
        in_batch: keys in batches that are being flushed.
        oldest: seconds since the oldest pending write.
        dead_letters: writes that the database refused; None if it does not say, or the sink keeps none.
        partitions: the same for each, with the batch in flight and the worker that owns it.
    """

    strategy: str
    pending: int
    in_batch: int
    oldest: float
    dead_letters: int | None
    partitions: tuple[dict[str, Any], ...]


async def look(cache: Cache, name: str | None) -> list[Pending]:
    """Asks Redis, and the database for dead letters; that one may be down.

    Raises:
        ConfigurationError: there is no such strategy.
        StoreUnavailable: Redis does not answer.
    """
    works = flushers(cache, name)
    async with inspecting(cache):
        return [await _look(cache, flusher) for flusher in works]


async def _look(cache: Cache, flusher: Flusher[Any]) -> Pending:
    buffer = flusher.buffer
    statuses = await gather(buffer.status(number) for number in range(buffer.partitions))
    return Pending(
        flusher.origin,
        sum(status.pending for status in statuses),
        sum(status.in_batch for status in statuses),
        max(status.age for status in statuses),
        await _dead(cache, flusher),
        tuple(asdict(status) for status in statuses),
    )


async def _dead(cache: Cache, flusher: Flusher[Any]) -> int | None:
    if flusher.dead_letters is None:
        return None
    try:
        async with asyncio.timeout(_DATABASE_WITHIN):
            await cache.runtime.use_adopted()
            return await flusher.dead_letters.count(flusher.origin)
    except (DatabaseUnavailable, TimeoutError):
        return None


def print_pending(found: list[Pending], console: Console, *, every: bool) -> None:
    """Prints a table: partitions in which something waits, or `every` one, and a sum for each strategy."""
    table = Table(title="Writes that wait for the database", title_justify="left")
    for column in ("strategy", "partition", "pending", "oldest", "in batch", "batch", "owner", "dead letters"):
        table.add_column(
            column, justify="right" if column in {"pending", "oldest", "in batch", "dead letters"} else "left"
        )
    for strategy in found:
        for part in strategy.partitions:
            if every or part["pending"] or part["in_batch"]:
                table.add_row(
                    strategy.strategy,
                    str(part["partition"]),
                    f"{part['pending']:,}",
                    _age(part["age"]),
                    f"{part['in_batch']:,}",
                    str(part["batch"] or "")[:8],
                    str(part.get("owner") or ""),
                    "",
                )
        dead = "?" if strategy.dead_letters is None else f"{strategy.dead_letters:,}"
        counts = (f"{strategy.pending:,}", _age(strategy.oldest), f"{strategy.in_batch:,}")
        table.add_row(strategy.strategy, "all", *counts, "", "", dead, style="bold", end_section=True)
    console.print(table)


def _age(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds else ""

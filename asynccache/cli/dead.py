"""Dead letters: writes that the database refused, to be looked at, tried again once that is mended, or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from asynccache.cache import Cache
from asynccache.cli.application import flushers, inspecting
from asynccache.errors import ConfigurationError, DecodeError
from asynccache.protocols import DeadLetter, DeadLetters, Retried
from asynccache.write_behind.flusher import Flusher

__all__ = ["drop", "list_letters", "retry", "show"]

_PAGE = 1000


async def list_letters(cache: Cache, name: str | None, limit: int) -> list[DeadLetter]:
    """The oldest letters of one strategy, or of each.

    Raises:
        ConfigurationError: there is no such strategy, or its sink keeps none.
        StoreUnavailable, DatabaseUnavailable: a server does not answer.
    """
    found: list[DeadLetter] = []
    works = flushers(cache, name)
    async with inspecting(cache):
        for flusher in works:
            letters = await _letters(cache, flusher)
            last = 0
            while limit > len(found):
                page = await letters.list(flusher.origin, limit=min(_PAGE, limit - len(found)), after=last)
                if not page:
                    break
                found += page
                last = page[-1].id
    return found


async def show(cache: Cache, name: str, letter: int) -> dict[str, Any]:
    """One letter with the write it holds, as far as this version of the model can read it.

    Raises:
        ConfigurationError: there is no such letter. See `list_letters`.
    """
    (flusher,) = flushers(cache, name)
    async with inspecting(cache):
        found = await (await _letters(cache, flusher)).show(letter)
    if found is None or found.origin != name:
        raise ConfigurationError(f"strategy {name!r} has no dead letter {letter}")
    facts = asdict(found)
    record = facts.pop("record")
    try:
        facts["write"] = repr(flusher.records.write(record)) if record else None
    except DecodeError as error:
        facts["write"] = f"cannot be read: {error}"
    return facts


async def retry(cache: Cache, name: str, ids: Sequence[int] | None) -> Retried:
    """Tries letters again, and empties what is cached of their keys. See `list_letters` for errors."""
    (flusher,) = flushers(cache, name)
    async with inspecting(cache):
        letters = await _letters(cache, flusher)
        tried = await letters.retry(name, ids, decode=flusher.records.write)
        await flusher.invalidate(tried.keys)
    return tried


async def drop(cache: Cache, name: str, ids: Sequence[int] | None) -> int:
    """Deletes letters for good; returns how many. See `list_letters` for errors."""
    (flusher,) = flushers(cache, name)
    async with inspecting(cache):
        return await (await _letters(cache, flusher)).drop(ids, origin=name)


async def _letters(cache: Cache, flusher: Flusher[Any]) -> DeadLetters:
    if flusher.dead_letters is None:
        raise ConfigurationError(f"the sink of {flusher.origin!r} keeps no dead letters")
    await cache.runtime.use_adopted()
    return flusher.dead_letters

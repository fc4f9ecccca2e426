"""Recording: what a cache is asked for, written down as JSON lines, for `asynccache advise`.

Invariant: recording costs requests an append to a list and nothing else: it never waits, never blocks the event loop
and never raises. Its memory, its file and its last write are bounded.

    record   a line goes into a bounded list; what does not fit is dropped and counted
    write    a service takes the list, encodes and appends it in a thread, every half second or when much waits
    stop     at `max_bytes`, or at the first error of the file system: told once, and nothing is recorded any more

A crash loses what waited, and may leave half a line at the end, which readers of traces skip.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from asynccache.clock import SYSTEM_CLOCK, Clock
from asynccache.errors import ConfigurationError
from asynccache.keys import in_sample
from asynccache.supervision import TaskOwner, finish, logger

__all__ = ["Recorder", "RecorderStats", "recorder_of"]

_EVERY: Final = 0.5
_WAITING: Final = 50_000
_WAKE: Final = 10_000

_Noted: TypeAlias = tuple[float, str, str, float | None, bool]


class _Line(msgspec.Struct, omit_defaults=True):
    t: float
    op: str
    key: str
    cost: float | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class RecorderStats:
    """What a recorder has done.

    Attributes:
        written: lines in the file, of this process.
        dropped: lines that were not: more came than could be written, or recording had stopped.
        stopped: why nothing is recorded any more; None if it is.
    """

    written: int
    dropped: int
    stopped: str | None


class Recorder:
    """Records a cache's operations into a file: `Cache(..., record=Recorder("trace.jsonl", sample=0.1))`.

    A line is `{"t": seconds since the epoch, "op": "get" | "put" | "delete" | "increment" | "invalidate", "key": "...",
    "cost": seconds, "missing": true}`; `cost` is how long the load of a read took, if there was one, or how long a
    write was under way; `missing` is there if what was read does not exist.
    Lines are appended, so that several processes of one machine may share a file.

    Args:
        path: the file; made, readable by its owner only, if it is not there. Its folder must be.
        sample: the share of keys that are recorded, above 0 and up to 1. Keys are chosen by their hash: of one that is,
            the whole history is recorded, in every process.
        max_bytes: recording stops before the file is larger.
        hash_keys: writes hashes instead of keys. True takes a new secret, which nobody can compare with another file's;
            a secret of your own (bytes) makes the hashes of several processes the same.
        clock: reads time.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sample: float = 1.0,
        max_bytes: int = 256 * 1024 * 1024,
        hash_keys: bool | bytes = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ConfigurationError(f"path={path!r} ({type(path).__name__}) must name the file to record into")
        if isinstance(sample, bool) or not isinstance(sample, int | float) or not 0 < sample <= 1:
            raise ConfigurationError(
                f"sample={sample!r} ({type(sample).__name__}) must be a share of the keys, above 0 and at most 1"
            )
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise ConfigurationError(f"max_bytes={max_bytes!r} ({type(max_bytes).__name__}) must be a positive int")
        if not isinstance(hash_keys, bool | bytes) or (isinstance(hash_keys, bytes) and not 8 <= len(hash_keys) <= 64):
            raise ConfigurationError(
                f"hash_keys must be True, False, or a secret of 8 to 64 bytes, not {type(hash_keys).__name__}"
            )
        self._path = Path(path)
        self._sample = float(sample)
        self._max_bytes = max_bytes
        self._secret = secrets.token_bytes(32) if hash_keys is True else hash_keys or None
        self._clock = clock
        self._owner = TaskOwner("recorder")
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._waiting: list[_Noted] = []
        self._file: int | None = None
        self._opened = 0
        self._epoch = 0.0
        self._written = 0
        self._dropped = 0
        self._stopped: str | None = None

    @property
    def name(self) -> str:
        """Names the service."""
        return f"recorder:{self._path.name}"

    @property
    def stats(self) -> RecorderStats:
        """What it has done since it was made."""
        return RecorderStats(self._written, self._dropped, self._stopped)

    @property
    def now(self) -> Callable[[], float]:
        """Tells the time as `record` takes it, in seconds."""
        return self._clock.monotonic

    def record(self, op: str, key: str, at: float, cost: float | None = None, *, missing: bool = False) -> None:
        """Notes one operation.

        Args:
            op: what was done.
            key: to which key.
            at: when it began, as `now` tells it.
            cost: how long its load or write took, in seconds; None if there was none.
            missing: what was read does not exist.
        """
        if self._file is None or self._stopped is not None or len(self._waiting) >= _WAITING:
            self._dropped += 1
            return
        if self._sample < 1 and not in_sample(key, self._sample):
            return
        self._waiting.append((at, op, key, cost, missing))
        if len(self._waiting) == _WAKE:
            self._wake.set()

    async def open(self) -> None:
        """Opens the file.

        Raises:
            ConfigurationError: it cannot be written.
        """
        if not self._opened and not self._writing.locked():
            self._writing = asyncio.Lock()  # a cache may be opened again on another event loop
        async with self._writing:
            if self._file is None:
                try:
                    self._file = await finish(self._owner, asyncio.to_thread(self._open))
                except OSError as error:
                    raise ConfigurationError(f"record: {self._path} cannot be written: {error}") from error
                self._epoch = self._clock.wall_ms() / 1000 - self._clock.monotonic()
            self._opened += 1

    async def run(self, alive: Callable[[], None], /) -> None:
        """Writes what was noted until it is cancelled."""
        self._wake = asyncio.Event()
        while True:
            alive()
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._wake.wait()
            self._wake.clear()
            await finish(self._owner, self.flush())

    async def flush(self) -> None:
        """Writes what was noted, now."""
        async with self._writing:
            if self._file is None or not self._waiting:
                return
            taken, self._waiting = self._waiting, []
            if self._stopped is not None:
                self._dropped += len(taken)
                return
            try:
                written = await asyncio.to_thread(self._write, self._file, taken)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not come again and again
                written = 0
                self._stop(f"{type(error).__name__}: {error}")
            else:
                if written < len(taken):
                    self._stop(f"max_bytes={self._max_bytes} is reached")
            self._written += written
            self._dropped += len(taken) - written

    async def aclose(self) -> None:
        """Writes the rest and closes the file, once nobody uses it any more."""
        await finish(self._owner, self._aclose())

    async def _aclose(self) -> None:
        await self.flush()
        async with self._writing:
            self._opened -= 1
            if self._opened <= 0 and self._file is not None:
                file, self._file = self._file, None
                await asyncio.to_thread(os.close, file)

    def _stop(self, why: str) -> None:
        self._stopped = why
        logger.warning("%r records nothing any more: %s", self, why)

    # -- in a thread

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _write(self, file: int, taken: list[_Noted]) -> int:
        """Appends lines; returns how many did fit."""
        encode = msgspec.json.Encoder().encode
        room = self._max_bytes - os.fstat(file).st_size
        parts: list[bytes] = []
        for at, op, key, cost, missing in taken:
            name = str(key)  # of a CellKey, too
            if self._secret is not None:
                name = blake2b(name.encode(), digest_size=9, key=self._secret).hexdigest()
            line = _Line(round(self._epoch + at, 6), op, name, None if cost is None else round(cost, 6), missing)
            parts.append(encode(line) + b"\n")
            room -= len(parts[-1])
            if room < 0:
                parts.pop()
                break
        rest = memoryview(b"".join(parts))
        while rest:
            rest = rest[os.write(file, rest) :]
        return len(parts)

    def __repr__(self) -> str:
        return f"Recorder({str(self._path)!r}, sample={self._sample:g}, written={self._written})"


def recorder_of(record: str | os.PathLike[str] | Recorder | None, clock: Clock) -> Recorder | None:
    """What a user gave as `record=`.

    Raises:
        ConfigurationError: it is neither a path nor a `Recorder`.
    """
    if record is None or isinstance(record, Recorder):
        return record
    if not isinstance(record, str | os.PathLike):
        raise ConfigurationError(
            f"record must be a path or a Recorder, not {type(record).__name__} ({record!r}): record='trace.jsonl'"
        )
    return Recorder(record, clock=clock)

"""`SyncServer`: what an embedded Redis and an embedded PostgreSQL have in common, without an event loop."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asynccache.clock import SYSTEM_CLOCK
from asynccache.embedded.folders import Folder
from asynccache.embedded.process import GuardedProcess
from asynccache.errors import ConfigurationError, Unavailable
from asynccache.policy import Duration, seconds

__all__ = ["Setting", "SyncServer", "read_settings"]

Setting = str | int | float | bool
"""A server setting's value; `True` and `False` are written as the server does."""

_POLL = 0.005
_PORT_TRIES = 50
_TAKEN = "address already in use"
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class SyncServer(ABC):
    """One embedded server with blocking methods; safe to use from several threads.

    Args:
        folder: where it lives; the server owns it from now on.
        start_timeout: how long a start may take (a duration).
    """

    kind: str
    stop_signal: signal.Signals
    crash_signal: signal.Signals
    unavailable: type[Unavailable]

    def __init__(self, folder: Folder, start_timeout: Duration) -> None:
        self._folder = folder
        self._timeout = seconds(start_timeout, "start_timeout", least=0.1, zero=False)
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._process: GuardedProcess | None = None
        self._port = 0
        self._closed = False

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect; the same after a restart."""

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; the same after a restart. 0 before the first start."""
        return self._port

    @property
    def pid(self) -> int:
        """The server's process id; 0 while it does not run."""
        process = self._process
        return process.pid if process and process.alive else 0

    @property
    def running(self) -> bool:
        """Whether the process runs (a paused one does)."""
        return self.pid != 0

    @property
    def path(self) -> Path:
        """The folder it lives in."""
        return self._folder.path

    @property
    def log_path(self) -> Path:
        """The file it prints to, begun anew by each process that uses the folder."""
        return self._folder.log

    @property
    def log(self) -> str:
        """What it has printed, from its first start in this process on."""
        try:
            return self._folder.log.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def start(self, abort: threading.Event | None = None) -> None:
        """Starts it, on the port and the data it had before; does nothing while it runs.

        Args:
            abort: ends the attempt when set, with nothing left running.

        Raises:
            ConfigurationError: it refuses its settings.
            StoreUnavailable, DatabaseUnavailable: it did not come up; the message ends with its log.
        """
        abort = abort or threading.Event()
        with self._lock:
            if self._closed:
                raise ConfigurationError(f"this embedded {self.kind} is closed: start a new one")
            if self.running:
                return
            self._end(signal.SIGKILL, 0.0)
            deadline = SYSTEM_CLOCK.monotonic() + self._timeout
            try:
                self._prepare(deadline, abort)
                self._start_on_a_port(deadline, abort)
            except BaseException:
                self._end(signal.SIGKILL, 0.0)
                raise

    def stop(self) -> None:
        """Ends it in order: what it has acknowledged is on disk. Does nothing if it does not run."""
        with self._lock:
            self._end(self.stop_signal, 30.0)

    def kill(self) -> None:
        """Ends it, and all that it started, with SIGKILL, and returns when they are gone."""
        with self._lock:
            self._end(signal.SIGKILL, 0.0)

    def restart(self) -> None:
        """Stops it in order and starts it again."""
        with self._lock:
            self.stop()
            self.start()

    def pause(self) -> None:
        """Stops its processes as SIGSTOP does: connections stay open and nothing answers. Ends with `resume`.

        Where the system is not Linux, sessions that a Postgres has open go on.
        """
        with self._lock:
            if self._process:
                self._process.pause()

    def resume(self) -> None:
        """Lets a paused server go on."""
        with self._lock:
            if self._process:
                self._process.resume()

    def close(self) -> None:
        """Ends it for good, and removes its folder unless that is kept."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._end(self.crash_signal if self._folder.throwaway else self.stop_signal, 30.0)
            finally:
                self._folder.close()

    @abstractmethod
    def _prepare(self, deadline: float, abort: threading.Event) -> None:
        """Makes the data folder ready; called before every start."""

    @abstractmethod
    def _launch(self, port: int) -> GuardedProcess:
        """Starts the process."""

    @abstractmethod
    def _ready(self, pid: int, port: int) -> bool:
        """Whether this very process serves clients on `port`."""

    @abstractmethod
    def _refuses_settings(self, log: str) -> bool:
        """Whether the log says so."""

    def _start_on_a_port(self, deadline: float, abort: threading.Event) -> None:
        for left in reversed(range(_PORT_TRIES)):
            port = self._port or _candidate()
            failure = self._try_port(port, deadline, abort)
            if failure is None:
                self._port = port
                return
            over = left == 0 or abort.is_set() or SYSTEM_CLOCK.monotonic() >= deadline
            if over or _TAKEN not in failure.lower():
                raise self._error(failure)
            if self._port:
                abort.wait(0.1)

    def _try_port(self, port: int, deadline: float, abort: threading.Event) -> str | None:
        """Starts on `port`; returns what the server printed if that failed."""
        before = len(self.log)
        self._process = process = self._launch(port)
        while True:
            if process.wait(0):
                return self.log[before:] or f"it ended with code {process.returncode} and printed nothing"
            if self._ready(process.pid, port):
                return None
            if abort.is_set() or SYSTEM_CLOCK.monotonic() >= deadline:
                self._end(signal.SIGKILL, 0.0)
                return f"{self.log[before:]}\nit was not ready in {self._timeout:g} s"
            abort.wait(_POLL)

    def _end(self, number: signal.Signals, grace: float) -> None:
        """Signals the process, kills it after `grace` seconds, and returns when it is gone."""
        if self._process is None or os.getpid() != self._owner:
            return
        self._process.signal(number)
        if grace and not self._process.wait(grace):
            self._process.signal(signal.SIGKILL)
        while not self._process.wait(60.0):
            self._process.signal(signal.SIGKILL)
        self._process = None

    def _error(self, printed: str) -> Exception:
        tail = "\n".join(printed.strip().splitlines()[-20:])[-4000:]
        if self._refuses_settings(printed):
            return ConfigurationError(f"the embedded {self.kind} refuses its settings:\n{tail}")
        return self.unavailable(f"the embedded {self.kind} did not start; the end of its log:\n{tail}")


def read_settings(
    settings: Mapping[Any, Any] | None, *, name: str, pattern: str, owned: frozenset[str], yes_no: tuple[str, str]
) -> dict[str, str]:
    """Checks settings and writes their values as text.

    Args:
        settings: what the user gave.
        name: the argument's name, for messages.
        pattern: what a setting's name must match.
        owned: names that are not the user's to set.
        yes_no: how `True` and `False` are written.

    Raises:
        ConfigurationError: not a mapping, or a name or value that cannot be.
    """
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{name} must be a mapping, not {type(settings).__name__} ({settings!r})")
    result: dict[str, str] = {}
    for key, value in settings.items():
        if not isinstance(key, str) or not re.fullmatch(pattern, key):
            raise ConfigurationError(f"{name} holds {key!r} ({type(key).__name__}), which is no setting's name")
        if key.lower() in owned:
            raise ConfigurationError(f"{name}[{key!r}] is set by the embedded server itself: leave it out")
        if not isinstance(value, str | int | float):
            raise ConfigurationError(
                f"{name}[{key!r}]={value!r} ({type(value).__name__}) must be text, a number or a bool"
            )
        text = (yes_no[0] if value else yes_no[1]) if isinstance(value, bool) else str(value)
        if any(character in text for character in "\0\r\n"):
            raise ConfigurationError(f"{name}[{key!r}]={value!r} must not hold a line break or NUL")
        result[key.lower()] = text
    return result


def _candidate() -> int:
    """A port below those that the system hands out.

    A client that retries a closed port of that range may be given the very port as its own, connect to itself, and so
    keep the server from coming back.
    """
    try:
        low = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        low = 49152
    low = low if low > 12_000 else 65_536
    return random.randrange(max(10_240, low - 20_000), low)  # noqa: S311 - no secret

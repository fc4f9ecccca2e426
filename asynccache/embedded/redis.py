"""`RedisServer`: a Valkey or Redis server on 127.0.0.1."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from asynccache.embedded.folders import Folder
from asynccache.embedded.process import GuardedProcess
from asynccache.embedded.server import Setting, SyncServer, read_settings
from asynccache.embedded.wheels import redis_program
from asynccache.errors import ConfigurationError, StoreUnavailable
from asynccache.policy import Duration

__all__ = ["RedisServer"]

_OWNED = frozenset({
    "bind", "port", "tls-port", "unixsocket", "dir", "daemonize", "supervised", "logfile", "pidfile", "include",
    "appendonly", "maxmemory", "cluster-enabled", "aclfile", "sentinel", "rename-command",
})  # fmt: skip


class RedisServer(SyncServer):
    """A Redis-compatible server with blocking methods. Arguments as `embedded.redis_server`."""

    kind = "Redis"
    stop_signal = signal.SIGTERM
    crash_signal = signal.SIGKILL
    unavailable = StoreUnavailable

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        append_only: bool | None = None,
        maxmemory: str | int | None = None,
        settings: Mapping[str, Setting] | None = None,
        binary: str | os.PathLike[str] | None = None,
        start_timeout: Duration = 30.0,
    ) -> None:
        chosen = read_settings(
            settings, name="settings", pattern=r"[A-Za-z][A-Za-z0-9-]*", owned=_OWNED, yes_no=("yes", "no")
        )
        if isinstance(maxmemory, bool) or not isinstance(maxmemory, str | int | None):
            raise ConfigurationError(
                f"maxmemory must be bytes or text such as '100mb', not {type(maxmemory).__name__} ({maxmemory!r})"
            )
        kept = data_dir is not None
        self._settings = {
            "appendonly": "yes" if (kept if append_only is None else append_only) else "no",
            **({} if kept else {"save": ""}),
            **({} if maxmemory is None else {"maxmemory": str(maxmemory)}),
            **chosen,
        }
        super().__init__(Folder(data_dir), start_timeout)
        try:
            self._binary = redis_program(self._folder.path, self._folder.user, binary)
        except BaseException:
            self._folder.close()
            raise

    @property
    def url(self) -> str:
        password = self._settings.get("requirepass", "")
        credentials = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{credentials}127.0.0.1:{self._port}/0"

    def _prepare(self, deadline: float, abort: threading.Event) -> None:  # noqa: ARG002 - nothing here takes long
        self._folder.make(self._folder.data)

    def _launch(self, port: int) -> GuardedProcess:
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(self._folder.data),
            "daemonize": "no",
            "logfile": "",
            **self._settings,
        }
        config = self._folder.path / "server.conf"
        self._folder.write(config, "".join(f"{name} {_quoted(value)}\n" for name, value in settings.items()))
        return GuardedProcess(
            [str(self._binary), str(config)],
            cwd=self._folder.data,
            log=self._folder.log,
            user=self._folder.user,
            keep_open=self._folder.lock,
            orphan_signal=self.crash_signal if self._folder.throwaway else self.stop_signal,
            grace=30,
            remove=self._folder.path if self._folder.throwaway else None,
            environment={"LC_ALL": "C"},
        )

    def _ready(self, pid: int, port: int) -> bool:
        # Another server may have won the port: the one that answers must be the one that was started.
        client = redis.Redis(
            host="127.0.0.1",
            port=port,
            password=self._settings.get("requirepass") or None,
            socket_timeout=1.0,
            socket_connect_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=False,
        )
        try:
            info = client.info()
        except (redis.RedisError, OSError, ValueError):
            return False
        finally:
            client.close()
        return info.get("process_id") == pid and not info.get("loading")

    def _refuses_settings(self, log: str) -> bool:
        return "FATAL CONFIG FILE ERROR" in log


def _quoted(value: str) -> str:
    """One line's value: several words are several arguments; quotes and the empty text need quoting."""
    if value and not any(character in value for character in "\"'\\"):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

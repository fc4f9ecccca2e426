"""`PostgresServer`: a PostgreSQL server on 127.0.0.1."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

from asynccache.clock import SYSTEM_CLOCK
from asynccache.embedded.folders import Folder
from asynccache.embedded.process import GuardedProcess
from asynccache.embedded.server import Setting, SyncServer, read_settings
from asynccache.embedded.wheels import postgres_programs
from asynccache.errors import DatabaseUnavailable
from asynccache.policy import Duration

__all__ = ["PostgresServer"]

_OWNED = frozenset({
    "port", "listen_addresses", "unix_socket_directories", "data_directory", "hba_file", "ident_file", "config_file",
    "external_pid_file", "logging_collector", "log_destination",
})  # fmt: skip
_THROWAWAY = {
    "fsync": "off",
    "full_page_writes": "off",
    # In the folder, and so removed with it; the default outlives a kill -9 in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
}
_REFUSALS = (
    "unrecognized configuration parameter",
    "invalid value for parameter",
    "is outside the valid range for parameter",
    "requires a Boolean value",
    "requires a numeric value",
    "cannot be changed",
)
_SOCKET_PATH_LIMIT = 100


class PostgresServer(SyncServer):
    """A PostgreSQL server with blocking methods. Arguments as `embedded.postgres_server`."""

    kind = "PostgreSQL"
    stop_signal = signal.SIGINT
    crash_signal = signal.SIGQUIT
    unavailable = DatabaseUnavailable

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        settings: Mapping[str, Setting] | None = None,
        start_timeout: Duration = 60.0,
    ) -> None:
        chosen = read_settings(
            settings, name="settings", pattern=r"[A-Za-z_][A-Za-z0-9_.]*", owned=_OWNED, yes_no=("on", "off")
        )
        self._settings = {**({} if data_dir is not None else _THROWAWAY), **chosen}
        self._password = ""
        super().__init__(Folder(data_dir), start_timeout)
        try:
            self._programs = postgres_programs(self._folder.path, self._folder.user)
        except BaseException:
            self._folder.close()
            raise

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/postgres"

    @property
    def socket_dir(self) -> Path | None:
        """The folder of its Unix socket; `None` where the path would be too long for one."""
        path = self._folder.path / "socket"
        return path if len(f"{path}/.s.PGSQL.65535") <= _SOCKET_PATH_LIMIT else None

    def _prepare(self, deadline: float, abort: threading.Event) -> None:
        self._folder.make(self._folder.data)
        secret = self._folder.path / "password"
        if not self._cluster.exists():
            self._make_cluster(secret, deadline, abort)
        self._password = secret.read_text().strip()
        if self.socket_dir:
            # A socket and its lock file that a kill left belong to nobody: this folder's lock is ours.
            shutil.rmtree(self.socket_dir, ignore_errors=True)
            self._folder.make(self.socket_dir)

    @property
    def _cluster(self) -> Path:
        return self._folder.data / "cluster"

    def _make_cluster(self, secret: Path, deadline: float, abort: threading.Event) -> None:
        """Runs initdb beside the final place: an interrupted one leaves nothing that looks like a database."""
        unfinished = self._folder.data / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password = secrets.token_hex(16)
        given = self._folder.path / "initdb.password"
        self._folder.write(given, password)
        command = [
            str(self._programs / "initdb"),
            f"--pgdata={unfinished}",
            "--username=postgres",
            "--auth=scram-sha-256",
            f"--pwfile={given}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--set=timezone=UTC",
            "--set=log_timezone=UTC",
            *(["--no-sync"] if self._folder.throwaway else []),
        ]
        try:
            self._process = process = self._guarded(command, unfinished)
            while not process.wait(0.02):
                if abort.is_set() or SYSTEM_CLOCK.monotonic() >= deadline:
                    process.signal(signal.SIGKILL)
            if process.returncode != 0:
                raise self._error(f"{self.log}\ninitdb ended with code {process.returncode}")
        finally:
            given.unlink(missing_ok=True)
        self._folder.write(secret, password, to_server=False)
        unfinished.rename(self._cluster)

    def _launch(self, port: int) -> GuardedProcess:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(self.socket_dir or ""),
            **self._settings,
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._guarded([str(self._programs / "postgres"), "-D", str(self._cluster), *arguments], self._cluster)

    def _guarded(self, command: list[str], cluster: Path) -> GuardedProcess:
        return GuardedProcess(
            command,
            cwd=self._folder.data,
            log=self._folder.log,
            user=self._folder.user,
            keep_open=self._folder.lock,
            orphan_signal=self.crash_signal if self._folder.throwaway else self.stop_signal,
            grace=30,
            remove=self._folder.path if self._folder.throwaway else None,
            postmaster_pid=cluster / "postmaster.pid",
            environment={"LC_ALL": "C", "TZ": "UTC"},
        )

    def _ready(self, pid: int, port: int) -> bool:
        # What pg_ctl reads, too: line 1 is the process, line 4 the port, line 8 the state.
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
            return int(lines[0]) == pid and int(lines[3]) == port and lines[7].strip() == "ready"
        except (OSError, ValueError, IndexError):
            return False

    def _refuses_settings(self, log: str) -> bool:
        return any(words in log for words in _REFUSALS)

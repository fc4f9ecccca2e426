"""A child process that cannot outlive this one, and the user it runs as."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asynccache.clock import SYSTEM_CLOCK

__all__ = ["GuardedProcess", "User", "reachable"]

_GUARDIAN = Path(__file__).with_name("guardian.py")


@dataclass(frozen=True, slots=True)
class User:
    """Whom a server runs as when we are root, which PostgreSQL refuses."""

    uid: int
    gid: int

    @classmethod
    def for_folder(cls, folder: Path) -> User | None:
        """The owner of `folder` if it exists and root does not own it, else `nobody`; `None` if we are not root."""
        if os.geteuid() != 0:
            return None
        with contextlib.suppress(FileNotFoundError):
            owner = folder.stat()
            if owner.st_uid != 0:
                return cls(owner.st_uid, owner.st_gid)
        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            return cls(65534, 65534)
        return cls(entry.pw_uid, entry.pw_gid)


def reachable(path: Path, user: User | None) -> bool:
    """Whether `user` may enter `path` (a folder) or read it (a file) through all of its parents.

    Mode bits alone decide; access lists are not consulted.
    """
    if user is None:
        return True
    path = path.resolve()
    for step in (*reversed(path.parents), path):
        status = step.stat()
        shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
        if not status.st_mode >> shift & 0o1:
            return False
    return True


class GuardedProcess:
    """A running command that ends when this process ends, kill -9 included.

    Apart from `alive`, not for use from two threads at once.

    Args:
        command: the program (an absolute path) and its arguments.
        cwd: the folder it runs in.
        log: where its output is appended.
        user: whom it runs as; `None` for us.
        keep_open: a file descriptor that it inherits, so that a lock on it lasts as long as the process.
        orphan_signal: what it gets when we are gone; SIGKILL follows after `grace` seconds.
        grace: whole seconds.
        remove: a folder that is deleted when we are gone.
        postmaster_pid: Postgres' file of that name, whose shared memory is freed after kill -9.
        environment: variables on top of ours.

    Raises:
        OSError: the guardian cannot be started. That the command cannot be run is told by its log and code 127.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        log: Path,
        user: User | None,
        keep_open: int,
        orphan_signal: int,
        grace: int = 10,
        remove: Path | None = None,
        postmaster_pid: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        spec = {
            "command": list(command),
            "cwd": str(cwd),
            "env": {**os.environ, **(environment or {})},
            "user": [user.uid, user.gid] if user else None,
            "parent": os.getpid(),
            "orphan_signal": orphan_signal,
            "grace": grace,
            "remove": str(remove) if remove else None,
            "postmaster_pid": str(postmaster_pid) if postmaster_pid else None,
        }
        with log.open("ab") as output:
            self._guardian = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-I", "-S", str(_GUARDIAN), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd="/",
                pass_fds=(keep_open,),
                # Ctrl-C in a terminal reaches us first, and we end the server in order.
                start_new_session=True,
                bufsize=0,
            )
        self._said = b""
        self._over = False
        self._done = False
        self.pid = 0
        self.returncode: int | None = None
        while not self.pid and not self._over:
            self._listen(None)

    @property
    def alive(self) -> bool:
        """Whether it still runs, or is about to be reported gone; may be asked from any thread."""
        return self._guardian.poll() is None

    def wait(self, timeout: float) -> bool:
        """Waits until the process and all that it started are gone.

        Args:
            timeout: seconds.

        Returns:
            Whether they are.
        """
        deadline = SYSTEM_CLOCK.monotonic() + timeout
        while not self._over:
            left = deadline - SYSTEM_CLOCK.monotonic()
            self._listen(max(0.0, left))
            if left <= 0:
                break
        return self._over

    def signal(self, number: int) -> None:
        """Sends a signal, and lets a paused process go on to meet it; does nothing to one that is gone."""
        self._tell(f"signal {int(number)}\n")

    def pause(self) -> None:
        """Stops the process and all that it started, until `resume` (on Linux; elsewhere the process alone)."""
        self._tell("pause\n")

    def resume(self) -> None:
        """Lets them go on."""
        self._tell("resume\n")

    def _tell(self, line: str) -> None:
        assert self._guardian.stdin is not None  # noqa: S101 - it was asked for
        if not self._over:
            self._done = False
            with contextlib.suppress(BrokenPipeError):
                self._guardian.stdin.write(line.encode())
            while not self._done and not self._over:
                self._listen(None)

    def _listen(self, timeout: float | None) -> None:
        assert self._guardian.stdout is not None  # noqa: S101 - it was asked for
        if not select.select([self._guardian.stdout], [], [], timeout)[0]:
            return
        data = self._guardian.stdout.read(4096)
        self._said += data or b""
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"pid":
                self.pid = int(number)
            elif word == b"done":
                self._done = True
            elif word == b"exit":
                self.returncode = int(number)
        if not data:
            self._over = True
            self._guardian.wait()
            self._guardian.stdout.close()
            if self._guardian.stdin is not None:
                self._guardian.stdin.close()

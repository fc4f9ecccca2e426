"""The process between us and a server: it ends the server when we are gone, however we went.

Run as a script with nothing but the standard library (`python -I -S guardian.py SPEC`), one for each server. It starts
the server as its child, reads commands from standard input, and reports on standard output:

    in   signal N      send signal N to the server (9 reaches all that the server started, too)
         pause         stop the server and all that it started, as SIGSTOP does
         resume        let them go on
    out  pid N         the server's process id, once
         done          for each command, when it has taken effect (a signal: has been sent)
         exit N        its exit code, or minus the signal that ended it; the guardian ends with it

End of file on standard input means that our process is gone, kill -9 included; a changed parent says the same where
a forked child of it still holds the pipe. Then the server gets `orphan_signal`, SIGKILL after `grace` seconds, and the
folder `remove` is deleted.

PR_SET_PDEATHSIG in place of this would not do: it fires when the *thread* that started the server ends. Here it only
covers the guardian's own death, which has one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IPC_RMID = 0
_LINUX = sys.platform == "linux"
_ENDING = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}


class Guardian:
    """One server process and what it started.

    Args:
        spec: `command`, `cwd`, `env`, `user` (`[uid, gid]` or null), `parent` (process id), `orphan_signal`, `grace`
            (seconds), `remove` (a folder or null), `postmaster_pid` (a file that names a shared memory segment, or
            null).
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._pid = 0
        self._status: int | None = None
        self._reaped: set[int] = set()
        self._orphaned = False
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._wake, wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGALRM, *_ENDING):
            signal.signal(number, lambda *_: None)

    def run(self) -> None:
        """Starts the server and returns when it and all that it started are gone."""
        if _LINUX:
            # What the server leaves behind becomes our child, so that "gone" can be waited for.
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._pid = os.fork()
        if self._pid == 0:
            self._become_server(os.getppid())
        self._say(f"pid {self._pid}")
        inputs = [self._wake, 0]
        while self._reap():
            ready, _, _ = select.select(inputs, [], [], 0.5)
            if self._wake in ready:
                self._on_signals(os.read(self._wake, 4096))
            if 0 in ready and not self._on_commands(os.read(0, 4096)):
                inputs.remove(0)
                self._on_orphaned()
            if os.getppid() != self._spec["parent"]:
                self._on_orphaned()
        self._free_shared_memory()
        if self._orphaned and self._spec["remove"]:
            shutil.rmtree(self._spec["remove"], ignore_errors=True)
        self._say(f"exit {self._status}")

    def _become_server(self, guardian: int) -> None:
        try:
            if self._spec["user"]:
                uid, gid = self._spec["user"]
                os.setgroups([])
                os.setgid(gid)
                os.setuid(uid)
            if _LINUX:
                # After setuid, which clears it.
                self._libc.prctl(_PR_SET_PDEATHSIG, self._spec["orphan_signal"], 0, 0, 0)
                if os.getppid() != guardian:
                    os._exit(1)
            os.chdir(self._spec["cwd"])
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(2, 1)
            command = self._spec["command"]
            os.execve(command[0], command, self._spec["env"])  # noqa: S606 - no shell is wanted
        except BaseException as error:  # noqa: BLE001 - must not return into the guardian's code
            os.write(2, f"cannot run {self._spec['command'][0]}: {error}\n".encode())
        finally:
            os._exit(127)

    def _reap(self) -> bool:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._reaped.add(pid)
            if pid == self._pid:
                self._status = os.waitstatus_to_exitcode(status)
                self._signal_started(signal.SIGKILL)

    def _on_signals(self, numbers: bytes) -> None:
        if _ENDING.intersection(numbers):
            self._on_orphaned()
        if signal.SIGALRM in numbers:
            self._signal(signal.SIGKILL)

    def _on_commands(self, data: bytes) -> bool:
        for line in data.decode().splitlines():
            word, _, argument = line.partition(" ")
            if word == "signal":
                self._signal(int(argument))
            elif word == "pause":
                self._signal(signal.SIGSTOP)
                self._signal_started(signal.SIGSTOP)
                self._until_stopped()
            elif word == "resume":
                self._signal(signal.SIGCONT)
            self._say("done")
        return bool(data)

    def _on_orphaned(self) -> None:
        if not self._orphaned:
            self._orphaned = True
            signal.alarm(self._spec["grace"])
            self._signal(self._spec["orphan_signal"])

    def _signal(self, number: int) -> None:
        if self._status is None:
            os.kill(self._pid, number)
            if number != signal.SIGSTOP:
                os.kill(self._pid, signal.SIGCONT)
        if number == signal.SIGKILL:
            self._signal_started(signal.SIGKILL)
        elif number != signal.SIGSTOP:
            self._signal_started(signal.SIGCONT)

    def _signal_started(self, number: int) -> None:
        """Signals all that the server started; what cannot be listed (not Linux) is left alone."""
        for child in _descendants(os.getpid()):
            if child != self._pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, number)

    def _until_stopped(self) -> None:
        """A process that runs on another processor stops a moment after it was told to."""
        for _ in range(1000):
            if all(_state(pid) in "TtXZ" for pid in _descendants(os.getpid())):
                return
            select.select([], [], [], 0.001)

    def _free_shared_memory(self) -> None:
        """A Postgres that was killed leaves a segment behind, which only a start on the same folder would remove."""
        file = self._spec["postmaster_pid"]
        if not file:
            return
        with contextlib.suppress(OSError, IndexError, ValueError):
            lines = Path(file).read_text("utf-8", "replace").splitlines()
            # The file of an older process is not ours to judge. A single-user process writes its id negated.
            if abs(int(lines[0])) in self._reaped:
                self._libc.shmctl(int(lines[6].split()[1]), _IPC_RMID, None)

    @staticmethod
    def _say(line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(1, f"{line}\n".encode())


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "X"


def main() -> None:
    """The script."""
    Guardian(json.loads(sys.argv[1])).run()


if __name__ == "__main__":
    main()

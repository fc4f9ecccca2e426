"""The folder that a server keeps its data, its log and its lock in: thrown away afterwards, or kept.

    lock         locked (flock) as long as we, the guardian or the server live
    log          what the server printed
    data/        the server's own
    programs/    links to the programs, where the user that the server runs as cannot reach the wheel

A throwaway folder is removed by its owner, by the guardian if the owner was killed, and by the next start if both
were: one whose lock can be taken belongs to nobody alive.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from pathlib import Path

from asynccache.clock import SYSTEM_CLOCK
from asynccache.embedded.process import User, reachable
from asynccache.errors import ConfigurationError

__all__ = ["Folder"]

_PREFIX = "asynccache-embedded-"
# The server of a process that was killed writes its data out before it lets the folder go.
_PREVIOUS_OWNER_ENDS = 5.0


class Folder:
    """A locked folder for one server.

    Args:
        data_dir: a folder to keep, made if it is missing; `None` for a throwaway one.

    Raises:
        ConfigurationError: `data_dir` is no folder, cannot be used, or is in use by another server.
    """

    def __init__(self, data_dir: str | os.PathLike[str] | None) -> None:
        self.throwaway = data_dir is None
        if data_dir is None:
            self.path, self.lock = _make_throwaway()
        else:
            if not isinstance(data_dir, str | os.PathLike):
                raise ConfigurationError(f"data_dir must be a path, not {type(data_dir).__name__} ({data_dir!r})")
            self.path = Path(data_dir).absolute()
            self.lock = _lock_kept(self.path)
        self.data = self.path / "data"
        self.log = self.path / "log"
        self.user = User.for_folder(self.data)
        if not reachable(self.path, self.user):
            uid = self.user.uid if self.user else 0
            self.close()
            raise ConfigurationError(
                f"data_dir={str(self.path)!r} cannot be reached by user id {uid}, which the server runs as because "
                "root is refused by PostgreSQL: choose a folder whose parents others may enter (mode o+x)"
            )
        if not self.throwaway:
            self.log.unlink(missing_ok=True)

    def make(self, path: Path) -> None:
        """Makes a folder that belongs to the user the server runs as."""
        path.mkdir(mode=0o700, exist_ok=True)
        self.give(path)

    def give(self, path: Path) -> None:
        """Hands a file or folder to the user the server runs as."""
        if self.user:
            os.chown(path, self.user.uid, self.user.gid)

    def write(self, path: Path, text: str, *, to_server: bool = True) -> None:
        """Writes a file that only we, or only the user the server runs as, may read."""
        path.unlink(missing_ok=True)
        path.touch(0o600, exist_ok=False)
        path.write_text(text, "utf-8")
        if to_server:
            self.give(path)

    def close(self) -> None:
        """Removes a throwaway folder and gives the lock back."""
        if self.lock < 0:
            return
        if self.throwaway:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            shutil.rmtree(self.path / "programs", ignore_errors=True)
        os.close(self.lock)
        self.lock = -1


def _make_throwaway() -> tuple[Path, int]:
    root = _temporary_root()
    _sweep(root)
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        # A sweep may have taken the lock first, and removes the folder then.
        if _try_lock(lock) and (path / "lock").exists():
            path.chmod(0o755)
            return path, lock
        os.close(lock)


def _temporary_root() -> Path:
    user = User.for_folder(Path("/"))
    roots = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - mkdtemp makes the folder
    for root in roots:
        if root.is_dir() and reachable(root, user):
            return root
    return roots[0]


def _sweep(root: Path) -> None:
    for path in root.glob(f"{_PREFIX}*"):
        try:
            if path.is_symlink() or path.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if _try_lock(lock):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)


def _lock_kept(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"data_dir={str(path)!r} cannot be used as a folder: {error}") from error
    deadline = SYSTEM_CLOCK.monotonic() + _PREVIOUS_OWNER_ENDS
    while not _try_lock(lock):
        if SYSTEM_CLOCK.monotonic() < deadline:
            threading.Event().wait(0.05)
            continue
        os.close(lock)
        raise ConfigurationError(f"data_dir={str(path)!r} is in use by another embedded server: give each its own")
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

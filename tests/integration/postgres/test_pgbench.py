"""A table that somebody else's tool has made: `pgbench_accounts`, as `pgbench -i` leaves it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import asyncpg
import pytest

from asynccache.embedded.wheels import postgres_programs
from asynccache.postgres import PostgresTable
from asynccache.protocols import Applied, Batch, Delete, Put

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class Account:
    aid: int
    branch: int | None
    balance: int | None = 0


@pytest.fixture
def pgbench(tmp_path: Path) -> str:
    return shutil.which("pgbench") or str(postgres_programs(tmp_path, None) / "pgbench")


@pytest.fixture
async def accounts(database_url: str, schema: str, pool: Pool, pgbench: str) -> PostgresTable[Account]:
    made = await asyncio.to_thread(
        subprocess.run,
        [pgbench, "-i", "-s", "1", "-q", database_url],
        env={"PGOPTIONS": f"-c search_path={schema}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    table = PostgresTable(
        pool, "pgbench_accounts", key="aid", model=Account, columns={"branch": "bid", "balance": "abalance"}
    )
    await table.open()
    return table


@pytest.mark.one_loop
async def test_a_table_that_pgbench_made_is_read_and_written(accounts: PostgresTable[Account], pool: Pool) -> None:
    assert len(await accounts.load_many(range(50_000))) == 49_999
    assert (await accounts.load_many([7]))[7] == Account(7, 1, 0)
    filler = await pool.fetchval("SELECT filler FROM pgbench_accounts WHERE aid = 7")

    puts = [Put(aid, Account(aid, 1, aid)) for aid in range(99_500, 100_500)]
    applied = await accounts.apply(Batch([*puts, Put(7, Account(7, 1, -7)), Delete(8)]))

    assert applied.stored == {**{put.key: put.value for put in puts}, 7: Account(7, 1, -7)}
    assert set(await accounts.load_many([7, 8, 100_499, 100_500])) == {7, 100_499}
    assert await pool.fetchval("SELECT filler FROM pgbench_accounts WHERE aid = 7") == filler
    batch = Batch([Put(7, Account(7, 1, 70))], id=uuid4())
    assert [await accounts.apply(batch) for _ in range(2)] == [Applied(), Applied(again=True)]
    whole = PostgresTable(pool, "pgbench_accounts", key="aid", model=dict)
    assert (await whole.load_many([7]))[7] == {"aid": 7, "bid": 1, "abalance": 70, "filler": " " * 84}

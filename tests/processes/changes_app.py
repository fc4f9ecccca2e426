"""An application that follows its database's changes, made at import; as a process, it says what it sees.

`python -m tests.processes.changes_app`: answers each line `{"get": 1}` with the user's name, and `{"health": 1}` with
whether it does the work.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from asynccache import Cache, ReadThrough
from asynccache.postgres import Database, PostgresChanges, PostgresTable, TableChanges


@dataclass
class User:
    id: int
    name: str
    team_id: int


database = Database(os.environ["APP_DATABASE"])
schema = os.environ["APP_SCHEMA"]
cache = Cache(os.environ["APP_REDIS"], namespace=os.environ["APP_NAMESPACE"], ttl=600)
users = ReadThrough(cache, "user", source=PostgresTable(database, f"{schema}.users", key="id", model=User))
cache.follow(
    PostgresChanges(
        database,
        tables=[TableChanges("users", key="id", entries=[users], tags=["users"])],
        schema=schema,
        poll=float(os.environ.get("APP_POLL", "0.1")),
    )
)


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main() -> None:
    loop = asyncio.get_running_loop()
    async with cache:
        say("ready")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            if "get" in asked:
                user = await users.get(asked["get"])
                say({"name": None if user is None else user.name})
            else:
                health = cache.health().changes[0]
                say({"active": health.active, "ok": health.ok, "handled": health.handled})


if __name__ == "__main__":
    asyncio.run(main())

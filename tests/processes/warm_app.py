"""An application as users write it, for `asynccache warm` and `asynccache top`."""

from __future__ import annotations

import os

from asynccache import Cache, CacheAside, HotKeys, ReadThrough
from asynccache.postgres import Database, PostgresTable
from tests.processes.warm_app_user import User

cache = Cache(
    os.environ["APP_REDIS"],
    namespace=os.environ["APP_NAMESPACE"],
    ttl=60,
    hot_keys=HotKeys(capacity=100, half_life="1h", share_every="1h"),
)
table = PostgresTable(Database(os.environ["APP_DATABASE"]), f"{os.environ['APP_SCHEMA']}.users", key="id", model=User)
users = ReadThrough(cache, "user", source=table)
tenant_users = ReadThrough(cache.namespace("tenant-7"), "user", source=table)
aside = CacheAside(cache, "aside", type=User)
cache.warm_at_start(users, keys=range(1, 10))  # commands do only what they are for

uncounted = Cache(os.environ["APP_REDIS"], namespace="uncounted", ttl=60)
plain = CacheAside(uncounted, "plain")

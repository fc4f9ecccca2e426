"""Real servers without installing any: Valkey and PostgreSQL out of wheels, for demos, tests and development.

    async with embedded.servers() as s:
        cache = Cache(s.redis_url, namespace="demo", ttl=60)

Each server listens on 127.0.0.1 on a port of its own, several may run at once, and none outlives the process that
started it, however that ends. Needs `pip install 'asynccache[embedded]'`; Linux and macOS.
"""

from __future__ import annotations

from asynccache.embedded.contexts import (
    postgres_server,
    postgres_server_sync,
    redis_server,
    redis_server_sync,
    servers,
    servers_sync,
)
from asynccache.embedded.handles import Server, Servers, SyncServers
from asynccache.embedded.server import SyncServer

__all__ = [
    "Server",
    "Servers",
    "SyncServer",
    "SyncServers",
    "postgres_server",
    "postgres_server_sync",
    "redis_server",
    "redis_server_sync",
    "servers",
    "servers_sync",
]

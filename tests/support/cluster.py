"""A Redis Cluster of three nodes on 127.0.0.1, made of the embedded server."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
import redis
from redis.asyncio import RedisCluster

from asynccache.clock import SYSTEM_CLOCK
from asynccache.embedded.redis import RedisServer
from asynccache.errors import StoreUnavailable
from tests.support.fixtures import REDIS_SERVER_VARIABLE

__all__ = ["ClusterNode"]

SLOTS = 16_384
NODES = 3
PATIENCE = 30.0


class ClusterNode(RedisServer):
    """One node, which knows no other yet."""

    def __init__(self) -> None:
        super().__init__(binary=os.environ.get(REDIS_SERVER_VARIABLE) or None)
        self._settings |= {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "2000",
            "cluster-require-full-coverage": "no",
        }

    def ask(self, *command: object) -> Any:
        """What it answers to a command."""
        with closing(redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, decode_responses=True)) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's own types end here


@pytest.fixture(scope="session")
def cluster_nodes() -> Iterator[tuple[ClusterNode, ...]]:
    """The nodes of a running cluster, which tests share, each with a namespace of its own."""
    with _cluster() as nodes:
        yield nodes


@pytest.fixture
def own_cluster() -> Iterator[tuple[ClusterNode, ...]]:
    """The nodes of a cluster that the test may break."""
    with _cluster() as nodes:
        yield nodes


@pytest.fixture
async def cluster(cluster_nodes: tuple[ClusterNode, ...]) -> AsyncIterator[RedisCluster]:
    """A client of the shared cluster."""
    client = RedisCluster(host="127.0.0.1", port=cluster_nodes[0].port, socket_timeout=10)
    try:
        yield client
    finally:
        await client.aclose()


@contextmanager
def _cluster() -> Iterator[tuple[ClusterNode, ...]]:
    with ExitStack() as stack:
        nodes = tuple(_started(stack) for _ in range(NODES))
        for number, node in enumerate(nodes):
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port)
        _wait(lambda: all(map(_knows_all, nodes)))
        yield nodes


def _started(stack: ExitStack) -> ClusterNode:
    for _ in range(20):
        node = ClusterNode()
        stack.callback(node.close)
        try:
            node.start()
        except StoreUnavailable as error:  # the port of the nodes' own talk is ten thousand higher, and may be none
            if "port" not in str(error).lower():
                raise
        else:
            return node
    pytest.fail("no ports for a cluster", pytrace=False)


def _knows_all(node: ClusterNode) -> bool:
    info = node.ask("CLUSTER", "INFO")
    text = info if isinstance(info, str) else "\n".join(f"{name}:{value}" for name, value in info.items())
    expected = ("cluster_state:ok", f"cluster_slots_ok:{SLOTS}", f"cluster_known_nodes:{NODES}")
    return all(one in text for one in expected)


def _wait(state: Callable[[], bool]) -> None:
    deadline = SYSTEM_CLOCK.monotonic() + PATIENCE
    while not state():
        if SYSTEM_CLOCK.monotonic() > deadline:
            pytest.fail("the nodes have not found each other", pytrace=False)
        threading.Event().wait(0.02)

"""What races start from."""

from __future__ import annotations

import pytest

from asynccache import Policy
from tests.races.worlds import KEY, World
from tests.support.caches import MakeCache
from tests.support.gates import Table


@pytest.fixture
async def world(make_cache: MakeCache) -> World:
    """Two processes with a cold cache; the row is "old"; "not found" is remembered; nothing is refreshed early."""
    policy = Policy(negative_ttl=60, early=0)
    return World(await make_cache(policy=policy), await make_cache(policy=policy), Table(**{KEY: "old"}))

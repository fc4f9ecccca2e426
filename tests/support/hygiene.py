"""What every test is held to: no task outlives it, nothing blocks the event loop, and no test is skipped unseen."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from blockbuster import BlockBuster
from pytest_asyncio import is_async_test

# A task that was cancelled or has just been given its result needs a turn or two of the loop to end.
TURNS = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        default=os.environ.get("ASYNCCACHE_TEST_NO_SKIPS", "") not in {"", "0"},
        help="a skipped test fails the run (also: ASYNCCACHE_TEST_NO_SKIPS=1)",
    )


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Blocking calls that asynccache makes on a running event loop raise `BlockingError`."""
    if not is_async_test(request.node):
        yield
        return
    guard = _blockbuster()
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()


@functools.cache
def _blockbuster() -> BlockBuster:
    guard = BlockBuster("asynccache")
    for function in guard.functions.values():
        # Imports on first use: a module is read once in the life of a process.
        function.can_block_in("<frozen importlib._bootstrap>", "_find_and_load")
        # Not ours to change: each new connection of redis-py reads its package's version, of asyncpg ~/.pgpass.
        function.can_block_in("redis/utils.py", "get_lib_version")
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_dsn_and_args")
        # Who draws examples inside of a test may read sources: once for constants, and to describe a lambda.
        function.can_block_in("hypothesis/internal/conjecture/providers.py", "_get_local_constants")
        function.can_block_in("hypothesis/internal/lambda_sources.py", "lambda_description")
    return guard


@pytest.fixture(autouse=True)
def no_task_is_left(request: pytest.FixtureRequest) -> None:
    """Fails an async test that leaves a task running once its other fixtures are torn down."""
    if is_async_test(request.node):
        request.getfixturevalue("_no_task_is_left")


@pytest.fixture
async def _no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    current = asyncio.current_task()
    for _ in range(TURNS):
        left = asyncio.all_tasks() - before - {current}
        if not left:
            return
        await asyncio.sleep(0)
    for task in left:
        task.cancel()
    await asyncio.wait(left, timeout=5)
    names = "\n".join(f"  {task.get_name()}: {task.get_coro()!r}" for task in left)
    pytest.fail(f"the test left {len(left)} task(s) running:\n{names}", pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("no_skips") and _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = _skipped(config)
    if config.getoption("no_skips") and skipped:
        terminalreporter.write_line(f"{skipped} skipped test(s) fail this run: --no-skips", red=True, bold=True)


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if isinstance(reporter, pytest.TerminalReporter) else 0

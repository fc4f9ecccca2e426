"""The embedded servers never outlive whoever started them, nor a start that was cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from asynccache import embedded
from asynccache.embedded import contexts, server
from tests.support.processes import PATIENCE, alive, connection, nothing_in, redis_client, run_script, until

# Threads and processes do the work; the event loop only waits for them.
pytestmark = pytest.mark.one_loop

HOLD = """
    import os, signal, sys, time
    from asynccache import embedded
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests in the background may have had it ignored
    with embedded.servers_sync(*sys.argv[1:]) as s:
        print(s.redis.pid, s.postgres.pid, s.redis.path, s.postgres.path, flush=True)
        sys.stdin.read()
"""


class TestOutliving:
    @pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    async def test_servers_and_folders_go_with_the_process_that_started_them(self, ending: signal.Signals) -> None:
        pids, paths = await _end_of_owner(HOLD, ending)
        await until(lambda: not any(map(alive, pids)), f"{pids} are gone")
        await until(lambda: not any(path.exists() for path in paths), f"{paths} are removed")

    async def test_a_forked_child_that_lives_on_does_not_keep_them(self) -> None:
        script = HOLD.replace("sys.stdin.read()", "os.fork() or (os.close(1), os.close(2))\n        sys.stdin.read()")
        pids, _ = await _end_of_owner(script, signal.SIGKILL)
        await until(lambda: not any(map(alive, pids)), f"{pids} are gone")

    async def test_a_thread_that_started_them_may_end(self) -> None:
        made: list[server.SyncServer] = []

        def start() -> None:
            context = embedded.redis_server_sync()
            contexts_.append(context)
            made.append(context.__enter__())

        contexts_: list[Any] = []
        thread = threading.Thread(target=start)
        thread.start()
        await asyncio.to_thread(thread.join)
        async with redis_client(made[0].url) as client:
            assert await client.ping()
        await asyncio.to_thread(contexts_[0].__exit__, None, None, None)

    async def test_a_forked_childs_exit_does_not_end_them(self) -> None:
        script = """
            import os, socket
            from asynccache import embedded
            with embedded.redis_server_sync() as s:
                if os.fork() == 0:
                    raise SystemExit
                os.wait()
                socket.create_connection(("127.0.0.1", s.port)).close()
                print(s.path.is_dir(), end="")
        """
        done = await asyncio.to_thread(run_script, script, [])
        assert (done.stdout, done.returncode) == ("True", 0), done.stderr

    async def test_a_kept_folder_stays_and_is_intact_after_its_owner_was_killed(self, folder: Path) -> None:
        pids, paths = await _end_of_owner(HOLD, signal.SIGKILL, str(folder))
        await until(lambda: not any(map(alive, pids)), f"{pids} are gone")
        assert all(path.exists() for path in paths)
        async with embedded.servers(folder) as servers, connection(servers.database_url) as database:
            assert await database.fetchval("SELECT 1") == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
    async def test_a_killed_guardian_takes_its_server_along_and_the_folder_is_swept_by_the_next_start(self) -> None:
        pids, paths = await _end_of_owner(HOLD, signal.SIGKILL, guardians=True)
        await until(lambda: not any(map(alive, pids)), f"{pids} are gone")
        assert all(path.exists() for path in paths)
        async with embedded.redis_server() as started:
            assert not any(path.exists() for path in paths)
            async with embedded.redis_server():
                assert started.path.exists()


async def _end_of_owner(
    script: str, ending: signal.Signals, *arguments: str, guardians: bool = False
) -> tuple[list[int], list[Path]]:
    """Runs `script` in a process and ends that; returns its servers' process ids and folders."""
    owner = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(script),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert owner.stdout is not None
    words = (await asyncio.wait_for(owner.stdout.readline(), PATIENCE)).decode().split()
    pids, paths = [int(word) for word in words[:2]], [Path(word) for word in words[2:]]
    assert len(pids) == len(paths) == 2
    assert all(map(alive, pids))
    if guardians:
        # First, or they would do their work.
        for pid in pids:
            os.kill(_parent(pid), signal.SIGKILL)
    owner.send_signal(ending)
    await asyncio.wait_for(owner.wait(), PATIENCE)
    return pids, paths


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class TestCancelling:
    @pytest.mark.parametrize("start", [embedded.redis_server, embedded.postgres_server])
    @pytest.mark.parametrize("delay", [0.0, 0.001, 0.02, 0.1, 0.2])
    async def test_a_cancelled_start_leaves_nothing_running(
        self, start: Callable[[], Any], delay: float, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = _record_servers(monkeypatch)

        async def use() -> None:
            async with start():
                await asyncio.Event().wait()

        task = asyncio.ensure_future(use())
        await asyncio.wait([task], timeout=delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any(each.running for each in made)
        assert nothing_in(temporary)

    async def test_a_start_that_runs_out_of_time_leaves_nothing_running(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = _record_servers(monkeypatch)
        with anyio.move_on_after(0.05) as scope:
            async with embedded.postgres_server():
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert made
        assert not any(each.running or each.path.exists() for each in made)

    async def test_a_cancelled_kill_has_killed(self) -> None:
        async with embedded.redis_server() as started:
            pid = started.pid
            task = asyncio.ensure_future(started.kill())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not alive(pid)


def _record_servers(monkeypatch: pytest.MonkeyPatch) -> list[server.SyncServer]:
    made: list[server.SyncServer] = []
    for name in ("RedisServer", "PostgresServer"):
        original = getattr(contexts, name)

        def make(*args: Any, original: Any = original, **kwargs: Any) -> Any:
            made.append(original(*args, **kwargs))
            return made[-1]

        monkeypatch.setattr(contexts, name, make)
    return made

"""`asynccache advise` as a process: what it prints, draws and refuses, and with which exit code."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asynccache import Cache, Recorder

ROOT = Path(__file__).parents[2]
NUMBERS = ("--reads", "200", "--writes", "20", "--keys", "200", "--duration", "20s", "--ttl", "5s", "--ttl", "10")

pytestmark = pytest.mark.one_loop


async def advise(*arguments: str, given: str | None = None) -> tuple[int, str, str]:
    """Its exit code, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from asynccache.cli import main; main()",
        "advise",
        *arguments,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, error = await process.communicate(None if given is None else given.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


async def test_numbers_are_answered_with_a_table_and_a_sentence() -> None:
    code, out, error = await advise(*NUMBERS, "--stale", "0")
    assert (code, error) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert rows[1][:4] == ["strategy", "TTL", "hits", "reads/s"]
    assert [row[0] for row in rows[2:9]] == [
        "none",
        "read-through",
        "10s",
        "write-through",
        "10s",
        "write-behind",
        "10s",
    ]
    assert "Use write-through with ttl=10s: this service makes all writes" in out
    assert (await advise(*NUMBERS, "--stale", "0"))[1] == out, "the same for the same numbers"


async def test_plans_with_stale_are_shown_if_asked_for() -> None:
    _, out, _ = await advise(*NUMBERS, "--all", "--stale", "2")
    assert "stale" in out.splitlines()[1]
    assert "20s" in out


async def test_machines_are_told_all() -> None:
    code, out, _ = await advise(*NUMBERS, "--json", "--foreign-writes", "0.5")
    found: dict[str, Any] = json.loads(out)
    assert code == 0
    assert found["recommended"]["rule"] == "changes"
    assert found["recommended"]["plan"]["changes"] is True
    by_plan = {(one["plan"]["strategy"], one["plan"]["changes"], one["plan"]["stale"]): one for one in found["plans"]}
    assert by_plan["read-through", True, 0]["oldest"] < by_plan["read-through", False, 0]["oldest"]
    assert 0 < by_plan["write-through", False, 0]["hit_ratio"] < 1


async def test_no_cache_is_exit_code_1() -> None:
    code, out, _ = await advise("--reads", "100", "--keys", "1000000", "--skew", "0", "--duration", "10s")
    assert code == 1
    assert "Do not cache: reads are rarely repeated" in out


async def test_what_a_cache_recorded_is_advised_on(redis_url: str, namespace: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"

    async def load() -> int:
        return 1

    async with Cache(redis_url, namespace=namespace, ttl=60, record=Recorder(path)) as cache:
        for number in range(300):
            await cache.get_or_load(number % 10, load)
    code, out, error = await advise(str(path), "--ttl", "1m", "--json")
    assert (code, error) == (0, "")
    found = json.loads(out)
    assert (found["trace"]["operations"], found["trace"]["keys"]) == (300, 10)
    assert found["recommended"]["hits"] == 290
    _, out, _ = await advise(str(path), "--ttl", "1m", "--json", "--recorded-share", "0.1")
    assert json.loads(out)["recommended"]["entries"] == 100


async def test_a_trace_comes_from_standard_input_too() -> None:
    given = "time,operation,key\n0,get,a\n1000,get,a\n2000,get,a\n2500,get,a\n"
    code, out, error = await advise("-", "--time-unit", "ms", "--ttl", "1h", given=given)
    assert (code, error) == (0, "")
    assert "4 operations on 1 keys in 2.5 s" in out
    assert "it answers 75% of the reads" in " ".join(out.split())


async def test_a_picture_is_drawn(tmp_path: Path) -> None:
    for name, begins in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        code, _, error = await advise(*NUMBERS, "--plot", str(tmp_path / name))
        assert (code, error) == (0, "")
        assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a trace, or numbers"),
        (("no such file.csv",), "no such file.csv cannot be read"),
        (("-", "--reads", "5"), "leave them out with a trace"),
        (("-", "--time-unit", "years"), "--time-unit years"),
        (("-", "--recorded-share", "2"), "--recorded-share 2"),
        (("-", "--sample", "0"), "sample=0"),
        (("-",), "-, line 2: the operation 'fetch'"),
        (("--reads", "0"), "nothing to cache"),
        (("--reads", "10", "--ttl", "soon"), "--ttl='soon' is not a duration"),
        (("--reads", "10", "--plot", "a.nonsense", "--duration", "5"), "--plot a.nonsense"),
    ],
)
async def test_what_cannot_work_is_exit_code_2_and_a_reason(arguments: tuple[str, ...], said: str) -> None:
    code, out, error = await advise(*arguments, given="time,operation,key\n1,fetch,a\n")
    assert (code, out) == (2, "")
    assert error.startswith("asynccache advise: ")
    assert said in error


def test_a_missing_matplotlib_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from asynccache import MissingExtra
    from asynccache.advising import Workload, advise
    from asynccache.cli.advice_plot import plot

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"asynccache\[advise\]"):
        plot(advise(Workload(10, duration=5).trace()), tmp_path / "a.png")

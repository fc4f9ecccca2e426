"""`python -m benchmarks`: runs the scenarios and writes the report."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import ModuleType

import asyncpg
from redis.asyncio import Redis

from asynccache import embedded
from benchmarks.model import Context, Finding
from benchmarks.report import compare, environment, to_markdown, write
from benchmarks.scenarios import SCENARIOS

_LOOPS = ("asyncio", "uvloop")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--scenario", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--quick", action="store_true", help="shorter windows, fewer rounds")
    parser.add_argument(
        "--loop",
        choices=("both", *_LOOPS),
        default="both",
        help="the event loop; of both, targets are judged on asyncio's own, and uvloop stands beside it",
    )
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="print how ratios have changed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="where the report goes")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Runs what the arguments ask for; returns 1 if a target is not met, 2 for a scenario that does not exist."""
    arguments = _arguments(given)
    chosen = {module.NAME: module for module in SCENARIOS}
    if arguments.list:
        for name, module in chosen.items():
            print(f"{name:16} {(module.__doc__ or '').strip()}")
        return 0
    if arguments.scenario:
        unknown = [name for name in arguments.scenario if name not in chosen]
        if unknown:
            print(f"no scenario {', '.join(unknown)}; there are: {', '.join(chosen)}", file=sys.stderr)
            return 2
        chosen = {name: chosen[name] for name in arguments.scenario}
    loops = [*_LOOPS] if arguments.loop == "both" else [arguments.loop]
    load = f"{os.getloadavg()[0]:.2f}"
    failed: dict[str, str] = {}
    if "uvloop" in loops and importlib.util.find_spec("uvloop") is None:
        if arguments.loop == "uvloop":
            print("no uvloop: pip install 'asynccache[bench]'", file=sys.stderr)
            return 2
        loops.remove("uvloop")
        failed["uvloop"] = "not installed"
    servers, findings = _run(list(chosen.values()), loops, failed, quick=arguments.quick)
    run = environment(servers, " beside ".join(loops), arguments.quick, f"{load} before the run")
    write(arguments.out, run, findings, failed)
    print(to_markdown(run, findings, failed))
    if arguments.compare:
        print("\n".join(compare(json.loads(arguments.compare.read_text()), findings)))
    print(f"written to {arguments.out}/", file=sys.stderr)
    return 0 if all(met for finding in findings for _, _, met in finding.targets) else 1


def _new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "asyncio":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - an extra

    return uvloop.new_event_loop()


def _run(
    scenarios: list[ModuleType], loops: Sequence[str], failed: dict[str, str], *, quick: bool
) -> tuple[str, list[Finding]]:
    """Runs each scenario on a new loop of each kind, one after the other, so that both see the same machine."""
    findings = []
    stack = AsyncExitStack()
    with asyncio.Runner() as home:  # of the servers, which outlive the loops that use them
        try:
            redis_url, database_url = home.run(_servers(stack))
            for scenario in scenarios:
                found: dict[str, Finding] = {}
                for name in loops if getattr(scenario, "USES_LOOP", True) else loops[:1]:
                    print(f"{scenario.NAME} on {name} ...", file=sys.stderr, flush=True)
                    with asyncio.Runner(loop_factory=partial(_new_loop, name)) as runner:
                        found[name] = runner.run(_scenario(scenario, redis_url, database_url, quick, failed))
                finding, *others = found.values()
                finding.beside = {name: other.series for name, other in zip([*found][1:], others, strict=True)}
                findings.append(finding)
            return home.run(_versions(redis_url, database_url)), findings
        finally:
            home.run(stack.aclose())


async def _servers(stack: AsyncExitStack) -> tuple[str, str]:
    redis_url, database_url = os.environ.get("REDIS_URL"), os.environ.get("DATABASE_URL")
    if not redis_url or not database_url:
        started = await stack.enter_async_context(embedded.servers())
        redis_url, database_url = redis_url or started.redis_url, database_url or started.database_url
    return redis_url, database_url


async def _scenario(
    scenario: ModuleType, redis_url: str, database_url: str, quick: bool, failed: dict[str, str]
) -> Finding:
    async with AsyncExitStack() as stack:
        finding: Finding = await scenario.run(Context(redis_url, database_url, quick, stack, failed))
        return finding


async def _versions(redis_url: str, database_url: str) -> str:
    async with Redis.from_url(redis_url) as client:
        info = await client.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    connection = await asyncpg.connect(database_url)
    try:
        postgres = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    return f"{name} {info.get('valkey_version', info.get('redis_version'))}, PostgreSQL {postgres.split()[0]}"


if __name__ == "__main__":
    sys.exit(main())

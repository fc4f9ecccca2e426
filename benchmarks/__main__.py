"""`python -m benchmarks`: runs the scenarios and writes the report."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType

import asyncpg
from redis.asyncio import Redis

from asynccache import embedded
from benchmarks.model import Context, Finding
from benchmarks.report import compare, environment, to_markdown, write
from benchmarks.scenarios import SCENARIOS


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--scenario", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--quick", action="store_true", help="shorter windows, fewer rounds")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the event loop")
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
    factory = None
    if arguments.loop == "uvloop":
        import uvloop  # noqa: PLC0415 - an extra

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        servers, findings, failed = runner.run(_run(list(chosen.values()), quick=arguments.quick))
    run = environment(servers, arguments.loop, arguments.quick)
    write(arguments.out, run, findings, failed)
    print(to_markdown(run, findings, failed))
    if arguments.compare:
        print("\n".join(compare(json.loads(arguments.compare.read_text()), findings)))
    print(f"written to {arguments.out}/", file=sys.stderr)
    return 0 if all(met for finding in findings for _, _, met in finding.targets) else 1


async def _run(scenarios: list[ModuleType], *, quick: bool) -> tuple[str, list[Finding], dict[str, str]]:
    findings = []
    failed: dict[str, str] = {}
    async with AsyncExitStack() as servers:
        redis_url, database_url = os.environ.get("REDIS_URL"), os.environ.get("DATABASE_URL")
        if not redis_url or not database_url:
            started = await servers.enter_async_context(embedded.servers())
            redis_url, database_url = redis_url or started.redis_url, database_url or started.database_url
        for scenario in scenarios:
            print(f"{scenario.NAME} ...", file=sys.stderr, flush=True)
            async with AsyncExitStack() as stack:
                context = Context(redis_url, database_url, quick, stack, failed)
                findings.append(await scenario.run(context))
        return await _versions(redis_url, database_url), findings, failed


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

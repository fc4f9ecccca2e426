"""The README and the examples: what they show runs, and says what it does."""

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(marker: str) -> str:
    """The code block after a marker in the README."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found is not None, marker
    return found[1]


def test_the_readme_shows_the_first_example_as_it_is() -> None:
    assert block("examples/quickstart.py") == (ROOT / "examples/quickstart.py").read_text()


def test_the_readmes_commands_are_one_line_each_and_ci_runs_the_tests_one() -> None:
    for marker in ("demo command", "test command"):
        command = block(marker).strip()
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && ")
    assert "README.md" in (ROOT / ".ci/run").read_text()


@pytest.mark.one_loop
async def test_the_first_example_runs() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "examples/quickstart.py",
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode().splitlines()[:3] == ["User(id=42, name='Ada')", "User(id=42, name='Ada Lovelace')", "1 user"]


@pytest.mark.one_loop
async def test_the_fastapi_example_serves_reads_writes_and_counts(
    redis_url: str, database_url: str, schema: str, namespace: str
) -> None:
    separator = "&" if "?" in database_url else "?"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"{database_url}{separator}search_path={schema}",
        "CACHE_NAMESPACE": namespace,
    }
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        *shlex.split("-m uvicorn examples.fastapi_app:app --port 0 --no-access-log"),
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
    )
    assert server.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(60):
            while not (address := re.search(r"running on (http://[\d.:]+)", said)):
                line = await server.stderr.readline()
                assert line, said
                said += line.decode()
        async with httpx.AsyncClient(base_url=address[1], timeout=30) as client:
            assert (await client.get("/products/1")).status_code == 404
            tea = {"id": 1, "name": "tea", "cents": 250}
            assert (await client.put("/products/1", json=tea)).json() == tea
            for _ in range(3):
                assert (await client.get("/products/1")).json() == tea
            assert (await client.get("/products/1/views")).json() == 3
            assert (await client.put("/products/1", json={**tea, "cents": 300})).json()["cents"] == 300
            assert (await client.get("/products/1")).json()["cents"] == 300
            assert (await client.put("/products/1", json={**tea, "cents": -1})).status_code == 422
            assert (await client.get("/products/1")).json()["cents"] == 300
            assert (await client.delete("/products/1")).status_code == 204
            assert (await client.get("/products/1")).status_code == 404
            services = {"buffer:views": "running", "flusher:views": "running"}
            assert (await client.get("/health")).json() == {"ok": True, "services": services}
    finally:
        server.terminate()
        rest = await server.stderr.read()
        # uvicorn shuts down, and then ends by the signal it was sent.
        assert await server.wait() == -signal.SIGTERM, said + rest.decode()
    assert "Traceback" not in rest.decode()

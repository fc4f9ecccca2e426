"""The pages in docs/: the examples that they show are those in examples/, run, and print what the page says."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOWN = re.compile(r"<!-- examples/(\w+\.py) -->\n```python\n(.*?)```", re.DOTALL)
PRINTED = re.compile(
    r"<!-- examples/(\w+\.py) -->\n```python\n.*?```\n\nIt prints:\n\n<!-- prints -->\n```text\n(.*?)```", re.DOTALL
)
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
OUTPUTS = {name: printed for page in PAGES.values() for name, printed in PRINTED.findall(page)}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_examples_as_they_are(page: str) -> None:
    for name, code in SHOWN.findall(PAGES[page]):
        assert code == (ROOT / "examples" / name).read_text(), f"{page} shows another examples/{name}"


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.one_loop
async def test_an_example_runs_and_prints_what_its_page_says(name: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        f"examples/{name}",
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode() == OUTPUTS[name]


def test_every_example_is_on_a_page() -> None:
    pages = "".join(PAGES.values()) + (ROOT / "README.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"examples/{path.name}" in pages, f"no page shows or names examples/{path.name}"

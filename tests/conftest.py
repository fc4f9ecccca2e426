"""The test frame. Everything is in `tests/support`; this file only names the parts."""

from __future__ import annotations

pytest_plugins = [
    "tests.support.loops",
    "tests.support.services",
    "tests.support.hygiene",
    "tests.support.fixtures",
    "tests.support.caches",
    "tests.support.cluster",
]

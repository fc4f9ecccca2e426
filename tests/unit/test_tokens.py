"""Tokens are nobody else's: not another thread's, not a forked child's."""

from __future__ import annotations

import os
import threading

import pytest

from asynccache import tokens
from asynccache.tokens import new_token


def test_no_two_threads_get_the_same_token() -> None:
    found: list[list[bytes]] = []
    start = threading.Barrier(4)

    def take() -> None:
        start.wait()
        found.append([new_token() for _ in range(20_000)])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [token for some in found for token in some]
    assert len(every) == len(set(every)) == 80_000
    assert {len(token) for token in every} == {8}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing can be forked here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_repeat_its_parents_tokens() -> None:
    new_token()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(new_token() for _ in range(100)))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 800)
    os.close(reading)
    os.close(writing)
    ours = {new_token() for _ in range(100)}
    assert len(theirs) == 800
    assert ours.isdisjoint(theirs[at : at + 8] for at in range(0, 800, 8))


def test_no_token_means_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_tokens", iter([(bytes(8),)]))
    assert new_token() == b"\x01" * 8

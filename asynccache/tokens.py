"""Random bytes that name fills, writers and generations; unique, not secret."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["new_salt", "new_token"]


def new_token() -> bytes:
    """Eight bytes that nobody else uses; never all zero, which means "nobody"."""
    global _tokens  # noqa: PLW0603 - see `_refilled`
    try:
        (token,) = next(_tokens)
    except StopIteration:
        _tokens = _refilled()
        (token,) = next(_tokens)
    return token if token != _NOBODY else b"\x01" * 8


def _refilled() -> Iterator[tuple[bytes]]:
    """Tokens from the system, many at a time. One step of this iterator is one to all threads, so that no two of them
    take the same token; and a forked child begins with its own."""
    return _SPLIT(os.urandom(8 * _AT_ONCE))


def _forget() -> None:
    global _tokens  # noqa: PLW0603 - the child's copy of what the parent goes on to use
    _tokens = iter(())


_NOBODY: Final = bytes(8)
_AT_ONCE: Final = 512
_SPLIT: Final = struct.Struct("8s").iter_unpack
_tokens: Iterator[tuple[bytes]] = iter(())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def new_salt() -> bytes:
    """Four bytes that keep two generations of the same microsecond apart."""
    return os.urandom(4)

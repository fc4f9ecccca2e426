"""Random bytes that name fills, writers and generations; unique, not secret."""

from __future__ import annotations

import os

__all__ = ["new_salt", "new_token"]


def new_token() -> bytes:
    """Eight bytes that nobody else uses; never all zero, which means "nobody"."""
    # From the system: a generator of this process would repeat itself in a forked child.
    token = os.urandom(8)
    return token if any(token) else b"\x01" * 8


def new_salt() -> bytes:
    """Four bytes that keep two generations of the same microsecond apart."""
    return os.urandom(4)

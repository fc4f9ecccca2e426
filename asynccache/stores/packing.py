"""redis-py's connections with commands packed by hiredis, as its synchronous ones do: batches have many arguments."""

from __future__ import annotations

from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection

__all__ = ["packed_by_hiredis"]


def packed_by_hiredis(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """A class of connections like `kind`, which packs commands in C."""

    class Packed(kind):  # type: ignore[misc,valid-type]  # known at run time
        """A connection that packs commands in C."""

        def pack_command(self, *args: Any) -> list[bytes]:
            if isinstance(args[0], str) and " " in args[0]:  # as in CLIENT SETINFO: two words are two arguments
                args = (*args[0].split(), *args[1:])
            try:
                return [hiredis.pack_command(args)]
            except TypeError:  # an argument of a type that only redis-py knows
                packed: list[bytes] = super().pack_command(*args)
                return packed

    Packed.__name__ = Packed.__qualname__ = f"Packed{kind.__name__}"
    return Packed

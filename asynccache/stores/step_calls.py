"""Steps of the key protocol as calls of their scripts."""

from __future__ import annotations

from typing import Final, assert_never

from asynccache.entry import NewValue
from asynccache.steps import (
    Acquire,
    BeginWrite,
    Bump,
    EndBump,
    EndWrite,
    Ensure,
    Extend,
    Fill,
    Invalidate,
    Put,
    Refresh,
    Release,
    Step,
)
from asynccache.stores.scripts import Argument, Call, Script, load_script

__all__ = ["call_of"]

# Read with the module: at first use it would be on the event loop.
_SCRIPTS: Final[dict[type, Script]] = {
    Acquire: load_script("acquire"),
    Fill: load_script("fill"),
    Extend: load_script("extend"),
    Release: load_script("release"),
    Refresh: load_script("refresh"),
    BeginWrite: load_script("begin_write"),
    EndWrite: load_script("end_write"),
    Invalidate: load_script("invalidate"),
    Put: load_script("put"),
    Ensure: load_script("ensure"),
    Bump: load_script("bump"),
    EndBump: load_script("end_bump"),
}


def call_of(key: str, step: Step, put_deadline_ms: int) -> Call:
    """The call that takes a step.

    Args:
        key: the cell, or the generation.
        step: what happens to it.
        put_deadline_ms: when a put is no longer carried out, in milliseconds of the server's clock.
    """
    return Call(_SCRIPTS[type(step)], (key,), _arguments(step, put_deadline_ms))


def _value(value: NewValue) -> tuple[Argument, ...]:
    return value.fresh_ms, value.dead_ms, value.head(), value.rest()


def _arguments(step: Step, put_deadline_ms: int) -> tuple[Argument, ...]:
    match step:
        case Acquire(token, lease_ms, dead):
            return token, lease_ms, dead
        case Fill(token, value):
            return token, *_value(value)
        case Extend(token, lease_ms):
            return token, lease_ms
        case Release(token, retry_ms):
            return token, retry_ms
        case Refresh(token, lease_ms, id_, at_once):
            return token, lease_ms, id_, int(at_once)
        case BeginWrite(token, write_ms):
            return token, write_ms
        case EndWrite(token, new):
            return (token,) if new is None else (token, *_value(new))
        case Invalidate():
            return ()
        case Put(value):
            return *_value(value), put_deadline_ms
        case Ensure(salt) | Bump(salt):
            return (salt,)
        case EndBump(token, salt):
            return token, salt
        case _:
            assert_never(step)

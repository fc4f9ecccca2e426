"""Classes by name: what an untyped value says that it is, and the class that this process knows by that name.

Nothing is ever imported for the data's sake. Only what stands in the dictionary of a loaded module, or of a class in
it, is found: asking a module for an attribute may import (PEP 562).
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from asynccache.codecs.shapes import Model, fields, model_kind, parts
from asynccache.errors import DecodeError, EncodeError

__all__ = ["Names", "Plan", "plan"]


class Names:
    """Finds classes by `module:qualname`.

    Args:
        known: classes to find in any case, also where no module holds them, such as those defined in a function.
    """

    def __init__(self, known: Iterable[type] = ()) -> None:
        self._known = {_name(kind): kind for kind in known}

    def name(self, kind: type) -> str:
        """The name by which `find` finds the class.

        Raises:
            EncodeError: there is none, so that nobody could read the value again.
        """
        name = _name(kind)
        if self._search(name) is not kind:
            raise EncodeError(
                f"{name} is not found by this name, so that its values could not be read again: define the class at the"
                " top of a module, or pass it as type="
            )
        return name

    def find(self, name: str) -> type:
        """The class of that name.

        Raises:
            DecodeError: this process has not imported it, or it is not a class.
        """
        found = self._search(name)
        if found is None:
            raise DecodeError(f"{name:.200} is not a class that this process has imported")
        return found

    def _search(self, name: str) -> type | None:
        if name in self._known:
            return self._known[name]
        module, _, path = name.partition(":")
        found: Any = sys.modules.get(module)
        for part in path.split("."):
            found = getattr(found, "__dict__", {}).get(part)
        return found if isinstance(found, type) else None


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


class Plan(NamedTuple):
    """How instances of one model are written and restored.

    Attributes:
        model: which kind it is.
        decode: reads what msgspec wrote; None for pydantic models.
        open: whether the types of some fields say too little, so that each field is written with what it is.
        names: of the fields, and what `msgspec.convert` calls them.
        tag: field and value by which msgspec tells structs apart; empty where there is none.
        array: whether `msgspec.convert` takes the fields in order, without their names.
    """

    model: Model
    decode: Callable[[Any], Any] | None = None
    open: bool = False
    names: tuple[tuple[str, str], ...] = ()
    tag: tuple[tuple[str, Any], ...] = ()
    array: bool = False


@lru_cache(maxsize=4096)
def plan(kind: Any) -> Plan | None:
    """The plan of a model; None if the class is none.

    Raises:
        EncodeError: a model that msgspec cannot restore.
    """
    model = model_kind(kind)
    if model is None or model == "typeddict":
        return None
    if model == "pydantic":
        return Plan(model)
    try:
        decode: Callable[[Any], Any] = msgspec.msgpack.Decoder(kind).decode
        found = parts(kind)
    except (TypeError, NameError) as error:
        raise EncodeError(f"{_name(kind)} cannot be cached: {error}") from error
    if not found.open and not found.unknown:
        return Plan(model, decode)
    flags = [part for part in found.enums if issubclass(part, enum.Flag)]
    if flags:
        # msgspec.convert takes an enum's member for a field of its type, but not a flag's.
        raise EncodeError(
            f"{_name(kind)} cannot be cached: beside the flag {flags[0].__qualname__} it has fields that may be of"
            " any type; use an Enum, or declare their types"
        )
    if issubclass(kind, msgspec.Struct):
        config = kind.__struct_config__
        names = tuple((field.name, field.encode_name) for field in msgspec.structs.fields(kind))
        tag = ((config.tag_field, config.tag),) if config.tag_field is not None else ()
        return Plan(model, decode, True, names, tag, config.array_like)
    names = tuple((field.name, field.name) for field in fields(kind))
    return Plan(model, decode, True, names, array=model == "namedtuple")

"""Sources in the one form that strategies use: a loader for each key whose concurrent calls share a query."""

from __future__ import annotations

import copy
import functools
import inspect
import operator
import types
import typing
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from asynccache.errors import ConfigurationError
from asynccache.protocols import KeyValue, Loader, ManyLoader, Source
from asynccache.stores.batching import Batcher
from asynccache.strategies.loading import Load, LoadContext, bind_loader
from asynccache.supervision import gather

__all__ = ["AnySource", "CheckedSource", "Loading", "StreamsKeys", "model_of"]

V = TypeVar("V")

AnySource: TypeAlias = Source[V] | ManyLoader[V] | Loader[V]
"""A `Source`, or a plain `async def load(key)` or `async def load_many(keys)`."""


@runtime_checkable
class CheckedSource(Protocol):
    """A source that knows which key values fit."""

    def check_key(self, key: Any, /) -> None:
        """Raises `InvalidKey` for a key value that cannot be one of its keys."""
        ...


@runtime_checkable
class StreamsKeys(Protocol):
    """A source that streams the keys which a query returns."""

    def stream_keys(self, query: str, /, *args: Any) -> AsyncGenerator[Any, None]:
        """Key values, one after the other.

        Args:
            query: returns the key columns, in the key's order.
            args: its arguments.
        """
        ...


class Loading(Generic[V]):
    """Loads by key from any source.

    Args:
        source: a `Source`, an `async def load(key)`, or an `async def load_many(keys)`: the latter is told by its
            name, or by its parameter's name, `keys`.
        max_batch: most keys in one query.
        max_calls: most queries under way at once.
    """

    def __init__(self, source: AnySource[V], *, max_batch: int = 1000, max_calls: int = 8) -> None:
        self._single: Callable[[Any], Awaitable[V | None]] | None = None
        self._batcher: Batcher[Any, V | None] | None = None
        if isinstance(source, Source):
            many: ManyLoader[V] = source.load_many
        elif not callable(source):
            raise ConfigurationError(
                "source must be a PostgresTable, anything with `async def load_many(keys)`, or an async function,"
                f" not {source.__class__.__name__} ({source!r})"
            )
        elif _takes_many(source):
            many = source  # type: ignore[assignment]  # told by its signature
        else:
            self._single = source  # type: ignore[assignment]  # the same
            return
        self._many = many
        self._batcher = Batcher(self._load, name="loads", max_batch=max_batch, max_calls=max_calls)

    @property
    def crowd(self) -> Callable[[], None] | None:
        """`expect_company` of a source that loads many keys at once; None of one that loads them one by one."""
        return None if self._batcher is None else self.expect_company

    def loader(self, key: KeyValue) -> Load[V]:
        """Loads one key, in one query with the others of this moment."""
        if self._single is not None:
            return bind_loader(self._single, key)
        assert self._batcher is not None  # noqa: S101 - one of the two is set
        batcher = self._batcher

        def load(context: LoadContext) -> Awaitable[V | None]:
            if context.crowded:
                batcher.expect_company()
            return batcher(key)

        return load

    def expect_company(self) -> None:
        """Lets the next loads share a query, because many are about to come."""
        if self._batcher is not None:
            self._batcher.expect_company()

    async def load_many(self, keys: Sequence[Any]) -> Mapping[Any, V]:
        """Loads many keys at once, whatever kind of source it is."""
        if self._single is None:
            return await self._many(list(keys))
        single = self._single
        values = await gather(bind_loader(single, key)(LoadContext(str(key))) for key in keys)
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    async def _load(self, keys: Sequence[Any]) -> list[V | BaseException | None]:
        found = await self._many(list(dict.fromkeys(keys)))
        if not isinstance(found, Mapping):
            raise ConfigurationError(
                f"load_many must return a mapping of keys to values, not {found.__class__.__name__}"
            )
        if len(set(keys)) == len(keys):
            return [found.get(key) for key in keys]
        values: list[V | BaseException | None] = []
        given: set[Any] = set()
        for key in keys:
            values.append(_another(found.get(key)) if key in given else found.get(key))
            given.add(key)
        return values

    async def aclose(self) -> None:
        """Cancels queries under way."""
        if self._batcher is not None:
            await self._batcher.aclose()


def _another(value: V) -> V:
    """A copy for one more caller, so that callers cannot change each other's."""
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - of a foreign type; what cannot be copied is shared
        return value


def _takes_many(function: Callable[..., Any]) -> bool:
    name = getattr(function, "__name__", "")
    try:
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = []
    return name.endswith("_many") or parameters[:1] == ["keys"]


def model_of(source: object) -> Any:
    """What values of this source are, as far as it says: its `model`, or a function's return annotation; else None."""
    model = getattr(source, "model", None)
    if model is not None:
        return model
    if not callable(source):
        return None
    return returned_type(source, many=_takes_many(source))


def returned_type(function: Callable[..., Any], *, many: bool = False) -> Any:
    """The annotated result of an async function, without `None`; of a mapping the values' type. None if unknown."""
    try:
        result = typing.get_type_hints(function, include_extras=True).get("return")
    except Exception:  # noqa: BLE001 - annotations may name what exists only for type checkers
        return None
    if many:
        arguments = typing.get_args(result)
        result = arguments[1] if len(arguments) == 2 else None
    # None is never stored as a value, so a type with it and one without are the same.
    if typing.get_origin(result) in {typing.Union, types.UnionType}:
        rest = [member for member in typing.get_args(result) if member is not type(None)]
        result = functools.reduce(operator.or_, rest) if rest else None
    return None if result is None or result is Any or result is type(None) else result

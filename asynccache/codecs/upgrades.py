"""How entries that an older model has written are read: as that model, and then made into one of the new."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from asynccache.codecs.base import Codec, Packed
from asynccache.codecs.fingerprints import fingerprint
from asynccache.codecs.shapes import model_kind
from asynccache.codecs.untyped import UntypedCodec
from asynccache.errors import ConfigurationError, DecodeError

__all__ = ["Upgrade", "Upgrader", "Upgrades", "make_upgraders"]

O = TypeVar("O")  # noqa: E741 - the old model
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Upgrade(Generic[O, V]):
    """How an entry of an older model becomes one of the model in use, so that a deploy does not empty the cache.

    `CacheAside(cache, "user", type=User, upgrade=[Upgrade(UserV1, lambda old: User(old.id, old.name, email=None))])`.

    Writes that pend in a write-behind strategy, and its dead letters, are read with it, too. There what raises stops
    the partition until it is mended, since nothing is dropped; and columns that are adjusted must keep their names.

    Attributes:
        old: the model as it was, kept under a name of its own.
        convert: makes a value of the model in use of one of the old; what raises is a miss.
        called: what classes were called when they wrote, if not as now: `{UserV1: "User"}`. The old model itself is
            also found under the name of the model in use.
    """

    old: type[O]
    convert: Callable[[O], V]
    called: Mapping[type, str] = field(default_factory=dict)


Upgrades: TypeAlias = "Sequence[Upgrade[Any, V]]"


class Upgrader(Generic[V]):
    """Reads what one older model wrote."""

    def __init__(self, codec: Codec[Any], old: Codec[Any], convert: Callable[[Any], V]) -> None:
        self._codec = codec
        self._old = old
        self._convert = convert

    def __call__(self, payload: bytes, compressed: bool) -> tuple[V, Packed]:
        """The value in the new model, and as the new model writes it.

        Raises:
            DecodeError: the bytes are not of the old model, or it cannot be converted.
            EncodeError: what it was converted to is not of the new model.
        """
        old = self._old.unpack(payload, compressed)
        try:
            value = self._convert(old)
        except Exception as error:
            raise DecodeError(f"a {self._old.type!r} could not be upgraded: {error}") from error
        packed = self._codec.pack(value)
        return value, packed

    def __repr__(self) -> str:
        return f"Upgrader({self._old.type!r} -> {self._codec.type!r})"


def make_upgraders(
    where: str, codec: Codec[V], upgrades: object, codec_of: Callable[[Any], Codec[Any]]
) -> dict[tuple[int, bytes], Upgrader[V]]:
    """The readers of older entries, by codec and fingerprint.

    Args:
        where: for messages.
        codec: of the model in use.
        upgrades: what a user gave.
        codec_of: makes the codec of an old model.

    Raises:
        ConfigurationError: an upgrade cannot work.
    """
    if upgrades is None:
        return {}
    if isinstance(upgrades, Upgrade) or not isinstance(upgrades, Sequence):
        raise ConfigurationError(
            f"{where}: upgrade must be a list such as [Upgrade(UserV1, convert)], not {upgrades!r}"
        )
    found: dict[tuple[int, bytes], Upgrader[V]] = {}
    for upgrade in upgrades:
        if not isinstance(upgrade, Upgrade):
            raise ConfigurationError(f"{where}: upgrade must hold Upgrades, not {type(upgrade).__name__} ({upgrade!r})")
        if not callable(upgrade.convert) or inspect.iscoroutinefunction(upgrade.convert):
            raise ConfigurationError(
                f"{where}: Upgrade({upgrade.old!r}): convert must be a plain function of the old value, not"
                f" {upgrade.convert!r}; what it needs to wait for belongs in the loader"
            )
        old = codec_of(upgrade.old)
        if isinstance(old, UntypedCodec) or isinstance(codec, UntypedCodec):
            raise ConfigurationError(
                f"{where}: Upgrade({upgrade.old!r}): only entries of a type that says what all its fields are can be"
                " upgraded; the others hold the names of their classes"
            )
        upgrader = Upgrader(codec, old, upgrade.convert)
        for shape in _shapes(upgrade, codec.type):
            if shape != codec.fingerprint:
                found.setdefault((old.id, shape), upgrader)
        if not any(one is upgrader for one in found.values()):
            raise ConfigurationError(
                f"{where}: Upgrade({upgrade.old!r}) has the shape of {codec.type!r}, or of another upgrade: entries"
                " need none, or cannot be told apart"
            )
    return found


def _shapes(upgrade: Upgrade[Any, Any], new: Any) -> list[bytes]:
    """The fingerprints under which entries of the old model may stand."""
    names = [dict(upgrade.called)]
    if model_kind(upgrade.old) is not None and model_kind(new) is not None:
        names.append({upgrade.old: new.__qualname__, **upgrade.called})
    return [fingerprint(upgrade.old, called) for called in names]

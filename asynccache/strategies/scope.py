"""One namespace of a cache, as strategies see it: its keys, and the defaults of what is stored under them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from asynccache.admission import Admission
from asynccache.codecs import Codec, codec_for
from asynccache.codecs.upgrades import Upgrades, make_upgraders
from asynccache.errors import ConfigurationError
from asynccache.keys import KeySpace
from asynccache.policy import Duration, Policy, effective_policy
from asynccache.strategies.admitting import Admitting, check_admission
from asynccache.strategies.runtime import Runtime
from asynccache.strategies.verdicts import Recipe

__all__ = ["Host", "Scope", "scope_of"]


class Scope:
    """A namespace and what its entries have in common.

    Args:
        runtime: the cache's parts, which all its namespaces share.
        space: names the keys.
        policy: how entries live and are loaded where nobody says otherwise.
        max_value_bytes: largest encoded value.
        compress_above: compresses encoded values above so many bytes; None does not.
        admit: which loaded and written values are stored; None stores all.
    """

    def __init__(
        self,
        runtime: Runtime,
        space: KeySpace,
        policy: Policy | None,
        *,
        max_value_bytes: int,
        compress_above: int | None,
        admit: Admission | None = None,
    ) -> None:
        self.runtime = runtime
        self.space = space
        self.policy = policy
        self.admit = admit
        self._max_value_bytes = max_value_bytes
        self._compress_above = compress_above

    def nested(
        self,
        name: str,
        *,
        ttl: Duration | None = None,
        policy: Policy | None = None,
        admit: Admission | None = None,
    ) -> Scope:
        """A namespace in this one; what it does not say itself is as here."""
        chosen = policy or self.policy
        if policy is not None and policy.ttl is None and self.policy is not None:
            chosen = policy.with_ttl(self.policy.ttl)
        if ttl is not None:
            chosen = (chosen or Policy()).with_ttl(ttl)
        space = KeySpace((*self.space.path, name))
        return Scope(
            self.runtime,
            space,
            chosen,
            max_value_bytes=self._max_value_bytes,
            compress_above=self._compress_above,
            admit=self.admit if admit is None else admit,
        )

    @property
    def where(self) -> str:
        """`tenant-7/` for a nested namespace, for names that must differ between namespaces; else empty."""
        return "".join(f"{name}/" for name in self.space.path[1:])

    def recipe(
        self,
        where: str,
        name: str,
        type: Any = Any,
        *,
        policy: Policy | None = None,
        ttl: Duration | None = None,
        upgrade: Upgrades[Any] | None = None,
        admit: Admission | None = None,
        max_value_bytes: int | None = None,
    ) -> Recipe[Any]:
        """A kind of entry, under this namespace's defaults.

        Args:
            where: what it is for, for messages.
            name: the strategy or function.
            type: what values are.
            policy, ttl: over this namespace's.
            upgrade: how entries of older models are read.
            admit, max_value_bytes: over this namespace's.

        Raises:
            MissingTTL: there is no TTL here nor in the namespace.
            ConfigurationError: the type cannot be cached, or another argument cannot work.
        """
        chosen = effective_policy(where, policy, self.policy, ttl=ttl)
        codec = self.codec(type, max_value_bytes)
        upgrades = make_upgraders(where, codec, upgrade, self.codec)
        return Recipe(name, codec, chosen, self.space, upgrades, self.admitting(where, admit))

    def admitting(self, where: str, admit: Admission | None = None) -> Admitting | None:
        """The admission policy given, or else this namespace's, at work."""
        policy = check_admission(where, admit)
        policy = self.admit if policy is None else policy
        return None if policy is None else Admitting(policy, self.runtime.counters, where)

    def codec(self, type: Any, max_value_bytes: int | None = None) -> Codec[Any]:
        """The codec for values of this type, with the cache's limits."""
        largest = self._max_value_bytes if max_value_bytes is None else max_value_bytes
        return codec_for(type, max_value_bytes=largest, compress_above=self._compress_above)

    def generations(self, tags: Iterable[str] = ()) -> tuple[str, ...]:
        """Keys of the generations that an entry with these tags carries: the namespaces', and each tag's."""
        return (*self.space.own_generations(), *(self.space.generation(tag) for tag in tags))

    def outdated_by(self, tags: Iterable[str] = ()) -> tuple[str, ...]:
        """Generations each of which outdates all entries that have these tags: first this namespace's, then those of
        the namespaces around it, then each tag's."""
        return (*reversed(self.space.own_generations()), *(self.space.generation(tag) for tag in tags))

    def __repr__(self) -> str:
        return f"Scope({'/'.join(self.space.path)!r})"


class Host(Protocol):
    """Whatever strategies may be built on: a `Cache`, or a namespace of one."""

    @property
    def scope(self) -> Scope:
        """The namespace, and the parts of the cache that it is in."""
        ...


def scope_of(host: object, where: str) -> Scope:
    """The scope of what a user gave as the cache.

    Raises:
        ConfigurationError: it is neither a cache nor a namespace.
    """
    scope = getattr(host, "scope", None)
    if not isinstance(scope, Scope):
        raise ConfigurationError(
            f"{where}: cache must be a Cache or a namespace of one, not {type(host).__name__} ({host!r})"
        )
    return scope

"""Every error asynccache raises, drawn once.

AsyncCacheError
├── ConfigurationError            a bad argument; raised where it is given, before any I/O
│   ├── MissingTTL                nothing on the call, the strategy or the cache says how long an entry lives
│   ├── InvalidKey                a value that cannot be part of a key, or does not fit the table's key
│   ├── SchemaMismatch            model and table disagree
│   └── MissingExtra              an optional dependency is not installed
├── CacheNotOpen                  used before `async with cache:` or after it
├── Unavailable
│   ├── StoreUnavailable          Redis cannot be reached in time, or refuses
│   └── DatabaseUnavailable       Postgres cannot be reached in time, or refuses
├── LoadCancelled                 a load ended because something other than its callers cancelled it
├── LoadTimeout                   a load took longer than `load_timeout` (also a TimeoutError)
├── RecursiveLoad                 a loader asked for the very key it loads
├── EncodeError                   a value that the codec cannot write
│   └── ValueTooLarge             an encoded value above `max_value_bytes`
├── DecodeError                   bytes that are not a value of this type; a reader counts it as a miss
├── WriteRejected                 the database refused the row; nothing was written
├── BufferFull                    write-behind holds as many pending writes as it may
└── DurabilityNotReached          a write was buffered, but fewer replicas or disks confirmed it than asked
"""

from __future__ import annotations

__all__ = [
    "AsyncCacheError",
    "BufferFull",
    "CacheNotOpen",
    "ConfigurationError",
    "DatabaseUnavailable",
    "DecodeError",
    "DurabilityNotReached",
    "EncodeError",
    "InvalidKey",
    "LoadCancelled",
    "LoadTimeout",
    "MissingExtra",
    "MissingTTL",
    "RecursiveLoad",
    "SchemaMismatch",
    "StoreUnavailable",
    "Unavailable",
    "ValueTooLarge",
    "WriteRejected",
]


class AsyncCacheError(Exception):
    """The root of every error this package raises on purpose."""


class ConfigurationError(AsyncCacheError, ValueError):
    """An argument that cannot work; the message names it, the type it had, and the fix."""


class MissingTTL(ConfigurationError):
    """No TTL on the call, the strategy or the cache."""


class InvalidKey(ConfigurationError, TypeError):
    """A value that cannot be part of a key."""


class SchemaMismatch(ConfigurationError):
    """A model and the table it is stored in disagree."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional dependency is needed here and not installed."""


class CacheNotOpen(AsyncCacheError, RuntimeError):
    """The cache is not open: it was not entered yet, was closed, or belongs to a parent process."""


class Unavailable(AsyncCacheError):
    """A server could not be reached in time, or refused the command."""


class StoreUnavailable(Unavailable):
    """Redis could not be reached in time, or refused the command."""


class DatabaseUnavailable(Unavailable):
    """Postgres could not be reached in time, or refused the command."""


class LoadCancelled(AsyncCacheError):
    """A load was cancelled, but not by its callers: the cache was closed, or the loader cancelled itself."""


class LoadTimeout(AsyncCacheError, TimeoutError):
    """A load took longer than its `load_timeout`, and no stale value was at hand."""


class RecursiveLoad(AsyncCacheError, RuntimeError):
    """A loader asked the cache for the very key that it loads, directly or through another loader."""


class EncodeError(AsyncCacheError, TypeError):
    """A value that the codec of its entry cannot write."""


class ValueTooLarge(EncodeError):
    """An encoded value above the limit."""


class DecodeError(AsyncCacheError, ValueError):
    """Bytes that are not a value of the expected type."""


class WriteRejected(AsyncCacheError):
    """The database refused a row; the statement that held it wrote nothing."""


class BufferFull(AsyncCacheError):
    """The write-behind buffer holds as many pending writes as it may."""


class DurabilityNotReached(AsyncCacheError):
    """A write is buffered, but not as durably as asked."""

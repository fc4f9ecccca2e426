"""asyncio-native caching for services that read and write PostgreSQL through Redis."""

from asynccache.admission import Admission, AfterRequests, Always, CountsRequests, Occasion, Predicate
from asynccache.cache import Cache
from asynccache.codecs.upgrades import Upgrade
from asynccache.errors import (
    AsyncCacheError,
    BufferFull,
    CacheNotOpen,
    ConfigurationError,
    DatabaseUnavailable,
    DecodeError,
    DurabilityNotReached,
    EncodeError,
    InvalidKey,
    LoadCancelled,
    LoadTimeout,
    MissingExtra,
    MissingTTL,
    RecursiveLoad,
    SchemaMismatch,
    StoreUnavailable,
    Unavailable,
    ValueTooLarge,
    WriteRejected,
)
from asynccache.events import ChangesHealth, MissReason, Stats
from asynccache.hot_keys.settings import HotKey, HotKeys
from asynccache.lifecycle import CacheHealth
from asynccache.namespaces import Namespace
from asynccache.observability.recording import Recorder, RecorderStats
from asynccache.policy import Policy
from asynccache.protocols import (
    Adjust,
    Adjustment,
    Append,
    Applied,
    Batch,
    DeadLetter,
    Delete,
    Put,
    Rejected,
    Retried,
    Sink,
    Source,
)
from asynccache.stores.local import LocalTier
from asynccache.strategies.buffering import Receipt
from asynccache.strategies.cache_aside import CacheAside
from asynccache.strategies.explaining import Explanation, NextRead, Reason
from asynccache.strategies.loading import LoadContext, current_load
from asynccache.strategies.read_through import ReadThrough
from asynccache.strategies.runtime import BufferHealth
from asynccache.strategies.versions import VersionCounter
from asynccache.strategies.warm_reports import WarmProgress, WarmReport
from asynccache.strategies.warming import Warming
from asynccache.strategies.write_behind import WriteBehind
from asynccache.strategies.write_through import WriteThrough

__version__ = "0.1.0"

__all__ = [
    "Adjust",
    "Adjustment",
    "Admission",
    "AfterRequests",
    "Always",
    "Append",
    "Applied",
    "AsyncCacheError",
    "Batch",
    "BufferFull",
    "BufferHealth",
    "Cache",
    "CacheAside",
    "CacheHealth",
    "CacheNotOpen",
    "ChangesHealth",
    "ConfigurationError",
    "CountsRequests",
    "DatabaseUnavailable",
    "DeadLetter",
    "DecodeError",
    "Delete",
    "DurabilityNotReached",
    "EncodeError",
    "Explanation",
    "HotKey",
    "HotKeys",
    "InvalidKey",
    "LoadCancelled",
    "LoadContext",
    "LoadTimeout",
    "LocalTier",
    "MissReason",
    "MissingExtra",
    "MissingTTL",
    "Namespace",
    "NextRead",
    "Occasion",
    "Policy",
    "Predicate",
    "Put",
    "ReadThrough",
    "Reason",
    "Receipt",
    "Recorder",
    "RecorderStats",
    "RecursiveLoad",
    "Rejected",
    "Retried",
    "SchemaMismatch",
    "Sink",
    "Source",
    "Stats",
    "StoreUnavailable",
    "Unavailable",
    "Upgrade",
    "ValueTooLarge",
    "VersionCounter",
    "WarmProgress",
    "WarmReport",
    "Warming",
    "WriteBehind",
    "WriteRejected",
    "WriteThrough",
    "current_load",
]

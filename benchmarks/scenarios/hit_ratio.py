"""Hit ratio of the local tier's map on skewed keys, on keys mixed with scans, and on keys whose popularity moves."""

import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from asynccache.stores.admitting_map import AdmittingMap
from benchmarks.model import Context, Finding, Series

NAME = "hit-ratio"
USES_LOOP = False
_UNIVERSE = 1_000_000


class Lru:
    """The yardstick."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows: OrderedDict[str, Any] = OrderedDict()

    def get(self, key: str) -> Any:
        found = self._rows.get(key)
        if found is not None:
            self._rows.move_to_end(key)
        return found

    def set(self, key: str, value: Any) -> None:
        self._rows[key] = value
        if len(self._rows) > self._size:
            self._rows.popitem(last=False)


def _bursts(keys: int) -> list[int]:
    """Each key is asked for five times within some 10,000 requests, and never again."""
    dice = random.Random(5)
    requests: list[tuple[float, int]] = []
    for key in range(keys):
        at = float(key)
        for _ in range(5):
            requests.append((at, key))
            at += dice.expovariate(1 / 2_000)
    return [key for _, key in sorted(requests)]


def _zipf(count: int, exponent: float, seed: int, universe: int = _UNIVERSE) -> list[int]:
    weights = itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(universe))
    return random.Random(seed).choices(range(universe), cum_weights=list(weights), k=count)


def _ratio(get: Callable[[str], Any], put: Callable[[str, Any], Any], trace: Iterable[int]) -> float:
    hits = total = 0
    for number in trace:
        total += 1
        key = f"bench:row:{number}"
        if get(key) is not None:
            hits += 1
        else:
            put(key, True)
    return 100 * hits / total


def _peers(size: int) -> dict[str, tuple[Callable[[str], Any], Callable[[str, Any], Any]]]:
    ours, lru = AdmittingMap(size), Lru(size)
    found: dict[str, tuple[Callable[[str], Any], Callable[[str, Any], Any]]] = {
        "asynccache (moka-py and a doorkeeper)": (ours.get, ours.set),
        "LRU": (lru.get, lru.set),
    }
    try:
        from moka_py import Moka  # noqa: PLC0415 - a peer may be missing

        moka: Any = Moka(size)
        found["moka-py, W-TinyLFU"] = (moka.get, moka.set)
        from cachebox import LFUCache  # noqa: PLC0415 - a peer may be missing
    except ImportError:
        return found
    lfu: Any = LFUCache(size)
    found["cachebox LFU"] = (lfu.get, lfu.insert)
    return found


async def run(context: Context) -> Finding:
    count = 200_000 if context.quick else 2_000_000
    skewed = _zipf(count, 0.9, 1)
    scanning: list[int] = []
    fresh = itertools.count(_UNIVERSE)
    dice = random.Random(2)
    for key in skewed[: count // 2]:
        scanning.append(key)
        if dice.random() < 0.3:
            scanning.append(next(fresh))
    moving = [(key + 37_003 * (at // (count // 6))) % 200_000 for at, key in enumerate(_zipf(count, 0.9, 3, 200_000))]
    finding = Finding(NAME, "Hit ratio, Zipf 0.9 over 1,000,000 keys, room for 1%", "%", [])
    for name, (get, put) in _peers(10_000).items():
        finding.series.append(Series(name, [_ratio(get, put, skewed)]))
    ours, lru = finding.series[0].median, finding.series[1].median
    best = max(series.median for series in finding.series)
    bound = min(lru + 5, best)
    finding.targets.append(
        (f"at least {bound:.1f}%: LRU and 5 points, or the best kept library if that is less", ours, ours >= bound)
    )
    others = (
        ("with 30% of keys never asked again", scanning),
        ("popularity moves five times", moving),
        ("five requests in a burst, then never again", _bursts(count // 20)),
    )
    for title, trace in others:
        parts = [f"{name} {_ratio(get, put, trace):.1f}%" for name, (get, put) in _peers(10_000).items()]
        finding.notes.append(f"{title}: {', '.join(parts)}")
    finding.curve_axes = ("entries", "hit ratio %")
    for size in (1_000, 3_000, 10_000, 30_000):
        for name, (get, put) in _peers(size).items():
            finding.curves.setdefault(name, []).append((float(size), _ratio(get, put, skewed[: count // 4])))
    return finding

"""What an entry of the local tier costs, beside its key and its value."""

import gc
import resource
import sys
import tracemalloc
from pathlib import Path

from asynccache.clock import SYSTEM_CLOCK
from asynccache.stores.local import LocalEntries, LocalTier
from benchmarks.model import Context, Finding, Series, Target

NAME = "memory"
USES_LOOP = False
_GENERATIONS = ("bench#g",)


def resident_bytes() -> int:
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _fill(count: int) -> LocalEntries:
    entries = LocalEntries(LocalTier(max_entries=count), everything=_GENERATIONS, monotonic=SYSTEM_CLOCK.monotonic)
    entries.switch(True)
    # One more than there is room for: what a full tier needs besides is counted, too.
    for at in range(count + 1):
        ticket = entries.expect(f"bench:row:{at:08d}", _GENERATIONS)
        assert ticket is not None
        entries.keep(ticket, ["mutable"], b"%300d" % at, False, b"fingerpr", 60.0)
        entries.forget(ticket)
    return entries


async def run(context: Context) -> Finding:
    count = 20_000 if context.quick else 100_000
    apart = sys.getsizeof("bench:row:00000000") + sys.getsizeof(b"%300d" % 0)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    entries = _fill(count)
    gc.collect()
    traced = (tracemalloc.get_traced_memory()[0] - before) / count - apart
    tracemalloc.stop()
    assert len(entries) == count
    entries.clear()
    gc.collect()
    began = resident_bytes()
    entries = _fill(count)
    resident = (resident_bytes() - began) / count - apart
    finding = Finding(
        NAME, "Local tier: bytes an entry, key and value apart", "bytes", [Series("asynccache", [traced])]
    )
    finding.judge(Target("at most 400 bytes by tracemalloc", at_most=400))
    finding.notes.append(
        f"tracemalloc does not see what moka-py allocates in Rust; resident memory grew by {resident:.0f} bytes more"
    )
    return finding

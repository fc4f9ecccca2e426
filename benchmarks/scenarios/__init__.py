"""The scenarios, in the order in which they run; one a file."""

from types import ModuleType

from benchmarks.scenarios import (
    advice,
    coherence,
    cold_keys,
    database_changes,
    durability,
    flush_statement,
    foreign_writes,
    hit_ratio,
    local_hit,
    memory,
    redis_hit,
    redis_hit_alone,
    selective,
    stampede,
    tag_invalidation,
    write_behind,
)

SCENARIOS: list[ModuleType] = [
    local_hit,
    redis_hit,
    redis_hit_alone,
    cold_keys,
    stampede,
    write_behind,
    flush_statement,
    durability,
    coherence,
    database_changes,
    foreign_writes,
    hit_ratio,
    memory,
    selective,
    tag_invalidation,
    advice,
]

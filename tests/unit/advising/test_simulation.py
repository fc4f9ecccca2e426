"""The simulator does what the read and write paths do; each case is one that the real ones have."""

from __future__ import annotations

from typing import Any

import pytest

from asynccache import ConfigurationError
from asynccache.advising import Operation, Outcome, Plan, Trace, TraceBuilder, Workload, World, simulate

GET, PUT, DELETE = Operation.GET, Operation.PUT, Operation.DELETE
INVALIDATE, INCREMENT = Operation.INVALIDATE, Operation.INCREMENT


def trace(*operations: tuple[Any, ...]) -> Trace:
    """Of (time, operation, key), and perhaps cost."""
    builder = TraceBuilder()
    for operation in operations:
        builder.add(*operation)
    return builder.build()


def run(strategy: Any, *operations: tuple[Any, ...], world: World | None = None, **options: Any) -> Outcome:
    """With a TTL of ten seconds, and nothing left to chance."""
    plan = Plan(strategy, **{"ttl": 10.0, "jitter": 0.0, "early": 0.0, **options})
    return simulate(trace(*operations), plan, world or World(query_cost=0.5, write_cost=0.5))


def test_without_a_cache_each_read_and_write_is_the_databases() -> None:
    found = run("none", (0, GET, "a"), (1, GET, "a"), (2, PUT, "a"), ttl=0)
    assert (found.hits, found.loads, found.rows_written, found.entries) == (0, 2, 1, 0)


def test_a_ttl_begins_when_the_load_is_stored() -> None:
    found = run("read-through", (0, GET, "a"), (10.4, GET, "a"), (10.6, GET, "a"))
    assert (found.reads, found.hits, found.loads) == (3, 1, 2)


def test_who_asks_during_a_load_misses_and_does_not_load() -> None:
    found = run("read-through", (0, GET, "a"), (0.4, GET, "a"), (0.6, GET, "a"))
    assert (found.hits, found.loads) == (1, 1)


def test_the_traces_own_costs_win() -> None:
    found = run("read-through", (0, GET, "a", 2.0), (1.5, GET, "a"), (2.5, GET, "a"), (20, GET, "b"), (21.5, GET, "b"))
    assert (found.hits, found.loads) == (1, 2)


def test_a_load_that_a_write_overtakes_is_not_stored() -> None:
    found = run("cache-aside", (0, GET, "a", 2.0), (1, PUT, "a", 0.5), (1.7, GET, "a", 0.1), (1.9, GET, "a"))
    assert (found.hits, found.loads) == (1, 2)
    emptied = run("cache-aside", (0, GET, "a", 2.0), (1, INVALIDATE, "a"), (2.5, GET, "a"))
    assert (emptied.hits, emptied.loads, emptied.writes) == (0, 2, 0)


def test_during_a_write_reads_load_and_store_nothing() -> None:
    found = run("write-through", (0, PUT, "a"), (0.2, GET, "a"), (0.3, GET, "a"), (0.6, GET, "a"))
    assert (found.hits, found.loads) == (1, 2)


def test_of_overlapping_writes_nothing_is_stored() -> None:
    found = run("write-through", (0, PUT, "a"), (0.2, PUT, "a"), (0.8, GET, "a"), (1.4, GET, "a"))
    assert (found.hits, found.loads, found.rows_written) == (1, 1, 2)


def test_only_write_through_and_write_behind_have_what_was_written() -> None:
    operations = ((0, PUT, "a"), (1, GET, "a"))
    assert run("read-through", *operations).hits == 0
    assert run("cache-aside", *operations).hits == 0
    assert run("write-through", *operations).hits == 1
    assert run("write-behind", *operations).hits == 1


@pytest.mark.parametrize("strategy", ["read-through", "write-through", "write-behind"])
def test_what_is_deleted_is_not_found_and_not_stored(strategy: str) -> None:
    operations = ((0, PUT, "a"), (1, DELETE, "a"), (2, GET, "a"), (3, GET, "a"), (4, PUT, "a"), (5, GET, "a"))
    found = run(strategy, *operations, (6, GET, "a"))
    assert found.hits == (1 if strategy == "read-through" else 2)


def test_what_does_not_exist_is_asked_for_each_time() -> None:
    nothing = Operation.GET_NOTHING
    found = run("read-through", (0, nothing, "a"), (1, nothing, "a"), (2, GET, "a"), (3, GET, "a"))
    assert (found.reads, found.hits, found.loads) == (4, 1, 3)


def test_a_load_of_what_does_not_exist_is_shared_while_it_is_under_way() -> None:
    nothing = Operation.GET_NOTHING
    found = run("read-through", (0, nothing, "a", 0.5), (0.3, nothing, "a"), (2, nothing, "a", 0.5))
    assert (found.reads, found.hits, found.loads) == (3, 0, 2)
    # An invalidation takes away the right to share it, as of any other.
    assert run("read-through", (0, nothing, "a", 0.5), (0.2, INVALIDATE, "a"), (0.3, nothing, "a")).loads == 2


def test_what_was_written_is_not_refreshed_early_since_its_load_took_no_time() -> None:
    operations = ((0, PUT, "a", 0.1), *((at / 100, GET, "a") for at in range(100, 900)))
    assert run("write-through", *operations, early=1000.0).loads == 0
    assert run("read-through", (0, GET, "a", 0.1), *operations[1:], early=1000.0).loads > 10


@pytest.mark.parametrize("ttl", [0.5, 1.5, 5.0])
def test_a_poisson_stream_is_hit_as_often_as_theory_says(ttl: float) -> None:
    # A key asked for r times a second misses once in each TTL and the wait for the read after it: r ttl / (1 + r ttl).
    made = Workload(reads=200, keys=100, skew=0.0, duration=500).trace()
    found = simulate(made, Plan("read-through", ttl, jitter=0.0, early=0.0), World(query_cost=0.0))
    assert found.hit_ratio == pytest.approx(2 * ttl / (1 + 2 * ttl), abs=0.01)


def test_stale_entries_are_served_while_one_reader_refreshes() -> None:
    operations = ((0, GET, "a"), (11, GET, "a"), (11.2, GET, "a"), (11.6, GET, "a"), (21, GET, "a"), (30, GET, "a"))
    found = run("read-through", *operations, stale=5.0)
    assert (found.hits, found.stale_hits, found.loads) == (4, 2, 3)


def test_a_refresh_that_a_write_overtakes_is_not_stored() -> None:
    operations = ((0, GET, "a", 0.5), (11, GET, "a", 2.0), (11.5, INVALIDATE, "a"), (13.5, GET, "a"))
    found = run("read-through", *operations, stale=5.0)
    assert (found.hits, found.loads) == (1, 3)


def test_a_refresh_that_outlasts_the_stale_value_is_not_stored() -> None:
    operations = ((0, GET, "a", 0.5), (11, GET, "a", 2.0), (12, GET, "a", 5.0), (13.5, GET, "a"))
    found = run("read-through", *operations, stale=1.0)
    assert (found.hits, found.loads) == (1, 3)


def test_early_refresh_replaces_hot_entries_before_they_end() -> None:
    operations = [(at / 100, GET, "a", 0.5) for at in range(10_000)]
    without, early = run("read-through", *operations), run("read-through", *operations, early=1.0)
    assert early.loads < without.loads + 10
    assert early.hit_ratio > without.hit_ratio


def test_jitter_shortens_lives_by_its_share_at_most() -> None:
    operations: list[tuple[float, Operation, str]] = [(0, GET, str(key)) for key in range(100)]
    operations += [(at, GET, str(key)) for at in (5.4, 10.6) for key in range(100)]
    found = run("read-through", *operations, jitter=0.5)
    assert (found.hits, found.loads) == (100, 200)
    assert run("read-through", *operations[:200], (8, GET, "0"), jitter=0.5).hits > 0


def test_a_foreign_write_is_seen_after_the_ttl_and_not_before() -> None:
    world = World(query_cost=0.5, foreign=1.0)
    operations = ((0, GET, "a"), (2, PUT, "a"), (5, GET, "a"), (10, GET, "a"), (10.6, GET, "a"), (12, GET, "a"))
    found = run("read-through", *operations, world=world)
    assert (found.hits, found.outdated, found.oldest, found.mean_age) == (3, 2, 8.0, 5.5)
    assert (found.foreign, found.writes, found.rows_written) == (1, 0, 0)


def test_how_far_a_read_is_behind_counts_from_the_first_change_that_it_misses() -> None:
    found = run("read-through", (0, GET, "a"), (2, PUT, "a"), (4, PUT, "a"), (5, GET, "a"), world=World(foreign=1.0))
    assert found.oldest == 3.0


def test_the_database_tells_of_a_foreign_write_soon() -> None:
    world = World(query_cost=0.5, foreign=1.0, changes_lag=0.1)
    operations = ((0, GET, "a"), (2, PUT, "a"), (2.05, GET, "a"), (2.2, GET, "a"), (3, GET, "a"))
    found = run("read-through", *operations, world=world, changes=True)
    assert (found.hits, found.outdated, found.loads) == (2, 1, 2)
    assert found.oldest == pytest.approx(0.05)


def test_what_was_loaded_before_a_foreign_write_is_outdated_though_it_is_stored_after_it() -> None:
    world = World(query_cost=0.5, foreign=1.0)
    found = run("read-through", (0, GET, "a"), (0.2, PUT, "a"), (1, GET, "a"), world=world)
    assert (found.outdated, found.oldest) == (1, 0.8)
    behind = ((0, GET, "a"), (11, GET, "a"), (11.2, PUT, "a"), (12, GET, "a"))
    found = run("read-through", *behind, world=world, stale=5.0)
    assert (found.stale_hits, found.outdated) == (1, 1)


@pytest.mark.parametrize("strategy", ["cache-aside", "read-through", "write-through", "write-behind"])
def test_no_read_is_outdated_if_all_writers_tell_the_cache(strategy: Any) -> None:
    workload = Workload(reads=500, writes=100, keys=50, duration=20).trace()
    found = simulate(workload, Plan(strategy, ttl=5, stale=2))
    assert found.hits > 0
    assert (found.outdated, found.oldest) == (0, 0.0)


def test_write_behind_writes_a_key_once_a_flush() -> None:
    operations = [(at / 10, INCREMENT, "a") for at in range(100)]
    found = run("write-behind", *operations, flush_every=1.0)
    # The first of a row of writes begins the wait: a flush every eleventh write.
    assert found.rows_written == 10
    assert found.combined == 10
    assert (found.loss_window, found.most_pending) == (1.0, 1)
    assert run("write-through", *operations).rows_written == 100


def test_a_full_batch_is_flushed_before_its_time() -> None:
    found = run("write-behind", *((at / 100, PUT, "a") for at in range(100)), flush_every=60, max_batch=10)
    assert found.rows_written == 10


def test_entries_are_counted_while_they_live() -> None:
    operations = [(at * 1.0, GET, str(at)) for at in range(100)]
    assert run("read-through", *operations).entries == 11
    assert run("read-through", *operations, ttl=1000).entries == 100
    assert run("write-through", *((at, op, "a") for at in range(5) for op in (PUT, DELETE))).entries <= 1


def test_an_entry_that_was_replaced_lives_on() -> None:
    assert run("write-through", (0, PUT, "a"), (5, PUT, "a"), (12, PUT, "b")).entries == 2


def test_it_comes_to_the_same_each_time() -> None:
    workload = Workload(reads=200, writes=20, keys=100, duration=20, seed=3)
    world = World(foreign=0.3, seed=5)
    one, two = (simulate(workload.trace(), Plan("read-through", ttl=3, stale=1), world) for _ in range(2))
    assert one == two
    assert one != simulate(workload.trace(), Plan("read-through", ttl=3, stale=1), World(foreign=0.3, seed=6))


def test_a_sample_of_the_keys_tells_of_all() -> None:
    builder = TraceBuilder(share=0.5)
    for at in range(100):
        builder.add(at, GET, str(at))
    found = simulate(builder.build(), Plan("read-through", ttl=1000))
    assert found.entries == 200
    assert found.reads_per_second == pytest.approx(100 / 99 / 0.5)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Plan("read"), "strategy"),  # type: ignore[arg-type]
        (lambda: Plan("read-through"), "ttl"),
        (lambda: Plan("read-through", ttl=1, jitter=1.0), "jitter"),
        (lambda: World(foreign=1.5), "foreign"),
        (lambda: World(query_cost=-1), "query_cost"),
        (lambda: Workload(0), "reads"),
        (lambda: Workload(reads="many"), "reads"),  # type: ignore[arg-type]
        (lambda: Workload(1, keys=0), "keys"),
        (lambda: Workload(1e6, duration=1e6), "duration"),
    ],
)
def test_what_cannot_work_is_refused_by_name(make: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        make()


def test_a_workload_has_the_rates_and_the_skew_that_were_asked_for() -> None:
    found = Workload(reads=900, writes=100, keys=1000, skew=1.0, duration=50).trace()
    assert found.count(GET) == pytest.approx(45_000, rel=0.03)
    assert found.count(PUT) == pytest.approx(5_000, rel=0.06)
    assert found.duration == pytest.approx(50, rel=0.01)
    hottest = max(list(found.keys).count(number) for number in range(10))
    assert hottest / len(found) == pytest.approx(1 / sum(1 / rank for rank in range(1, 1001)), rel=0.05)

"""Each rule of the advice decides where it should, and gives its reason."""

from __future__ import annotations

import pytest

from asynccache import ConfigurationError
from asynccache.advising import Advice, Need, Operation, TraceBuilder, Workload, World, advise

READ = Workload(reads=200, keys=100, duration=60)
MIXED = Workload(reads=200, writes=20, keys=100, duration=60)


def test_reads_alone_are_read_through() -> None:
    verdict = advise(READ.trace()).verdict
    assert (verdict.rule, verdict.outcome.plan.strategy) == ("read-only", "read-through")


@pytest.mark.parametrize("staleness", [None, 0.0, 10.0])
def test_a_service_that_makes_all_writes_writes_through(staleness: float | None) -> None:
    verdict = advise(MIXED.trace(), Need(staleness)).verdict
    assert (verdict.rule, verdict.outcome.plan.strategy) == ("write-through", "write-through")
    assert verdict.outcome.outdated == 0
    assert "no read is outdated" in verdict.text


def test_writes_of_what_nobody_reads_are_not_put_into_the_cache() -> None:
    builder = TraceBuilder()
    for at in range(6000):
        builder.add(at / 100, Operation.GET, f"read {at % 50}")
        builder.add(at / 100, Operation.PUT, f"written {at}")
    verdict = advise(builder.build()).verdict
    assert (verdict.rule, verdict.outcome.plan.strategy) == ("invalidate", "read-through")


def test_many_writes_of_a_key_are_written_behind_if_the_loss_window_is_accepted() -> None:
    counters = Workload(reads=100, writes=500, keys=20, duration=30)
    verdict = advise(counters.trace(), Need(loss=1.0)).verdict
    assert (verdict.rule, verdict.outcome.plan.strategy) == ("write-behind", "write-behind")
    assert verdict.outcome.combined >= 2
    assert "Redis only for up to 1s" in verdict.text
    assert advise(counters.trace(), Need(loss=0.5)).verdict.rule == "write-through"
    assert advise(counters.trace(), Need(loss=1.0, flush_every=5.0)).verdict.rule == "write-through"


def test_write_behind_is_not_taken_if_it_combines_nothing() -> None:
    rare = Workload(reads=200, writes=5, keys=100, skew=0, duration=60)
    assert advise(rare.trace(), Need(loss=60.0)).verdict.rule == "write-through"


def test_foreign_writers_need_the_database_to_tell() -> None:
    world = World(foreign=0.5)
    for need in (Need(), Need(staleness=0.1)):
        verdict = advise(MIXED.trace(), need, world).verdict
        assert (verdict.rule, verdict.outcome.plan.strategy) == ("changes", "read-through")
        assert verdict.outcome.plan.changes
        assert "PostgresChanges" in verdict.text
        assert verdict.outcome.oldest <= 0.1


def test_a_ttl_is_enough_for_foreign_writers_if_staleness_allows_a_good_one() -> None:
    verdict = advise(MIXED.trace(), Need(staleness=300.0), World(foreign=0.5)).verdict
    assert verdict.rule == "ttl"
    assert not verdict.outcome.plan.changes
    assert verdict.outcome.oldest <= verdict.outcome.plan.ttl + verdict.outcome.plan.stale <= 300


def test_nothing_is_cached_that_must_be_fresher_than_a_notice_can_be() -> None:
    verdict = advise(MIXED.trace(), Need(staleness=0.05), World(foreign=0.5)).verdict
    assert (verdict.rule, verdict.outcome.plan.strategy) == ("ttl", "read-through")
    verdict = advise(MIXED.trace(), Need(staleness=0.0), World(foreign=0.5)).verdict
    assert (verdict.rule, verdict.outcome.plan.strategy) == ("impossible", "none")


def test_reads_that_are_not_repeated_are_not_cached() -> None:
    once = Workload(reads=100, keys=1_000_000, skew=0, duration=30)
    verdict = advise(once.trace()).verdict
    assert (verdict.rule, verdict.outcome.plan.strategy) == ("not-repeated", "none")


def test_the_shortest_ttl_that_is_as_good_is_taken_without_stale_if_it_can_be() -> None:
    found = advise(READ.trace(), Need(ttls=(0.001, 100.0, 200.0)))
    plan = found.verdict.outcome.plan
    assert (plan.ttl, plan.stale) == (100.0, 0.0)


def test_stale_is_advised_where_it_answers_more() -> None:
    found = advise(READ.trace(), Need(ttls=(2.0,), stale=5.0))
    assert found.verdict.outcome.plan.stale == 10.0


def test_ttls_that_the_trace_cannot_tell_apart_are_left_out() -> None:
    def ttls(found: Advice) -> list[float]:
        return sorted({outcome.plan.ttl for outcome in found.outcomes if outcome.plan.strategy == "write-through"})

    assert ttls(advise(MIXED.trace())) == [1, 5, 15, 60]
    assert ttls(advise(MIXED.trace(), Need(staleness=7.0))) == [1, 5, 7, 15, 60]


def test_all_strategies_are_compared_and_cache_aside_as_read_through() -> None:
    found = advise(MIXED.trace(), Need(ttls=(5.0,)), World(foreign=0.1))
    by_name = {(one.plan.strategy, one.plan.changes, one.plan.stale): one for one in found.outcomes}
    assert {name for name, *_ in by_name} == {"none", "cache-aside", "read-through", "write-through", "write-behind"}
    assert by_name["cache-aside", False, 0.0].hits == by_name["read-through", False, 0.0].hits
    assert ("read-through", True, 0.0) in by_name


def test_bad_needs_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="staleness"):
        Need(staleness=-1)
    with pytest.raises(ConfigurationError, match="ttl"):
        Need(ttls=(0,))
    with pytest.raises(ConfigurationError, match="no operations"):
        advise(TraceBuilder().build())

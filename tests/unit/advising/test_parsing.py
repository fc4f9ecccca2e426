"""Traces of others are read, and what is no trace is refused with the line that shows it."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator

import pytest

from asynccache import ConfigurationError
from asynccache.advising import Operation, TraceBuilder, read_trace


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


@pytest.mark.parametrize(
    "text",
    [
        "time,operation,key\n1,get,a\n2.5,put,b\n3,delete,a\n",
        "\ufeffKey,Timestamp,Type,size\na,1,READ,9\nb,2.5,SET,9\na,3,del,9\n",
        '{"t":1,"op":"get","key":"a"}\n\n{"t":2.5,"op":"put","key":"b"}\n{"key":"a","t":3,"op":"delete"}\n',
        '{"t":3,"op":"delete","key":"a"}\n{"t":2.5,"op":"put","key":"b"}\n{"t":1,"op":"get","key":"a"}\n',
        "time,operation,key\n1970-01-01T00:00:01Z,get,a\n1970-01-01T00:00:02.5,put,b\n1970-01-01T01:00:03+01:00,del,a\n",
    ],
    ids=["csv", "other names", "json lines", "out of order", "iso 8601"],
)
def test_a_trace_is_read_whatever_form_it_has(text: str) -> None:
    found = read_trace(lines(text))
    assert list(found.times) == [0, 1.5, 2]
    assert list(found.operations) == [Operation.GET, Operation.PUT, Operation.DELETE]
    assert found.keys[0] == found.keys[2] != found.keys[1]
    assert (found.key_count, found.torn) == (2, False)


def test_costs_are_read_where_there_are_some() -> None:
    text = '{"t":1,"op":"get","key":"a"}\n{"t":2,"op":"get","key":"a","cost":0.25}\n{"t":3,"op":"put","key":"a"}\n'
    found = read_trace(lines(text))
    assert [None if math.isnan(cost) else cost for cost in found.costs] == [None, 0.25, None]
    assert found.mean_cost(Operation.GET) == 0.25
    assert found.mean_cost(Operation.PUT) is None
    assert read_trace(lines("t,op,key,cost\n1,get,a,\n2,get,a,0.5\n")).mean_cost(Operation.GET) == 0.5


def test_reads_of_what_does_not_exist_are_told_apart() -> None:
    text = '{"t":1,"op":"get","key":"a"}\n{"t":2,"op":"get","key":"b","missing":true}\n'
    assert list(read_trace(lines(text)).operations) == [Operation.GET, Operation.GET_NOTHING]


def test_numbers_of_other_units_become_seconds() -> None:
    assert read_trace(lines("t,op,key\n1000,get,a\n2500,get,a\n"), unit="ms").duration == 1.5


def test_json_keys_of_different_types_are_different_keys() -> None:
    text = '{"t":1,"op":"get","key":1}\n{"t":1,"op":"get","key":"1"}\n{"t":1,"op":"get","key":["a",1]}\n'
    assert read_trace(lines(text)).key_count == 3


def test_half_a_line_at_the_end_is_left_out_as_a_killed_recorder_leaves_one() -> None:
    found = read_trace(lines('{"t":1,"op":"get","key":"a"}\n{"t":2,"op":"ge'))
    assert (len(found), found.torn) == (1, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing in it"),
        ("\n\n", "nothing in it"),
        ("time,operation,key\n", "no operations"),
        ("when,operation,key\n1,get,a\n", r"line 1: no field for the time: name one t or time .* there are: when, op"),
        ("time,operation,key\n1,get,a\n2,get\n", "line 3: 2 fields, but the header has 3"),
        ("time,operation,key\n1,get,a\nx,get,a\n", "line 3: the time 'x' is neither"),
        ("time,operation,key\nnan,get,a\n", "line 2: the time nan"),
        ("time,operation,key\n1,fetch,a\n", "line 2: the operation 'fetch' is none of get, read"),
        ("time,operation,key,cost\n1,get,a,-1\n", "line 2: the cost -1.0"),
        ('{"t":1,"op":"get","key":"a"}\n{"t":2,"op":\n{"t":3}\n', "line 2: not a JSON object"),
        ('{"t":1,"op":"get","key":"a"}\n{"t":2,"op":"get"}\n', "line 2: there is no 'key'"),
        ('{"t":1,"op":"get","key":"a","cost":true}\n', "line 1: the cost True"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"shop.csv(, |: )?.*{said}"):
        read_trace(lines(text), name="shop.csv")


def test_a_sample_keeps_the_whole_history_of_the_keys_that_it_takes() -> None:
    text = "t,op,key\n" + "".join(f"{at},get,key{at % 1000}\n" for at in range(10_000))
    found = read_trace(lines(text), sample=0.2)
    assert found.share == 0.2
    assert 150 < found.key_count < 250
    assert len(found) == 10 * found.key_count
    with pytest.raises(ConfigurationError, match="sample"):
        read_trace(lines(text), sample=0)


def test_a_long_trace_takes_a_few_bytes_a_line() -> None:
    def endless() -> Iterator[str]:
        yield "t,op,key\n"
        for at in range(200_000):
            yield f"{at / 100},get,{at % 100}\n"

    tracemalloc.start()
    try:
        found = read_trace(endless())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 200_000
    assert peak / len(found) < 40


def test_operations_that_ended_late_are_put_into_their_place_without_sorting_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    builder = TraceBuilder()
    times = [1.0, 4.0, 2.0, 3.0, 2.0, 5.0]
    for number, time in enumerate(times):
        builder.add(time, Operation.GET, str(number), time)
    assert builder._sorted
    found = builder.build()
    assert list(found.times) == [0.0, 1.0, 1.0, 2.0, 3.0, 4.0]
    assert list(found.keys) == [0, 2, 4, 3, 1, 5]
    assert list(found.costs) == [1.0, 2.0, 2.0, 3.0, 4.0, 5.0]
    # What is too far back to be put there is sorted all the same.
    monkeypatch.setattr("asynccache.advising.traces._LATE", 2)
    for time in (9.0, 8.0, 7.0, 6.0, 5.0, 10.0):
        builder.add(time, Operation.GET, str(time))
    assert not builder._sorted
    assert list(builder.build().times) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_builder_refuses_times_and_costs_that_are_none() -> None:
    builder = TraceBuilder()
    with pytest.raises(ConfigurationError, match="time"):
        builder.add(math.inf, Operation.GET, "a")
    with pytest.raises(ConfigurationError, match="cost"):
        builder.add(0, Operation.GET, "a", -1)
    assert len(builder) == 0
    assert len(builder.build()) == 0

"""The map under the local tier: what it lets in, and that it stays within its bounds."""

import pytest

from asynccache.stores.admitting_map import AdmittingMap, Doorkeeper


def fill(room: AdmittingMap, count: int) -> None:
    for at in range(count):
        room.set(f"popular:{at}", at)
    assert len(room) == count


def test_while_there_is_room_the_first_request_is_kept() -> None:
    room = AdmittingMap(100)
    fill(room, 100)
    assert all(room.get(f"popular:{at}") == at for at in range(100))


def test_a_full_map_takes_in_only_who_comes_again() -> None:
    room = AdmittingMap(100)
    fill(room, 100)
    room.set("new", 1)
    assert room.get("new") is None
    for _ in range(100):  # TinyLFU asks whether it is asked for more often than who would leave for it
        room.get("new")
    room.set("new", 2)
    assert len(room) == 100
    assert room.get("new") == 2


def test_a_scan_puts_out_nothing_that_is_popular() -> None:
    room = AdmittingMap(1_000)
    fill(room, 1_000)
    for at in range(1_000):
        room.get(f"popular:{at}")
    for at in range(3_000):
        room.set(f"scanned:{at}", at)
    kept = sum(room.get(f"popular:{at}") is not None for at in range(1_000))
    # A doorkeeper may take a key for another's: 3,000 of 16,384 places are taken in the end.
    assert kept >= 700, kept


def test_a_map_that_has_room_again_takes_in_at_once() -> None:
    room = AdmittingMap(10)
    fill(room, 10)
    room.remove("popular:3")
    assert len(room) == 9
    room.set("new", 1)
    assert room.get("new") == 1


def test_bytes_bound_the_map_and_an_entry_weighs_at_least_its_share() -> None:
    by_bytes = AdmittingMap(1_000, 1_000, len)
    for at in range(100):
        by_bytes.set(at, b"x" * 100)
        by_bytes.set(at, b"x" * 100)
    assert len(by_bytes) == 10
    by_number = AdmittingMap(10, 1_000, len)
    for at in range(100):
        by_number.set(at, b"x")
        by_number.set(at, b"x")
    assert len(by_number) == 10


def test_a_value_larger_than_the_map_is_not_kept_and_puts_nobody_out() -> None:
    room = AdmittingMap(10, 1_000, len)
    room.set("small", b"x")
    for _ in range(3):
        room.set("giant", b"x" * 2_000)
    assert room.get("small") == b"x"
    assert len(room) == 1


@pytest.mark.parametrize("before", [0, 1, 500, 999, 1_000])
def test_a_doorkeeper_remembers_who_came_less_than_its_span_ago(before: int) -> None:
    door = Doorkeeper(1_000)
    for at in range(before):
        door.knows(f"before:{at}")
    door.knows("once")
    for at in range(999):
        door.knows(f"after:{at}")
    assert door.knows("once")


def test_a_doorkeeper_forgets_who_has_not_come_for_two_spans() -> None:
    door = Doorkeeper(1_000)
    for at in range(200):
        door.knows(f"once:{at}")
    for at in range(2_500):
        door.knows(f"others:{at}")
    # Some have a place that is another's by now.
    assert sum(door.knows(f"once:{at}") for at in range(200)) < 100


def test_a_doorkeeper_knows_few_strangers() -> None:
    door = Doorkeeper(10_000)
    known = sum(door.knows(f"key:{at}") for at in range(10_000))
    assert known < 10_000 * 0.22  # 1 - exp(-1/4), were it full from the start

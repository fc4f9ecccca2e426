"""Bad rows among good ones: each becomes a dead letter with its reason, all others are written, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest

from asynccache.adjustments import Adjustment
from asynccache.errors import DatabaseUnavailable, WriteRejected
from asynccache.postgres import PostgresTable
from asynccache.protocols import Adjust, Append, Applied, Batch, Delete, Put, Write

Pool: TypeAlias = "asyncpg.Pool[Any]"


@dataclass
class Item:
    id: int
    name: str | None = "x"
    small: int = 1
    owner: int | None = None
    email: str | None = None
    slot: int | None = None


TABLES = """
CREATE TABLE owners (id int PRIMARY KEY);
INSERT INTO owners VALUES (1);
CREATE TABLE items (
    id bigint PRIMARY KEY, name text NOT NULL, small int NOT NULL CHECK (small > 0), owner int REFERENCES owners,
    email text UNIQUE, slot int UNIQUE DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX ON items (name text_pattern_ops);
INSERT INTO items VALUES (-1, 'taken', 1, 1, 'taken@x', -1);
"""

Loose: Any = Item  # takes what the types forbid

POISON: dict[str, tuple[Write[Any], str | None, str]] = {
    "NUL": (Put(500, Item(500, "a\0b")), "22021", "0x00"),
    "lone surrogate": (Put(500, Item(500, "a\ud800b")), None, "surrogates not allowed"),
    "integer overflow": (Put(500, Item(500, small=2**31)), None, "int32"),
    "integer overflow in the database": (
        Adjust(-1, {"small": Adjustment(2**31 - 1)}, Item(-1)), "22003", "out of range"
    ),
    "no number at all": (Put(500, Loose(500, small="many")), None, "cannot hold 'many'"),
    "CHECK": (Put(500, Item(500, small=0)), "23514", "items_small_check"),
    "CHECK by an adjustment": (Adjust(-1, {"small": Adjustment(-1)}, Item(-1)), "23514", "items_small_check"),
    "foreign key": (Put(500, Item(500, owner=77)), "23503", "items_owner_fkey"),
    "NOT NULL": (Put(500, Item(500, None)), "23502", "null value"),
    "unique": (Put(500, Item(500, email="taken@x")), "23505", "items_email_key"),
    "deferred unique": (Put(500, Item(500, slot=-1)), "23505", "items_slot_key"),
    "row too large": (Put(500, Item(500, "".join(chr(65 + n * n * 7 % 1009) for n in range(90_000)))), "54000", "index"),
    "appended": (Append(Item(-1)), "23505", "items_pkey"),
    "no such column": (Adjust(500, {"points": Adjustment(1)}, Item(500)), None, "'points'"),
    "not a number": (Adjust(500, {"name": Adjustment(1)}, Item(500)), None, "'name'"),
    "half a point": (Adjust(500, {"small": Adjustment(0.5)}, Item(500)), None, "not whole"),
    "another key inside": (Put(500, Item(501)), None, "under its own key"),
    "a key out of range": (Put(2**63, Item(2**63)), None, "out of its range"),
    "a key of another type": (Delete("x\0"), None, "got str"),
}  # fmt: skip


@pytest.fixture
async def items(pool: Pool) -> PostgresTable[Item]:
    await pool.execute(TABLES)
    table = PostgresTable(pool, "items", key="id", model=Item)
    await table.open()
    return table


def with_good(writes: list[Write[Any]], size: int = 1000) -> Batch[Any]:
    """A batch with these in the middle of good ones."""
    good: list[Write[Any]] = [Put(n, Item(n)) for n in range(size + 1) if n != 500]
    good[size // 2 : size // 2 + len(writes)] = writes
    return Batch(good, uuid4(), "things", [b"record %d" % n for n in range(len(good))])


@pytest.mark.parametrize("what", POISON)
async def test_one_bad_row_among_a_thousand_is_set_aside_and_the_others_are_written(
    items: PostgresTable[Item], pool: Pool, what: str
) -> None:
    write, sqlstate, reason = POISON[what]
    batch = with_good([write])

    applied = await items.apply(batch)

    assert [(refused.at, refused.sqlstate) for refused in applied.rejected] == [(500, sqlstate)]
    assert reason in applied.rejected[0].reason
    assert await pool.fetchval("SELECT count(*) FROM items WHERE id >= 0") == 999
    assert await pool.fetchrow("SELECT * FROM items WHERE id = -1") == (-1, "taken", 1, 1, "taken@x", -1)
    letters = await items.dead_letters.list()
    assert [(letter.origin, letter.batch_id, letter.attempts) for letter in letters] == [("things", batch.id, 1)]
    assert letters[0].operation == type(write).__name__.lower()
    assert letters[0].sqlstate == sqlstate
    assert letters[0].key == (None if isinstance(write, Append) else repr(write.key))
    shown = await items.dead_letters.show(letters[0].id)
    assert shown is not None
    assert (shown.record, shown.reason) == (b"record 500", letters[0].reason)

    assert await items.apply(batch) == Applied(again=True)
    assert await items.dead_letters.count() == 1


@pytest.mark.one_loop
async def test_all_kinds_of_bad_rows_at_once(items: PostgresTable[Item], pool: Pool) -> None:
    bad: list[Write[Any]] = []
    for n, (write, _, _) in enumerate(POISON.values()):
        if isinstance(write, Put) and write.key == 500 and write.value.id == 500:
            fields = {name: getattr(write.value, name) for name in ("name", "small", "owner", "email", "slot")}
            bad.append(Put(10_000 + n, Item(10_000 + n, **fields)))
        elif getattr(write, "key", None) != 500 and bad:
            bad.append(write)
    bad = [write for at, write in enumerate(bad) if getattr(write, "key", at) != -1]
    bad.append(Adjust(-1, {"small": Adjustment(2**31)}, Item(-1)))
    batch = with_good(bad)

    applied = await items.apply(batch)

    start = 500
    assert [refused.at for refused in applied.rejected] == list(range(start, start + len(bad)))
    assert len(bad) >= 12
    assert await pool.fetchval("SELECT count(*) FROM items WHERE id >= 0") == 1000 - len(bad)
    assert await items.dead_letters.count("things") == len(bad)
    assert await items.dead_letters.count("others") == 0


async def test_a_batch_of_nothing_but_bad_rows_is_done(items: PostgresTable[Item]) -> None:
    batch = Batch([Put(n, Item(n, small=-n)) for n in range(200)], uuid4(), "things")
    assert len((await items.apply(batch)).rejected) == 200
    assert await items.apply(batch) == Applied(again=True)
    assert await items.dead_letters.count() == 200


async def test_without_an_id_one_bad_row_refuses_the_batch(items: PostgresTable[Item], pool: Pool) -> None:
    with pytest.raises(WriteRejected, match="23514"):
        await items.apply(Batch([Put(1, Item(1)), Put(2, Item(2, small=0))]))
    assert await items.load_many([1, 2]) == {}
    assert await pool.fetchval("SELECT to_regclass('asynccache_dead_letter')") is None


async def test_rows_that_only_need_others_of_the_batch_are_no_dead_letters(
    items: PostgresTable[Item], pool: Pool
) -> None:
    """A bad row sends the batch through the bisection, which tries halves that lack what they need."""
    await pool.execute(
        "CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree DEFERRABLE INITIALLY DEFERRED,"
        " name text UNIQUE)"
    )

    @dataclass
    class Node:
        id: int
        parent: int | None = None
        name: str | None = None

    tree = PostgresTable(pool, "tree", key="id", model=Node)
    await tree.apply(Batch([Put(90, Node(90, name="wanted")), Put(91, Node(91, name="moving"))]))
    writes: list[Write[Node]] = [
        Put(1, Node(1, 80)),
        Put(2, Node(2, 1)),
        Put(3, Node(3, name="wanted")),
        Put(4, Node(4, name="moving")),
        Put(5, Node(5, 404)),
        Put(80, Node(80)),
        Delete(90),
        Put(91, Node(91, name="moved")),
    ]
    applied = await tree.apply(Batch(writes, uuid4()))
    assert [(refused.at, refused.sqlstate) for refused in applied.rejected] == [(4, "23503")]
    found = await tree.load_many([1, 2, 3, 4, 5, 80, 90, 91])
    assert sorted(found) == [1, 2, 3, 4, 80, 91]
    assert (found[3].name, found[4].name, found[91].name) == ("wanted", "moving", "moved")


async def test_rows_that_need_each_other_are_written_after_one_that_was_refused(pool: Pool) -> None:
    """Checks of one attempt must not make constraints immediate in the next, which has a statement for each shape."""
    await pool.execute(
        "CREATE TABLE pairs (id int PRIMARY KEY, other int REFERENCES pairs DEFERRABLE INITIALLY DEFERRED,"
        " n int CHECK (n > 0))"
    )
    pairs = PostgresTable(pool, "pairs", key="id", model=dict)
    writes: list[Write[dict[str, Any]]] = [
        Put(1, {"n": 0}),
        Put(2, {"n": 1}),
        Put(3, {"other": 4}),
        Put(4, {"other": 3, "n": 1}),
    ]
    applied = await pairs.apply(Batch(writes, uuid4()))
    assert [refused.at for refused in applied.rejected] == [0]
    assert sorted(await pairs.load_many([1, 2, 3, 4])) == [2, 3, 4]


async def test_rows_that_row_level_security_refuses_do_not_block_the_others(
    database_url: str, schema: str, pool: Pool
) -> None:
    role = f"role_{schema}"
    await pool.execute(
        f"CREATE TABLE notes (id int PRIMARY KEY, text text); CREATE ROLE {role};"
        f" GRANT ALL ON SCHEMA {schema} TO {role}; GRANT ALL ON notes TO {role}; ALTER TABLE notes ENABLE ROW LEVEL"
        " SECURITY; CREATE POLICY small ON notes USING (true) WITH CHECK (id < 10)"
    )

    @dataclass
    class Note:
        id: int
        text: str = ""

    try:
        async with asyncpg.create_pool(
            database_url, min_size=0, server_settings={"search_path": schema, "role": role}
        ) as restricted:
            table = PostgresTable(restricted, "notes", key="id", model=Note)
            applied = await table.apply(Batch([Put(1, Note(1)), Put(10, Note(10))], uuid4()))
            assert [(refused.at, refused.sqlstate) for refused in applied.rejected] == [(1, "42501")]
            assert await table.load_many([1, 10]) == {1: Note(1)}
            await pool.execute(f"REVOKE ALL ON notes FROM {role}")
            with pytest.raises(DatabaseUnavailable, match="42501"):
                await table.apply(Batch([Put(2, Note(2))], uuid4()))
    finally:
        await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_one_row_under_two_names_of_its_key_is_written_in_the_order_of_the_batch(pool: Pool) -> None:
    await pool.execute("CREATE TABLE names (id text PRIMARY KEY, n int NOT NULL)")

    class Name(str):
        __slots__ = ()

    @dataclass
    class Row:
        id: str
        n: int

    table = PostgresTable(pool, "names", key="id", model=Row)
    writes = [Put("a", Row("a", 1)), Put("b", Row("b", 1)), Put(Name("a"), Row("a", 2))]
    assert await table.apply(Batch(writes, uuid4())) == Applied()
    assert await table.load_many(["a", "b"]) == {"a": Row("a", 2), "b": Row("b", 1)}


async def test_what_a_trigger_raises_is_the_rows_own_fault(items: PostgresTable[Item], pool: Pool) -> None:
    await pool.execute(
        "CREATE FUNCTION check_it() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.name = 'bad' THEN RAISE 'not %', NEW.name; END IF; RETURN NEW; END $$;"
        "CREATE CONSTRAINT TRIGGER check_it AFTER INSERT OR UPDATE ON items DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION check_it()"
    )
    applied = await items.apply(with_good([Put(500, Item(500, "bad"))], 100))
    assert [(refused.reason, refused.sqlstate) for refused in applied.rejected] == [("not bad", "P0001")]
    assert await pool.fetchval("SELECT count(*) FROM items WHERE id >= 0") == 100


async def _applied_ids(pool: Pool) -> list[UUID]:
    return [row[0] for row in await pool.fetch("SELECT id FROM asynccache_batch")]


async def _while_bisecting(pool: Pool, apply: Awaitable[Any], do: Callable[[Any, int], Awaitable[None]]) -> Any:
    """Stops the applier at its first good row of the bisection, by a lock that another connection holds."""
    async with pool.acquire() as other:
        await other.execute("BEGIN; LOCK TABLE asynccache_dead_letter")
        task = asyncio.ensure_future(apply)
        async with asyncio.timeout(20):
            while True:
                pid = await pool.fetchval(
                    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND $1 = ANY(pg_blocking_pids(pid))",
                    other.get_server_pid(),
                )
                if pid is not None:
                    break
                await asyncio.sleep(0.01)
            await do(other, pid)
            await other.execute("ROLLBACK")
        return await task


async def test_a_connection_killed_as_the_letters_are_written_leaves_nothing_half_done(
    items: PostgresTable[Item], pool: Pool
) -> None:
    await items.install()
    batch = with_good([Put(500, Item(500, small=0))], 100)

    async def kill(other: Any, pid: int) -> None:
        await other.execute("SELECT pg_terminate_backend($1)", pid)

    with pytest.raises(DatabaseUnavailable):
        await _while_bisecting(pool, items.apply(batch), kill)
    assert await _applied_ids(pool) == []
    assert await pool.fetchval("SELECT count(*) FROM items WHERE id >= 0") == 0
    assert await items.dead_letters.count() == 0

    assert [refused.at for refused in (await items.apply(batch)).rejected] == [50]
    assert await items.apply(batch) == Applied(again=True)
    assert await items.dead_letters.count() == 1


async def test_a_cancelled_bisection_leaves_nothing_half_done(items: PostgresTable[Item], pool: Pool) -> None:
    await items.install()
    batch = with_good([Put(500, Item(500, small=0))], 100)
    task = asyncio.ensure_future(items.apply(batch))

    async def cancel(other: Any, pid: int) -> None:
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await _while_bisecting(pool, task, cancel)
    assert await _applied_ids(pool) == []
    assert await pool.fetchval("SELECT count(*) FROM items WHERE id >= 0") == 0
    assert len((await items.apply(batch)).rejected) == 1


async def test_a_database_that_only_reads_is_an_outage_and_no_dead_letter(
    database_url: str, schema: str, items: PostgresTable[Item], pool: Pool
) -> None:
    """`default_transaction_read_only` is overruled by our BEGIN; a standby's refusal is made here by a trigger."""
    await items.install()
    await pool.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.id = 7 THEN RAISE 'no' USING ERRCODE = TG_ARGV[0]; END IF; RETURN NEW; END $$"
    )
    for code in ("25006", "40001", "53100", "57P01", "55P03"):
        await pool.execute(
            f"CREATE TRIGGER refuse BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION refuse('{code}')"
        )
        batch = Batch([Put(7, Item(7)), Put(8, Item(8, small=0)), Put(9, Item(9))], uuid4())
        with pytest.raises(DatabaseUnavailable, match=code):
            await items.apply(batch)
        assert await _applied_ids(pool) == []
        assert await items.load_many([7, 8, 9]) == {}
        await pool.execute("DROP TRIGGER refuse ON items")
    assert await items.dead_letters.count() == 0
    assert [refused.at for refused in (await items.apply(batch)).rejected] == [1]

    async with asyncpg.create_pool(
        database_url, min_size=0, server_settings={"search_path": schema, "default_transaction_read_only": "on"}
    ) as reading:
        table = PostgresTable(reading, "items", key="id", model=Item)
        again = Batch([Put(17, Item(17)), Put(18, Item(18, small=0))], uuid4())
        assert [refused.at for refused in (await table.apply(again)).rejected] == [1]


async def test_the_same_bad_batch_given_by_many_at_once_is_applied_once(items: PostgresTable[Item]) -> None:
    batch = with_good([Put(500, Item(500, small=0)), Put(5000, Item(5000, "a\0"))], 100)
    results = await asyncio.gather(*(items.apply(batch) for _ in range(6)))
    assert sorted(len(result.rejected) for result in results) == [0, 0, 0, 0, 0, 2]
    assert sorted(result.again for result in results) == [False] + [True] * 5
    assert await items.dead_letters.count() == 2

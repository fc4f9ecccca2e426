"""Names of SQL: taken apart, quoted, suggested."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.errors import ConfigurationError
from asynccache.postgres.names import did_you_mean, parse_name, qualified, quoted

parts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=15)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("users", ("", "users")), ("app.users", ("app", "users")), ("Users", ("", "Users")), ('"a.b"', ("", "a.b")),
        ('app."a.b"', ("app", "a.b")), ('"a""b".c', ('a"b', "c")), ("with space", ("", "with space")),
        ("a;b", ("", "a;b")), ("x" * 63, ("", "x" * 63)),
    ],
)  # fmt: skip
def test_a_name_is_taken_apart(text: str, parsed: tuple[str, str]) -> None:
    assert parse_name(text, "table") == parsed


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a.b.c", 'a"b', '"a', '"a"b', '""', '"a".', "x" * 64, "ü" * 32, "a\0b", None, 5, b"users"],
)
def test_what_is_not_a_name_is_refused_by_the_arguments_name(text: object) -> None:
    with pytest.raises(ConfigurationError, match="table"):
        parse_name(text, "table")


@given(parts, parts)
def test_any_name_that_is_quoted_is_read_back(schema: str, name: str) -> None:
    assert parse_name(quoted(name), "table") == ("", name)
    assert parse_name(qualified(schema, name), "table") == (schema, name)


@given(parts)
def test_a_quoted_name_ends_where_it_should(name: str) -> None:
    inside = quoted(name)[1:-1]
    assert '"' not in inside.replace('""', "")


def test_the_nearest_name_is_suggested_and_a_far_one_is_not() -> None:
    assert did_you_mean("emial", ["id", "email"]) == '; did you mean "email"?'
    assert did_you_mean("ID", ["id", "ib"]) == '; did you mean "id"?'
    assert not did_you_mean("email", ["id", "balance"])
    assert not did_you_mean("email", [])

"""Templates: a call has one key however it is written, and mistakes are found when decorating."""

import inspect
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccache.errors import ConfigurationError, InvalidKey
from asynccache.templates import compile_template, compile_templates, default_template


async def example(user_id: int, /, page: int = 1, *args: int, sort: str = "name", **more: int) -> None: ...


async def plain(a: Any, b: Any = 2) -> None: ...


SIGNATURE = inspect.signature(example)
PLAIN = inspect.signature(plain)


def test_fields_are_parameters_and_their_attributes() -> None:
    @dataclass
    class User:
        id: int

    async def posts(user: User, page: int) -> None: ...

    build = compile_template("posts:{user.id}:{page}", inspect.signature(posts))
    assert build(User(7), 2) == "posts:7:2"
    assert build(page=2, user=User(7)) == "posts:7:2"


def test_one_call_has_one_key_however_it_is_written() -> None:
    build = default_template(plain, PLAIN)
    assert build(1) == build(a=1) == build(1, 2) == build(1, b=2) == build(b=2, a=1)
    assert build(1) != build(2)
    assert build(1, 3) != build(3, 1)


def test_variable_arguments_are_part_of_the_key() -> None:
    build = default_template(example, SIGNATURE)
    assert build(1, 2, 3, 4) != build(1, 2, 3)
    assert build(1, x=1, y=2) == build(1, y=2, x=1)
    assert build(1, x=1, y=2) != build(1, x=2, y=1)
    assert build(1, sort="age") != build(1)


def test_wrong_calls_fail_as_the_function_would() -> None:
    build = compile_template("user:{user_id}", SIGNATURE)
    with pytest.raises(TypeError, match="user_id"):
        build(user_id=1)
    with pytest.raises(TypeError):
        default_template(plain, PLAIN)(1, 2, 3)


def test_defaults_of_any_kind_are_kept() -> None:
    marker = (1, "x")

    async def function(a: Any = marker, *, b: Any = None) -> None: ...

    build = compile_template("f:{a}:{b}", inspect.signature(function))
    assert build() == "f:(1,x):~none"


@given(st.text(), st.text(), st.text(), st.text())
def test_data_in_fields_never_moves_a_border(a: str, b: str, c: str, d: str) -> None:
    build = compile_template("x:{a}:{b}", PLAIN)
    assert (build(a, b) == build(c, d)) == ((a, b) == (c, d))


def test_tags_are_templates_too() -> None:
    build = compile_templates(["users", "user:{a}", "{a}/{b}"], PLAIN)
    assert build(1, "x:y") == ("users", "user:1", "1/'x%3Ay")
    assert compile_templates([], PLAIN)(1) == ()


def test_tags_need_borders_between_fields_too() -> None:
    with pytest.raises(ConfigurationError, match="between two fields"):
        compile_templates(["{a}{b}"], PLAIN)
    assert compile_templates(["{a} of {b}", "x-{a}"], PLAIN)(1, 2) == ("1 of 2", "x-1")


def test_parameters_may_have_any_name() -> None:
    async def odd(_part: int, _key: int, _short: int, part: int) -> None: ...

    signature = inspect.signature(odd)
    assert compile_template("f:{_part}:{_key}:{_short}:{part}", signature)(1, 2, 3, 4) == "f:1:2:3:4"
    assert default_template(odd, signature)(1, 2, 3, 4).endswith(":1:2:3:4")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("user:{usr_id}", r"did you mean \{user_id\}"),
        ("user:{nothing}", "there are: user_id, page"),
        ("user:{user_id:d}", "no more"),
        ("user:{user_id!r}", "no more"),
        ("user:{args[0]}", "no more"),
        ("user:{}", "no more"),
        ("user:{0}", "no more"),
        ("user:{__import__('os')}", "no more"),
        ("user:{user_id", "template"),
        ("user *:{user_id}", "data belongs"),
        ("us{{er}}:{user_id}", "data belongs"),
        ("", "must be a template"),
        ("user:{user_id}{page}", "between two fields"),
        ("user:{user_id}-{page}", "between two fields"),
    ],
)
def test_mistakes_are_found_when_decorating(template: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compile_template(template, SIGNATURE)


def test_an_argument_that_cannot_be_a_key_is_named() -> None:
    with pytest.raises(InvalidKey, match="float"):
        compile_template("user:{user_id}", SIGNATURE)(1.5)


def test_long_keys_are_bounded_and_still_distinct() -> None:
    build = compile_template("x:{a}:{b}", PLAIN)
    one, two = build("a" * 5000, 1), build("a" * 5000, 2)
    assert len(one) < 500
    assert one != two

"""Fields that msgspec tells apart from None because nobody set them."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from asynccache.codecs import codec_for
from asynccache.errors import EncodeError

UNSET = msgspec.UNSET


class Patch(msgspec.Struct, forbid_unknown_fields=True):
    name: str | msgspec.UnsetType | None = UNSET
    size: int | msgspec.UnsetType = UNSET


class OpenPatch(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    new_value: Any = None
    old_size: int | msgspec.UnsetType = UNSET
    patch_of: Patch | msgspec.UnsetType = UNSET


@dataclasses.dataclass
class Change:
    what: Any
    size: int | msgspec.UnsetType = UNSET


class Row(msgspec.Struct, array_like=True):
    size: int | msgspec.UnsetType = UNSET
    weight: int = 0


VALUES = [
    *(Patch(), Patch(None), Patch("a", 1), OpenPatch((1,)), OpenPatch({Decimal(1)}, 2, Patch(None))),
    *(Change((1,)), Change(Decimal("1.0"), 2), Row(1, 2)),
]


@pytest.mark.parametrize("value", VALUES)
def test_a_field_that_is_not_set_comes_back_as_not_set_and_not_as_none(value: Any) -> None:
    for type_ in (type(value), Any, type(value) | None):
        codec = codec_for(type_)
        back = codec.unpack(*codec.pack(value))
        assert repr(back) == repr(value)
        assert back == value


@pytest.mark.parametrize("type_", [Row, Any, list[Row]])
def test_where_fields_have_no_names_an_unset_one_is_refused(type_: Any) -> None:
    with pytest.raises(EncodeError, match="UnsetType"):
        codec_for(type_).pack([Row()] if type_ == list[Row] else Row())

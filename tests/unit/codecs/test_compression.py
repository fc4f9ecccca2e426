"""Compressed values: smaller on the wire, readable by everyone, and harmless when they are not what they say."""

import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from asynccache.codecs import codec_for, compression
from asynccache.codecs.compression import compress, decompress
from asynccache.errors import DecodeError, MissingExtra, ValueTooLarge

LIMIT = 1024 * 1024
squeezing = codec_for(str, compress_above=100)
plain = codec_for(str)


@given(st.text(max_size=2000))
def test_a_compressed_value_is_read_by_whoever_does_not_compress(text: str) -> None:
    packed = squeezing.pack(text)
    assert plain.unpack(*packed) == squeezing.unpack(*packed) == text
    assert squeezing.unpack(*plain.pack(text)) == text


def test_only_large_values_are_compressed_and_only_if_it_helps() -> None:
    assert not squeezing.pack("x" * 90).compressed
    assert squeezing.pack("x" * 1000).compressed
    assert len(squeezing.pack("x" * 1000).payload) < 100
    noise = codec_for(bytes, compress_above=0)
    assert not noise.pack(random.Random(1).randbytes(1000)).compressed


def test_the_limit_is_on_what_leaves() -> None:
    codec = codec_for(str, max_value_bytes=1000, compress_above=100)
    assert codec.unpack(*codec.pack("x" * 100_000)) == "x" * 100_000


def test_a_value_that_could_not_be_read_again_does_not_leave() -> None:
    codec = codec_for(str, max_value_bytes=1000, compress_above=100, max_decompressed_bytes=5000)
    assert codec.unpack(*codec.pack("x" * 4000)) == "x" * 4000
    with pytest.raises(ValueTooLarge):
        codec.pack("x" * 6000)


def _unknown_size(payload: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(payload)


def _lying(payload: bytes, says: int) -> bytes:
    """A frame that says it holds another number of bytes: both sizes are in the same field of the header."""
    honest = zstandard.ZstdCompressor(write_checksum=True).compress(payload)
    size = len(payload).to_bytes(4, "little")
    assert size in honest[:16]
    return honest.replace(size, says.to_bytes(4, "little"), 1)


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    bomb = compress(bytes(64 * LIMIT))
    assert len(bomb) < 10_000
    silent = _unknown_size(bytes(64 * LIMIT))
    liars = [_lying(bytes(64 * LIMIT), says) for says in (70_000, LIMIT // 2, LIMIT)]
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="above the limit"):
            decompress(bomb, LIMIT)
        with pytest.raises(DecodeError, match="does not say"):
            decompress(silent, LIMIT)
        for liar in liars:
            with pytest.raises(DecodeError, match="damaged"):
                decompress(liar, LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * LIMIT


def test_the_limit_is_inclusive() -> None:
    assert len(decompress(compress(bytes(1000)), 1000)) == 1000
    with pytest.raises(DecodeError, match="1,000 bytes, above the limit of 999"):
        decompress(compress(bytes(1000)), 999)


def test_a_frame_cut_anywhere_is_refused() -> None:
    frame = squeezing.pack("hello world, " * 50).payload
    for end in range(len(frame)):
        with pytest.raises(DecodeError):
            plain.unpack(frame[:end], compressed=True)


def test_a_frame_with_a_flipped_bit_is_refused_or_the_same() -> None:
    text = "hello world, " * 50
    frame = squeezing.pack(text).payload
    for at in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[at // 8] ^= 1 << at % 8
        try:
            assert plain.unpack(bytes(damaged), compressed=True) == text
        except DecodeError:
            continue


def test_what_follows_a_frame_is_refused() -> None:
    frame = squeezing.pack("x" * 1000).payload
    for more in (b"x", frame):
        with pytest.raises(DecodeError):
            plain.unpack(frame + more, compressed=True)


def test_a_payload_that_says_it_is_compressed_and_is_not_is_refused() -> None:
    with pytest.raises(DecodeError):
        plain.unpack(plain.pack("x" * 1000).payload, compressed=True)
    with pytest.raises(DecodeError):
        plain.unpack(squeezing.pack("x" * 1000).payload, compressed=False)


def test_without_the_extra_it_is_refused_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = squeezing.pack("x" * 1000)
    monkeypatch.setattr(compression, "zstandard", None)
    with pytest.raises(MissingExtra, match=r"asynccache\[compress\]"):
        codec_for(str, compress_above=10)
    with pytest.raises(DecodeError, match=r"asynccache\[compress\]"):
        plain.unpack(*packed)

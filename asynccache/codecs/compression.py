"""Zstandard (RFC 8878) for large values; needs the extra `compress`."""

from __future__ import annotations

from typing import Any

from asynccache.errors import DecodeError, MissingExtra

try:
    import zstandard
except ModuleNotFoundError:  # the extra is not installed
    zstandard = None  # type: ignore[assignment]

__all__ = ["check_compression", "compress", "decompress"]

_CHUNK = 65_536


def check_compression() -> None:
    """Raises `MissingExtra` if values cannot be compressed here."""
    if zstandard is None:
        raise MissingExtra("compress_above needs the package zstandard: pip install 'asynccache[compress]'")


def compress(payload: bytes) -> bytes:
    """The payload as one frame."""
    # A context is not safe to share between threads, and cheap to make.
    return zstandard.ZstdCompressor().compress(payload)


def decompress(frame: bytes, limit: int) -> bytes:
    """The payload of one frame.

    Raises:
        DecodeError: not a frame, cut short, or above `limit` bytes; never more than that is held.
    """
    if zstandard is None:
        raise DecodeError("a compressed value, and zstandard is not installed: pip install 'asynccache[compress]'")
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        if size > limit and size != zstandard.CONTENTSIZE_UNKNOWN:
            raise DecodeError(f"a compressed value of {size:,} bytes, above the limit of {limit:,}")
        reader: Any = zstandard.ZstdDecompressor().stream_reader(frame, read_across_frames=False)
        parts, total = [], 0
        while part := reader.read(min(_CHUNK, limit + 1 - total)):
            parts.append(part)
            total += len(part)
            if total > limit:
                raise DecodeError(f"a compressed value above the limit of {limit:,} bytes")
    except zstandard.ZstdError as error:
        raise DecodeError(f"a compressed value that is damaged: {error}") from error
    if size not in {total, zstandard.CONTENTSIZE_UNKNOWN}:
        raise DecodeError(f"a compressed value cut short: {total:,} of {size:,} bytes")
    return b"".join(parts)

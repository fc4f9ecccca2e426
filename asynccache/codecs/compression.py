"""Zstandard (RFC 8878) for large values; needs the extra `compress`."""

from __future__ import annotations

from asynccache.errors import DecodeError, MissingExtra

try:
    import zstandard
except ModuleNotFoundError:  # the extra is not installed
    zstandard = None  # type: ignore[assignment]

__all__ = ["check_compression", "compress", "decompress"]


def check_compression() -> None:
    """Raises `MissingExtra` if values cannot be compressed here."""
    if zstandard is None:
        raise MissingExtra("compress_above needs the package zstandard: pip install 'asynccache[compress]'")


def compress(payload: bytes) -> bytes:
    """The payload as one frame, which says how long it is and holds a checksum."""
    # A context is not safe to share between threads, and cheap to make.
    return zstandard.ZstdCompressor(write_checksum=True, write_content_size=True).compress(payload)


def decompress(frame: bytes | memoryview, limit: int) -> bytes:
    """The payload of one frame.

    Raises:
        DecodeError: not a frame of `compress`, cut short, damaged, or above `limit` bytes; what it says of its length
            is checked first, and never more than that is written.
    """
    if zstandard is None:
        raise DecodeError("a compressed value, and zstandard is not installed: pip install 'asynccache[compress]'")
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            raise DecodeError("a compressed value that does not say how long it is")
        if size > limit:
            raise DecodeError(f"a compressed value of {size:,} bytes, above the limit of {limit:,}")
        # With its length known, it is written straight into one buffer of that length, and no window is kept.
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DecodeError(f"a compressed value that is damaged: {error}") from error

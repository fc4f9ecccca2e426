"""asyncio-native caching for services that read and write PostgreSQL through Redis."""

__version__ = "0.1.0"

"""The store's port on SQLite."""

from dormice.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]

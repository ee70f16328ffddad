"""The journal: every event and note, kept in SQLite, bounded, written behind; and learned load times."""

from lemond_adapter.journal.journal import Journal, JournalStatus
from lemond_adapter.journal.store import Query

__all__ = ["Journal", "JournalStatus", "Query"]

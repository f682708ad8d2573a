"""The orders of the task queue examples, in an SQLite file: which videos are wanted, and which are submitted.

``new`` → ``submitting`` → ``submitted``. An application has these columns in its own database.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import attrs

import a2v

SCHEMA = """CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY, model_id TEXT, audio_url TEXT, state TEXT DEFAULT 'new', video_id TEXT
)"""


@attrs.define
class Order:
    """A video that is wanted, and its id once it is submitted."""

    model_id: str
    audio_url: str
    video_id: str | None = None


def add(model_id: str, audio_url: str) -> int:
    """Store a new order and return its number, the argument of the tasks."""
    with _database() as db:
        cursor = db.execute("INSERT INTO orders (model_id, audio_url) VALUES (?, ?)", (model_id, audio_url))
        return cursor.lastrowid or 0


def get(number: int) -> Order:
    """Read an order."""
    with _database() as db:
        query = "SELECT model_id, audio_url, video_id FROM orders WHERE number = ?"
        return Order(*db.execute(query, (number,)).fetchone())


@contextmanager
def submitting(number: int) -> Iterator[Order]:
    """Claim an order for the block that submits it: the intent is stored before the block, the ``video_id`` after it.

    After a crash, or an unknown outcome, the order remains claimed.

    Raises:
        SubmissionUnknownError: Another run claimed the order and stored no ``video_id``: it is still running, or it crashed.
    """
    order = get(number)
    if order.video_id is None and not _move(number, "new", "submitting"):
        message = f"order {number} may have been submitted: look in the account for a video that no order has"
        raise a2v.SubmissionUnknownError(message, job=a2v.Job(order.model_id, order.audio_url))
    try:
        yield order
    except (a2v.TransportError, a2v.APIError, ValueError):
        _move(number, "submitting", "new")  # nothing was submitted
        raise
    _move(number, "submitting", "submitted", order.video_id)


def _move(number: int, old: str, new: str, video_id: str | None = None) -> bool:
    """Change the state of an order if it has the old one. Of two processes at once, one succeeds."""
    with _database() as db:
        update = "UPDATE orders SET state = ?, video_id = ? WHERE number = ? AND state = ?"
        return db.execute(update, (new, video_id, number, old)).rowcount == 1


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(os.environ.get("ORDERS", "orders.db"), isolation_level=None)) as db:
        db.execute(SCHEMA)
        yield db

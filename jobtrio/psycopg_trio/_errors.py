"""The one error that psycopg has no name for."""

from __future__ import annotations

import psycopg


class OutcomeUnknownError(psycopg.OperationalError):
    """The connection was lost, or time ran out, after ``COMMIT`` was sent: it may have been carried out, or not.

    The connection is closed. The cause is what the connection reported, if anything.
    """

"""Keeps what goes wrong in one domain from the work on the others, and from filling the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError

from tasktrail.engines import is_connection_error
from tasktrail.errors import DatabaseUnavailable, describe

logger = logging.getLogger(__name__)

REPEATED_AFTER: Final = 60.0
"""How long a trouble that goes on is not logged again, in seconds."""


class Troubles:
    """What is wrong at present; logged when it begins, now and then, and when it is over."""

    def __init__(self) -> None:
        self._logged: dict[str, tuple[type[BaseException], float]] = {}

    @contextmanager
    def contained(self, work: str) -> Iterator[None]:
        """Log what goes wrong in the block instead of raising it, unless there is no connection any more.

        Args:
            work: what is done there, for the log.

        Raises:
            DatabaseUnavailable: the database went away, which is everybody's trouble.
            sqlalchemy.exc.DBAPIError: likewise.
        """
        try:
            yield
        except DatabaseUnavailable:
            raise
        except Exception as error:
            if isinstance(error, DBAPIError) and is_connection_error(error):
                raise
            self._note(work, error)
        else:
            if self._logged.pop(work, None) is not None:
                logger.info("maintenance: %s goes on", work)

    def _note(self, work: str, error: Exception) -> None:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        kind, at = self._logged.get(work, (None, 0.0))
        now = time.monotonic()
        if kind is type(cause) and now - at < REPEATED_AFTER:
            return
        self._logged[work] = (type(cause), now)
        # What the server says needs no traceback.
        trace = None if kind is type(cause) or cause is not error else error
        logger.warning("maintenance: %s failed: %s", work, describe(cause).splitlines()[0], exc_info=trace)

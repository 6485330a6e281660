"""The command line: ``tasktrail``, and what an application's own command line shares with it."""

from tasktrail.cli.errors import run

__all__ = ["run"]

"""The old system: its tables, what its rows become, and its workers and readers for rehearsals.

Nothing outside knows this package, but Alembic's revision 0001. Once the legacy tables are dropped it can be
deleted, and everything else goes on.
"""

"""The migration of a running system's own status tables into tracking tables, without losing a row."""

"""The read model: what runs, what failed and why, what is stuck. ``queries`` is its public face."""

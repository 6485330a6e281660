"""Daily updates: whether one is due, what it takes, and what came of it."""

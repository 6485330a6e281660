"""Exchange rates: who publishes them, when, and what can go wrong on the way."""

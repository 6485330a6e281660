"""The background jobs of an ETF-portfolio backend, tracked by tasktrail."""

"""ETF prices: where they come from, on which days, in which currency, and what can go wrong on the way."""

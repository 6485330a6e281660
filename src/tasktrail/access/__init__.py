"""Who may look on and steer from outside, and what they did: tokens, sessions, limits, the audit."""

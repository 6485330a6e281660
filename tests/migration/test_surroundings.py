"""What a migration may meet around it: one clear line with the command to go on, and nothing is lost."""

from __future__ import annotations

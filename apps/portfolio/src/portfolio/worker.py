"""What ``celery -A portfolio.worker worker`` loads."""

from portfolio.main import build
from tasktrail import Settings

app = build(Settings.load()).celery

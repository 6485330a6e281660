"""What ``celery -A portfolio.worker worker`` loads."""

from portfolio.main import build
from tasktrail import Settings, TasktrailError

try:
    app = build(Settings.load()).celery
except TasktrailError as error:  # Celery would print a traceback for anything but this
    raise SystemExit(f"error: {error}") from error

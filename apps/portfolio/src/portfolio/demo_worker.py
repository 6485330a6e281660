"""What the worker of ``make demo`` loads: the application with the flaky source."""

from portfolio.demo import application
from tasktrail import Settings

app = application(Settings.load()).celery

"""What the new workers of the demonstration load: the application on a queue of its own."""

from portfolio.demo import application
from tasktrail import Settings

app = application(Settings.load()).celery
app.conf.task_default_queue = "portfolio_migration"

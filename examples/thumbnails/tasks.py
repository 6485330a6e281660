"""The domain: a table of thumbnails to make, and the task that makes one."""

from __future__ import annotations

from pathlib import Path

from celery import Celery
from picture import NotAPicture, Picture
from sqlalchemy import Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tasktrail import (
    BaseTaskTracking,
    BaseTaskTrackingService,
    NaturalKey,
    RetryPolicy,
    Run,
    Settings,
    TrackingOptions,
    Trail,
)


class Base(DeclarativeBase):
    """The tables of the example."""


class ThumbnailTracking(BaseTaskTracking, Base):
    """One thumbnail of one picture: what is asked for, and what came of it."""

    __tablename__ = "thumbnail_tracking"
    __tracking__ = TrackingOptions(
        domain="thumbnail", natural_key=NaturalKey(("picture", "width"), "uq_thumbnail")
    )

    picture: Mapped[str] = mapped_column(String(500))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    size: Mapped[int | None] = mapped_column(Integer)


class ThumbnailTrackingService(BaseTaskTrackingService[ThumbnailTracking]):
    """Operations on the rows of ``thumbnail_tracking``."""

    model = ThumbnailTracking


app = Celery("thumbnails")
app.conf.task_default_queue = "thumbnails"
trail = Trail(app, Settings.load())


@trail.task(ThumbnailTrackingService, retry=RetryPolicy(base=1, give_up_on=(NotAPicture, FileNotFoundError)))
def make_thumbnail(run: Run[ThumbnailTracking]) -> None:
    """Write the thumbnail beside its picture, as ``<name>-<width>.ppm``."""
    source = Path(run.row.picture)
    thumbnail = Picture.read(source.read_bytes()).thumbnail(run.row.width)
    content = thumbnail.written()
    # First beside it, then in its place: whoever looks finds all of it or nothing, also after a second try.
    unfinished = source.with_name(f"{source.stem}-{run.row.width}.part")
    unfinished.write_bytes(content)
    unfinished.replace(unfinished.with_suffix(".ppm"))
    run.record(height=thumbnail.height, size=len(content))

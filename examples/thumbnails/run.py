"""Draws a few pictures, has thumbnails made of them by a Celery worker, and shows what the table says.

    python examples/thumbnails/run.py [folder]

Needs nothing but ``tasktrail[embedded]``: PostgreSQL and Redis come with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from picture import Picture

from tasktrail import Settings
from tasktrail.embedded import EmbeddedStack


def draw(folder: Path) -> list[Path]:
    """Draw five pictures of 96 x 64 pixels, and a file that is none; return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [folder / f"picture{number}.ppm" for number in range(5)]
    for number, picture in enumerate(pictures):
        pixels = bytes(shade for y in range(64) for x in range(96) for shade in (x * 2, y * 3, number * 50))
        picture.write_bytes(Picture(96, 64, pixels).written())
    letter = folder / "letter.ppm"
    letter.write_text("Dear Ann,\n", encoding="utf-8")
    return [*pictures, letter]


def main(folder: Path) -> None:
    """Do all of it."""
    pictures = draw(folder)
    with EmbeddedStack(Settings.load()) as settings:
        for name, url in (("DATABASE_URL", settings.database_url), ("BROKER_URL", settings.broker_url)):
            if url is not None:
                os.environ[f"TASKTRAIL_{name}"] = url.get_secret_value()
        import gallery  # noqa: PLC0415  # the tasks want to know where the servers are when they are loaded

        gallery.make_thumbnails(pictures)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "pictures"))

"""Pictures in the plainest format there is: portable pixmaps, three bytes a pixel (``ppm(5)``, form P6)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEADER = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s")


class NotAPicture(ValueError):
    """The file is no portable pixmap with 255 shades."""


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        width: in pixels.
        height: in pixels.
        pixels: red, green and blue of each, line by line.
    """

    width: int
    height: int
    pixels: bytes

    @classmethod
    def read(cls, content: bytes) -> Picture:
        """Return the picture in a file.

        Args:
            content: the file.

        Raises:
            NotAPicture: it is none, or cut.
        """
        header = _HEADER.match(content)
        if header is None:
            raise NotAPicture("this is no portable pixmap (P6, 255 shades)")
        width, height = int(header[1]), int(header[2])
        pixels = content[header.end() :]
        if not width or len(pixels) != 3 * width * height:
            raise NotAPicture(f"{width} x {height} pixels were promised, {len(pixels) / 3:g} are there")
        return cls(width, height, pixels)

    def written(self) -> bytes:
        """Return the file of the picture."""
        return b"P6\n%d %d\n255\n" % (self.width, self.height) + self.pixels

    def thumbnail(self, width: int) -> Picture:
        """Return the picture made smaller, each new pixel the mean of those it covers.

        Args:
            width: of the thumbnail, in pixels; a picture that is not wider stays as it is.
        """
        if width >= self.width:
            return self
        height = max(1, self.height * width // self.width)
        columns = [(x * self.width // width, (x + 1) * self.width // width) for x in range(width)]
        lines = [(y * self.height // height, (y + 1) * self.height // height) for y in range(height)]
        pixels = bytearray()
        for top, bottom in lines:
            for left, right in columns:
                pixels += self._mean(left, right, top, max(bottom, top + 1))
        return Picture(width, height, bytes(pixels))

    def _mean(self, left: int, right: int, top: int, bottom: int) -> bytes:
        parts = [
            self.pixels[3 * (y * self.width + left) : 3 * (y * self.width + right)]
            for y in range(top, bottom)
        ]
        covered = b"".join(parts)
        return bytes(sum(covered[colour::3]) * 3 // len(covered) for colour in range(3))

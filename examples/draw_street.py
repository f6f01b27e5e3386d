"""Draws ipc_example/street_small.bmp: a street in flat colours, 24 bits a pixel.

Run from anywhere: `python3 examples/draw_street.py [path]`.
"""

import struct
import sys
from pathlib import Path

WIDTH, HEIGHT = 128, 96
HORIZON = 48
Colour = tuple[int, int, int]

SKY, SUN = (150, 200, 235), (250, 225, 120)
GRASS, ROAD, LINE = (110, 150, 90), (85, 85, 90), (235, 235, 225)
WALLS = ((190, 110, 90), (215, 195, 150), (150, 160, 175))
ROOF, WINDOW = (95, 60, 55), (250, 240, 190)
CAR, GLASS, TYRE = (200, 40, 45), (185, 215, 230), (30, 30, 30)


class Canvas:
    """WIDTH x HEIGHT pixels, rows from the top; what lies outside is cut off."""

    def __init__(self) -> None:
        self.rows: list[list[Colour]] = [[SKY] * WIDTH for _ in range(HEIGHT)]

    def box(self, left: int, top: int, right: int, bottom: int, colour: Colour) -> None:
        for y in range(max(top, 0), min(bottom, HEIGHT)):
            for x in range(max(left, 0), min(right, WIDTH)):
                self.rows[y][x] = colour

    def disc(self, centre_x: int, centre_y: int, radius: int, colour: Colour) -> None:
        for y in range(centre_y - radius, centre_y + radius + 1):
            for x in range(centre_x - radius, centre_x + radius + 1):
                if (x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2:
                    self.box(x, y, x + 1, y + 1, colour)

    def bmp(self) -> bytes:
        """The picture as a BMP file: BITMAPFILEHEADER, BITMAPINFOHEADER, rows from the bottom in BGR."""
        padding = bytes(-WIDTH * 3 % 4)
        pixels = b"".join(b"".join(bytes(reversed(colour)) for colour in row) + padding for row in reversed(self.rows))
        dots_per_metre = 2835
        info = struct.pack(
            "<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 24, 0, len(pixels), dots_per_metre, dots_per_metre, 0, 0
        )
        offset = 14 + len(info)
        return struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset) + info + pixels


def draw() -> Canvas:
    """The street: sky and sun, three houses, a road to the horizon, a car."""
    canvas = Canvas()
    canvas.disc(106, 14, 8, SUN)
    canvas.box(0, HORIZON, WIDTH, HEIGHT, GRASS)
    for y in range(HORIZON, HEIGHT):
        half = 4 + (y - HORIZON) * 11 // 10
        canvas.box(64 - half, y, 64 + half, y + 1, ROAD)
        if (y - HORIZON) // 6 % 2:
            canvas.box(63 - half // 20, y, 65 + half // 20, y + 1, LINE)
    for left, top, width, wall in ((2, 26, 22, WALLS[0]), (27, 32, 18, WALLS[1]), (94, 24, 26, WALLS[2])):
        canvas.box(left, top, left + width, HORIZON + 4, wall)
        for step in range(8):
            canvas.box(left - 2 + step, top - 1 - step, left + width + 2 - step, top - step, ROOF)
        for x in range(left + 3, left + width - 5, 8):
            for y in range(top + 4, HORIZON - 6, 9):
                canvas.box(x, y, x + 4, y + 5, WINDOW)
    canvas.box(74, 68, 98, 78, CAR)
    canvas.box(79, 62, 93, 68, CAR)
    canvas.box(81, 63, 91, 67, GLASS)
    canvas.disc(79, 78, 3, TYRE)
    canvas.disc(93, 78, 3, TYRE)
    return canvas


if __name__ == "__main__":
    default = Path(__file__).parent / "ipc_example" / "street_small.bmp"
    (Path(sys.argv[1]) if len(sys.argv) > 1 else default).write_bytes(draw().bmp())

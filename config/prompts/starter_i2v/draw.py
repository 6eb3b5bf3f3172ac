"""Draws the starter set's first frames: `python config/prompts/starter_i2v/draw.py`.

Simple scenes in flat colours, 832 x 480, so that a first run of an image-to-video model needs no
images of others. Needs Pillow only.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIZE = (832, 480)
FOLDER = Path(__file__).parent


def gradient(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    """A vertical gradient of the frame's size."""
    column = Image.new("RGB", (1, SIZE[1]))
    for y in range(SIZE[1]):
        share = y / (SIZE[1] - 1)
        column.putpixel(
            (0, y), tuple(round(a + share * (b - a)) for a, b in zip(top, bottom, strict=True))
        )
    return column.resize(SIZE)


def sea() -> Image.Image:
    """A red sailing boat on a calm sea."""
    image = gradient((250, 200, 150), (255, 236, 200))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 300, *SIZE), fill=(40, 110, 160))
    for y in range(312, 480, 24):
        draw.line((0, y, SIZE[0], y), fill=(60, 130, 180), width=3)
    draw.polygon([(330, 300), (500, 300), (470, 345), (360, 345)], fill=(170, 40, 40))
    draw.line((412, 300, 412, 130), fill=(90, 60, 40), width=6)
    draw.polygon([(420, 140), (420, 285), (510, 285)], fill=(250, 245, 235))
    return image


def balloon() -> Image.Image:
    """A hot-air balloon over green hills."""
    image = gradient((90, 160, 230), (200, 226, 250))
    draw = ImageDraw.Draw(image)
    draw.ellipse((-150, 330, 450, 700), fill=(80, 150, 80))
    draw.ellipse((350, 350, 1000, 760), fill=(60, 130, 70))
    draw.ellipse((360, 80, 520, 260), fill=(220, 60, 60))
    draw.ellipse((405, 80, 475, 260), fill=(250, 210, 80))
    draw.line((395, 240, 425, 300), fill=(80, 60, 40), width=3)
    draw.line((485, 240, 455, 300), fill=(80, 60, 40), width=3)
    draw.rectangle((422, 298, 458, 326), fill=(120, 80, 50))
    return image


def road() -> Image.Image:
    """A yellow car on a straight road at dusk."""
    image = gradient((60, 50, 110), (240, 140, 100))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 330, *SIZE), fill=(60, 60, 66))
    for x in range(0, SIZE[0], 120):
        draw.rectangle((x, 400, x + 60, 410), fill=(230, 230, 220))
    draw.rounded_rectangle((280, 300, 520, 380), 24, fill=(240, 200, 40))
    draw.rounded_rectangle((330, 255, 470, 320), 22, fill=(240, 200, 40))
    draw.rectangle((345, 268, 455, 305), fill=(150, 200, 230))
    for x in (330, 470):
        draw.ellipse((x - 32, 348, x + 32, 412), fill=(25, 25, 30))
        draw.ellipse((x - 13, 367, x + 13, 393), fill=(170, 170, 175))
    return image


def candle() -> Image.Image:
    """A candle and a blue cup on a wooden table."""
    image = gradient((35, 28, 30), (70, 50, 45))
    draw = ImageDraw.Draw(image)
    glow = Image.new("L", SIZE, 0)
    ImageDraw.Draw(glow).ellipse((200, 20, 460, 280), fill=150)
    image.paste((255, 190, 90), mask=glow.filter(ImageFilter.GaussianBlur(60)))
    draw.rectangle((0, 360, *SIZE), fill=(120, 80, 50))
    draw.rectangle((305, 200, 355, 370), fill=(240, 230, 210))
    draw.polygon([(330, 120), (347, 175), (330, 196), (313, 175)], fill=(255, 200, 80))
    draw.rounded_rectangle((500, 270, 600, 375), 18, fill=(50, 90, 170))
    draw.arc((580, 285, 640, 350), -90, 90, fill=(50, 90, 170), width=14)
    return image


if __name__ == "__main__":
    for scene in (sea, balloon, road, candle):
        # A light blur: compressed flat edges ring.
        soft = scene().filter(ImageFilter.GaussianBlur(0.7))
        soft.save(FOLDER / f"{scene.__name__}.jpg", quality=88)

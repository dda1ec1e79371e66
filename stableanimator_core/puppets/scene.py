"""Places a puppet stands in: quiet backgrounds with a little depth."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from .look import Colour, shaded
from .paint import Picture, disc, polygon, rgb


def draw_scene(rng: np.random.Generator, size: int) -> Picture:
    """A background, uint8 [size size 3]."""
    hue, light = rng.uniform(), rng.uniform(0.45, 0.95)
    wall: Colour = colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.45), light)
    picture = _gradient(wall, shaded(wall, rng.uniform(0.75, 1.1)), size)
    kind = rng.integers(5)
    if kind == 1:
        _floor(
            picture,
            colorsys.hsv_to_rgb((hue + rng.uniform(0.05, 0.5)) % 1, rng.uniform(0.1, 0.5), light * 0.7),
            rng,
        )
    elif kind == 2:
        _panels(picture, shaded(wall, rng.uniform(0.86, 0.94)), rng)
    elif kind == 3:
        _lights(picture, wall, rng)
    elif kind == 4:
        _window(picture, wall, rng)
        _floor(picture, shaded(wall, 0.6), rng)
    return picture


def _gradient(top: Colour, bottom: Colour, size: int) -> Picture:
    ends = np.array([rgb(top), rgb(bottom)], dtype=np.float64)
    share = np.linspace(0, 1, size)[:, None, None]
    return np.repeat(np.round(ends[0] + share * (ends[1] - ends[0])), size, axis=1).astype(np.uint8)


def _floor(picture: Picture, colour: Colour, rng: np.random.Generator) -> None:
    size = len(picture)
    top = round(size * rng.uniform(0.72, 0.86))
    picture[top:] = _gradient(shaded(colour, 0.85), shaded(colour, 1.1), size)[: size - top]


def _panels(picture: Picture, colour: Colour, rng: np.random.Generator) -> None:
    size, width = len(picture), len(picture) * rng.uniform(0.08, 0.2)
    for start in np.arange(-rng.uniform() * width, size, 2 * width):
        polygon(
            picture, np.array([[start, 0], [start + width, 0], [start + width, size], [start, size]]), colour
        )


def _lights(picture: Picture, wall: Colour, rng: np.random.Generator) -> None:
    size = len(picture)
    for _ in range(7):
        colour = shaded(wall, rng.uniform(0.85, 1.2))
        disc(picture, rng.uniform(0, size, 2), size * rng.uniform(0.04, 0.16), colour)
    picture[:] = cv2.GaussianBlur(picture, (0, 0), size * 0.006)


def _window(picture: Picture, wall: Colour, rng: np.random.Generator) -> None:
    size = len(picture)
    x, y = size * rng.uniform(0.05, 0.6), size * rng.uniform(0.06, 0.2)
    width, height = size * rng.uniform(0.22, 0.34), size * rng.uniform(0.26, 0.4)
    for grow, colour in ((0.02 * size, shaded(wall, 0.7)), (0.0, (0.74, 0.87, 0.95))):
        box = [
            [x - grow, y - grow],
            [x + width + grow, y - grow],
            [x + width + grow, y + height + grow],
            [x - grow, y + height + grow],
        ]
        polygon(picture, np.array(box), colour)
    bar = 0.008 * size
    for centre, half in (
        ((x + width / 2, y + height / 2), (bar, height / 2)),
        ((x + width / 2, y + height / 2), (width / 2, bar)),
    ):
        corners = np.array(centre) + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        polygon(picture, corners, shaded(wall, 0.7))

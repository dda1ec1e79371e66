"""Shapes with smooth edges, painted into uint8 RGB pictures; places and sizes in pixels, with fractions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .look import Colour, shaded

Picture = NDArray[np.uint8]
Array = NDArray[np.float64]

_BITS = 4
OUTLINE = 0.62
"""Brightness of outlines against their shape."""


def rgb(colour: Colour) -> tuple[int, int, int]:
    """Colour for OpenCV, 0 to 255."""
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def _fixed(value: float) -> int:
    return round(value * (1 << _BITS))


def disc(picture: Picture, centre: Array, radius: float, colour: Colour) -> None:
    """A filled circle."""
    place = (_fixed(centre[0]), _fixed(centre[1]))
    cv2.circle(picture, place, max(1, _fixed(radius)), rgb(colour), -1, cv2.LINE_AA, _BITS)


def polygon(picture: Picture, points: Sequence[Array] | Array, colour: Colour) -> None:
    """A filled polygon of [n 2] points."""
    corners = np.round(np.asarray(points)[:, :2] * (1 << _BITS)).astype(np.int32)
    cv2.fillPoly(picture, [corners], rgb(colour), cv2.LINE_AA, _BITS)


def ellipse(picture: Picture, centre: Array, axes: tuple[float, float], angle: float, colour: Colour) -> None:
    """A filled ellipse; half axes in pixels, angle in degrees."""
    place, sizes = (_fixed(centre[0]), _fixed(centre[1])), (max(1, _fixed(axes[0])), max(1, _fixed(axes[1])))
    cv2.ellipse(picture, place, sizes, angle, 0, 360, rgb(colour), -1, cv2.LINE_AA, _BITS)


def capsule(picture: Picture, a: Array, b: Array, radius_a: float, radius_b: float, colour: Colour) -> None:
    """Two circles and what lies between them."""
    along = np.asarray(b[:2]) - a[:2]
    length = float(np.hypot(*along))
    if length > 1e-6:
        side = np.array([-along[1], along[0]]) / length
        corners = [
            a[:2] + side * radius_a,
            b[:2] + side * radius_b,
            b[:2] - side * radius_b,
            a[:2] - side * radius_a,
        ]
        polygon(picture, corners, colour)
    disc(picture, a, radius_a, colour)
    disc(picture, b, radius_b, colour)


def limb(
    picture: Picture, a: Array, b: Array, radius_a: float, radius_b: float, colour: Colour, line: float
) -> None:
    """A capsule with an outline of `line` pixels and a lighter side towards the light, above on the left."""
    capsule(picture, a, b, radius_a + line, radius_b + line, shaded(colour, OUTLINE))
    capsule(picture, a, b, radius_a, radius_b, shaded(colour, 0.90))
    light = np.array([-0.22, -0.22])
    capsule(
        picture, a[:2] + light * radius_a, b[:2] + light * radius_b, 0.66 * radius_a, 0.66 * radius_b, colour
    )

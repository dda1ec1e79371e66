"""The skin and the hair of a head as maps of its surface: longitude across, latitude down.

Longitude 0 is the middle of the face and grows to the person's left; latitude grows upwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .look import Colour, Person, shaded
from .paint import Picture, rgb

Array = NDArray[np.floating[Any]]

WIDTH, HEIGHT = 640, 320
MOUTHS = 3
"""How many openings of the mouth are drawn."""

_SCALE = WIDTH / (2 * np.pi)  # texels per radian


@dataclass(frozen=True, eq=False)
class HeadTexture:
    """`skin` uint8 [h w 3]; `hair` uint8 [h w 3] and `hair_cover` uint8 [h w], 255 where hair is."""

    skin: Picture
    hair: Picture
    hair_cover: Picture


def texel(longitude: Array | float, latitude: Array | float) -> tuple[Array, Array]:
    """Column and row of a place on the map."""
    return (np.asarray(longitude) + np.pi) * _SCALE, (np.pi / 2 - np.asarray(latitude)) * _SCALE


@lru_cache(maxsize=64)
def paint_head(person: Person, mouth: int, shut: bool) -> HeadTexture:
    """The maps for one expression: `mouth` from 0 (closed) to MOUTHS - 1, eyes open or shut."""
    skin = _plain_skin(person).copy()
    _mouth(skin, person, mouth / (MOUTHS - 1))
    for side in (-1, 1):
        _eye(skin, person, side, shut)
        _brow(skin, person, side)
    _glasses(skin, person)
    return HeadTexture(skin, *_hair(person))


@lru_cache(maxsize=64)
def _plain_skin(person: Person) -> Picture:
    """What no expression changes."""
    skin = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    skin[:] = rgb(person.skin)
    _cheeks(skin, person)
    _beard(skin, person)
    return skin


def _blob(
    picture: Picture,
    longitude: float,
    latitude: float,
    width: float,
    height: float,
    colour: Colour,
    angle: float = 0,
) -> None:
    (x, y), bits = texel(longitude, latitude), 4
    centre, axes = (
        (round(float(x) * 16), round(float(y) * 16)),
        (round(width * _SCALE * 16), round(height * _SCALE * 16)),
    )
    cv2.ellipse(picture, centre, axes, angle, 0, 360, rgb(colour), -1, cv2.LINE_AA, bits)


def _mix_in(picture: Picture, cover: Array, colour: Colour) -> None:
    """Colour over the picture where `cover` [h w] from 0 to 1 says so."""
    mixed = picture + cover[..., None] * (np.array(rgb(colour)) - picture)
    picture[:] = np.clip(np.round(mixed), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _grid() -> tuple[Array, Array]:
    """Longitude and latitude of every texel."""
    longitude = (np.arange(WIDTH) + 0.5) / _SCALE - np.pi
    latitude = np.pi / 2 - (np.arange(HEIGHT) + 0.5) / _SCALE
    return np.broadcast_to(longitude, (HEIGHT, WIDTH)), np.broadcast_to(latitude[:, None], (HEIGHT, WIDTH))


def _soft(distance: Array, width: float) -> Array:
    """0 below -width, 1 above width."""
    return np.clip(distance / (2 * width) + 0.5, 0, 1)


def _cheeks(skin: Picture, person: Person) -> None:
    longitude, latitude = _grid()
    for side in (-1, 1):
        far = np.hypot(longitude - side * 0.55, latitude + 0.22)
        _mix_in(skin, person.blush * 0.5 * np.exp(-((far / 0.2) ** 2)), (0.93, 0.40, 0.38))
    if person.freckles:
        rng = np.random.default_rng(7)
        for x, y in rng.normal(0, 1, (26, 2)) * [0.35, 0.08] + [0, -0.14]:
            _blob(skin, x, y, 0.018, 0.018, shaded(person.skin, 1 - 0.35 * person.freckles))


def _beard(skin: Picture, person: Person) -> None:
    longitude, latitude = _grid()
    mouth, width = person.mouth_height, person.mouth[0]
    jaw = _soft(mouth + 0.12 + 0.25 * np.abs(longitude) - latitude, 0.03) * _soft(
        1.35 - np.abs(longitude), 0.04
    )
    lip = _soft(0.055 - np.abs(latitude - mouth - 0.11 + 0.1 * np.abs(longitude)), 0.012) * _soft(
        width + 0.05 - np.abs(longitude), 0.02
    )
    chin = _soft(0.2 - np.hypot(longitude, (latitude - mouth + 0.2) * 0.9), 0.02)
    cover = {
        "stubble": 0.35 * np.maximum(jaw, lip),
        "full": np.maximum(jaw, lip),
        "moustache": lip,
        "goatee": np.maximum(chin, lip),
    }.get(person.beard)
    if cover is not None:
        _mix_in(skin, cover, shaded(person.hair, 0.85))


def _mouth(skin: Picture, person: Person, opening: float) -> None:
    width, lips = person.mouth
    height = person.mouth_height
    _blob(skin, 0, height, width, lips + 0.05 * opening + 0.012, person.lips)
    if opening > 0:
        _blob(skin, 0, height, width * 0.84, 0.05 * opening + 0.02, (0.28, 0.06, 0.08))
        _blob(skin, 0, height + 0.035 * opening, width * 0.66, 0.022, (0.97, 0.96, 0.94))
    else:
        _blob(skin, 0, height, width * 0.95, 0.011, shaded(person.lips, 0.5))


def _eye(skin: Picture, person: Person, side: int, shut: bool) -> None:
    x, y, size = side * person.eye_gap, person.eye_height, person.eye_size
    if shut:
        _blob(skin, x, y - 0.02, size * 1.15, size * 0.18, shaded(person.skin, 0.45))
        return
    _blob(skin, x, y + 0.015, size * 1.22, size * 0.98, shaded(person.skin, 0.45))
    _blob(skin, x, y, size * 1.15, size * 0.85, (0.98, 0.98, 0.97))
    _blob(skin, x, y, size * 0.68, size * 0.74, person.eyes)
    _blob(skin, x, y, size * 0.34, size * 0.38, (0.03, 0.03, 0.04))
    _blob(skin, x - 0.25 * size, y + 0.28 * size, size * 0.17, size * 0.17, (1, 1, 1))


def _brow(skin: Picture, person: Person, side: int) -> None:
    thickness, slant = person.brow
    y = person.eye_height + person.eye_size + 0.11
    colour = shaded(person.hair, 0.75)
    for step in np.linspace(-1, 1, 9):
        x = side * person.eye_gap + step * person.eye_size * 1.35
        rise = 0.03 * (1 - step**2) + slant * step * side
        _blob(skin, x, y + rise, 0.05, thickness * (1.1 - 0.35 * step * side), colour)


def _glasses(skin: Picture, person: Person) -> None:
    if person.glasses == "none":
        return
    colour, radius = person.glasses_colour, person.eye_size + 0.13
    bits, edge = 4, max(2, round(0.035 * _SCALE))
    for side in (-1, 1):
        x, y = (float(v) for v in texel(side * person.eye_gap, person.eye_height))
        size = radius * _SCALE
        if person.glasses == "square":
            corners = [(x - size * 1.1, y - size * 0.8), (x + size * 1.1, y + size * 0.8)]
            first, last = ((round(a * 16), round(b * 16)) for a, b in corners)
            cv2.rectangle(skin, first, last, rgb(colour), edge, cv2.LINE_AA, bits)
        else:
            centre = (round(x * 16), round(y * 16))
            thickness = -1 if person.glasses == "dark" else edge
            cv2.circle(skin, centre, round(size * 16), rgb(colour), thickness, cv2.LINE_AA, bits)
        ear, _ = texel(side * 1.6, 0)
        row = round(y - 0.03 * _SCALE)
        cv2.line(skin, (round(x + side * size), row), (round(float(ear)), row), rgb(colour), edge)
    (left, row), (right, _) = (
        texel(s * (person.eye_gap - radius), person.eye_height + 0.02) for s in (-1, 1)
    )
    cv2.line(
        skin,
        (round(float(left)), round(float(row))),
        (round(float(right)), round(float(row))),
        rgb(colour),
        edge,
    )


@lru_cache(maxsize=64)
def _hair(person: Person) -> tuple[Picture, Picture]:
    longitude, latitude = _grid()
    strands = 0.10 * np.sin(longitude * 34 + 2 * np.sin(latitude * 9)) * np.cos(latitude)
    hair = np.array(rgb(person.hair)) * (0.97 + strands)[..., None]
    cover = (
        np.zeros_like(longitude)
        if person.hair_style == "bald"
        else _soft(latitude - _hair_edge(person), 0.02)
    )
    if person.hair_style == "mohawk":
        cover = cover * _soft(0.26 - np.abs(np.cos(latitude) * np.sin(longitude)), 0.02)
    return np.clip(hair, 0, 255).astype(np.uint8), np.round(cover * 255).astype(np.uint8)


def _hair_edge(person: Person) -> Array:
    """Latitude where hair begins, for every texel."""
    longitude, _ = _grid()
    around, start = np.abs(longitude), person.hairline
    front = {
        "fringe": np.full_like(longitude, person.eye_height + person.eye_size + 0.2),
        "side": start + 0.32 * np.sin(longitude * 1.2 + 0.9) - 0.18,
        "bun": start + 0.08 * np.cos(longitude * 3),
        "long": start + 0.22 * np.cos(longitude * 2.2) - 0.15,
        "bob": start - 0.12 + 0.02 * np.cos(longitude * 20),
    }.get(person.hair_style, start + 0.0 * longitude)
    sideburn = {"long": -1.15, "bob": -0.85, "curls": -0.25}.get(person.hair_style, 0.02)
    to_side = np.clip((around - 0.85) / 0.3, 0, 1)
    to_back = np.clip((around - 1.5) / 0.5, 0, 1)
    nape = min(sideburn, -0.75)
    edge = front + to_side * (np.minimum(front, sideburn) - front)
    return edge + to_back * (np.minimum(edge, nape) - edge)

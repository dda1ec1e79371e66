"""A head in space: two ellipsoids, skin and hair, seen by a ray through every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .body import rotation
from .head_texture import MOUTHS, paint_head, texel
from .look import Person, shaded
from .paint import OUTLINE, Picture, disc, ellipse, limb, polygon, rgb

Array = NDArray[np.floating[Any]]

LIGHT = np.array([-0.42, -0.55, 0.72])
_VOLUME = {"bald": 1.0, "short": 1.07, "mohawk": 1.12, "curls": 1.22, "bob": 1.14, "long": 1.1}


@dataclass(frozen=True, eq=False)
class Head:
    """A head at a place in the picture.

    Attributes:
        person: whose it is.
        angles: yaw, pitch and roll, radians.
        centre: [2] pixels; `scale`: pixels per head.
    """

    person: Person
    angles: tuple[float, float, float]
    centre: Array
    scale: float

    def project(self, points: Array) -> tuple[Array, Array]:
        """Places [n 3] in the head's own axes (left, down, forward) -> pixels [n 2] and depth [n], in heads."""
        turned = points @ rotation(self.angles[0], self.angles[1], 0).T
        across, down = turned[:, 0], turned[:, 1]
        across = across * self._narrowing(down)
        c, s = np.cos(self.angles[2]), np.sin(self.angles[2])
        placed = np.stack([c * across - s * down, s * across + c * down], axis=1)
        return self.centre + placed * self.scale, turned[:, 2]

    def on_skin(self, longitude: Array, latitude: Array) -> Array:
        """Places [n 3] on the skin in the head's own axes."""
        round_about = np.stack(
            [np.cos(latitude) * np.sin(longitude), -np.sin(latitude), np.cos(latitude) * np.cos(longitude)],
            axis=1,
        )
        return round_about * self.person.head

    def _narrowing(self, down: Array) -> Array:
        """How much narrower the head is at a height, because of the jaw."""
        return 1 - self.person.jaw * np.clip(down / 0.5, 0, 1) ** 1.6

    def draw_behind(self, picture: Picture) -> None:
        """Hair that falls behind the body, and ears."""
        person, line = self.person, 0.02 * self.scale
        if person.hair_style in ("long", "bob"):
            self._falling_hair(picture, 1.12 if person.hair_style == "long" else 0.62)
        for side in (-1.0, 1.0):
            ear, _ = self.project(np.array([[side * person.head[0] * 1.02, 0.02, -0.03]]))
            disc(picture, ear[0], 0.105 * self.scale + line, shaded(person.skin, OUTLINE))
            disc(picture, ear[0], 0.105 * self.scale, shaded(person.skin, 0.86))
        if person.hair_style == "bun":
            bun, _ = self.project(np.array([[0.0, -0.52, -0.22]]))
            disc(picture, bun[0], 0.2 * self.scale + line, shaded(person.hair, OUTLINE))
            disc(picture, bun[0], 0.2 * self.scale, person.hair)

    def draw(self, picture: Picture, mouth: float, blink: float) -> None:
        """The head itself."""
        texture = paint_head(self.person, round(mouth * (MOUTHS - 1)), blink > 0.5)
        line = 0.02 * self.scale
        skin = self._cast(np.array(self.person.head), np.zeros(3))
        skin.paint(picture, texture.skin, None, line, shaded(self.person.skin, OUTLINE))
        self._nose(picture)
        self._near_ear(picture)
        volume = _VOLUME.get(self.person.hair_style, 1.09)
        if self.person.hair_style != "bald":
            hair = self._cast(np.array(self.person.head) * volume, np.array([0.0, -0.02, -0.02]))
            hair.paint(picture, texture.hair, texture.hair_cover, line, shaded(self.person.hair, OUTLINE))

    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 around the face: brows to chin, cheek to cheek; pixels."""
        across, up = np.meshgrid(np.linspace(-1.2, 1.2, 9), np.linspace(-1.45, 0.75, 9))
        places, depth = self.project(self.on_skin(across.ravel(), up.ravel()))
        seen = places[depth > -0.05]
        if not len(seen):
            return np.nan, np.nan, np.nan, np.nan
        (x0, y0), (x1, y1) = seen.min(axis=0), seen.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    def faces_us(self) -> bool:
        """Whether both eyes or at least most of one cheek can be seen."""
        return abs(self.angles[0]) < 1.25

    def _falling_hair(self, picture: Picture, length: float) -> None:
        across = self.person.head[0] * 1.16
        places = np.array(
            [
                [-across, -0.1, -0.2],
                [across, -0.1, -0.2],
                [across * 0.9, length, -0.25],
                [-across * 0.9, length, -0.25],
            ]
        )
        corners, _ = self.project(places)
        line = 0.02 * self.scale
        colour = shaded(self.person.hair, 0.82)
        for grow, shade in ((line, shaded(self.person.hair, OUTLINE)), (0.0, colour)):
            middle = corners.mean(axis=0)
            spread = (
                corners + (corners - middle) / np.linalg.norm(corners - middle, axis=1, keepdims=True) * grow
            )
            polygon(picture, spread, shade)
            for corner in corners[2:]:
                disc(picture, corner * 0.85 + middle * 0.15, 0.16 * self.scale + grow, shade)

    def _nose(self, picture: Picture) -> None:
        length, width = self.person.nose
        front = self.person.head[2]
        ends = np.array(
            [[0, 0.02 - length * 0.2, front * 0.97], [0, 0.02 + length * 0.72, front + 0.05 + width * 0.4]]
        )
        (bridge, tip), _ = self.project(ends)
        shadow, skin = shaded(self.person.skin, 0.72), self.person.skin
        low = np.array([0, 0.25 * width]) * self.scale
        ellipse(picture, tip + low, (1.12 * width * self.scale, 0.75 * width * self.scale), 0, shadow)
        limb_width = width * self.scale
        polygon_side = np.array([0.45 * limb_width, 0])
        polygon(
            picture,
            [
                bridge - polygon_side * 0.6,
                bridge + polygon_side * 0.6,
                tip + polygon_side,
                tip - polygon_side,
            ],
            shaded(skin, 0.93),
        )
        ellipse(picture, tip, (width * self.scale, 0.72 * width * self.scale), 0, shaded(skin, 0.97))

    def _near_ear(self, picture: Picture) -> None:
        for side in (-1.0, 1.0):
            ear, depth = self.project(np.array([[side * self.person.head[0], 0.04, -0.05]]))
            if depth[0] > 0.12:
                size = 0.1 * self.scale
                limb(
                    picture,
                    ear[0] - [0, 0.3 * size],
                    ear[0] + [0, 0.4 * size],
                    size,
                    0.7 * size,
                    self.person.skin,
                    0.016 * self.scale,
                )

    def _cast(self, radii: Array, offset: Array) -> _Cast:
        reach = int(np.ceil(self.scale * (radii.max() + 0.08) * 1.05))
        start = np.floor(self.centre).astype(int) - reach
        ys, xs = np.mgrid[0 : 2 * reach, 0 : 2 * reach]
        pixels = (np.stack([xs, ys], axis=-1) + 0.5 + (start - self.centre)).astype(np.float32)
        c, s = np.cos(self.angles[2]), np.sin(self.angles[2])
        across = (c * pixels[..., 0] + s * pixels[..., 1]) / self.scale
        down = (-s * pixels[..., 0] + c * pixels[..., 1]) / self.scale
        across = across / self._narrowing(down)
        turn = rotation(self.angles[0], self.angles[1], 0).astype(np.float32)
        middle = turn @ offset.astype(np.float32)
        radii = radii.astype(np.float32)
        across, down = across - middle[0], down - middle[1]
        m = turn @ np.diag(radii**-2.0) @ turn.T
        half = (m[0, 2] * across + m[1, 2] * down) / m[2, 2]
        rest = (m[0, 0] * across**2 + 2 * m[0, 1] * across * down + m[1, 1] * down**2 - 1) / m[2, 2]
        inside = half**2 - rest
        hit = inside >= 0
        depth = -half + np.sqrt(np.where(hit, inside, 0))
        own = np.stack([across, down, depth], axis=-1) @ turn / radii
        normal = (own / radii) @ turn.T
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
        longitude = np.arctan2(own[..., 0], own[..., 2])
        latitude = -np.arcsin(np.clip(own[..., 1], -1, 1))
        return _Cast(
            start, hit, longitude, latitude, 0.80 + 0.26 * np.clip(normal @ LIGHT.astype(np.float32), 0, 1)
        )


@dataclass(frozen=True, eq=False)
class _Cast:
    """What the rays of a square hit: its first pixel, where, at which place of the map, and the light there."""

    start: NDArray[np.int_]
    hit: NDArray[np.bool_]
    longitude: Array
    latitude: Array
    light: Array

    def paint(
        self, picture: Picture, texture: Picture, cover: Picture | None, line: float, edge: tuple
    ) -> None:
        """Paint a map, where `cover` allows it, with an outline of `line` pixels."""
        (x, y), (height, width) = self.start, self.hit.shape
        x0, y0, x1, y1 = (
            max(x, 0),
            max(y, 0),
            min(x + width, picture.shape[1]),
            min(y + height, picture.shape[0]),
        )
        if x0 >= x1 or y0 >= y1:
            return
        inner = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        columns, rows = (
            part.astype(np.float32) for part in texel(self.longitude[inner], self.latitude[inner])
        )
        colours = cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = self.hit[inner].astype(np.uint8) * 255
        if cover is not None:
            mask = np.minimum(
                mask, cv2.remap(cover, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            )
        colours = np.clip(colours * self.light[inner][..., None], 0, 255)
        target = picture[y0:y1, x0:x1]
        size = 2 * max(1, round(line)) + 1
        rim = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
        for part, colour in ((rim, np.array(rgb(edge))), (mask, colours)):
            share = part[..., None] / 255.0
            target[:] = np.round(target + share * (colour - target)).astype(np.uint8)

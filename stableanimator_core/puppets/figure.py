"""A dressed body, painted from the farthest part to the nearest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .body import Body
from .head import Head
from .look import Colour, Outfit, Person, shaded
from .motion import Pose
from .paint import OUTLINE, Picture, capsule, disc, limb, polygon, rgb

Array = NDArray[np.float64]

UPPER_ARM, FOREARM, WRIST = 0.155, 0.125, 0.09
THIGH, KNEE, ANKLE = 0.215, 0.165, 0.115
HAND, FOOT = 0.125, 0.12
LINE = 0.02
TEXTURE = 128


@dataclass(frozen=True, eq=False)
class Figure:
    """Somebody in a pose, seen by a camera.

    Attributes:
        person, outfit, pose, body: who, dressed how, doing what.
        scale: pixels per head; `origin`: [2] pixel of the resting pelvis.
    """

    person: Person
    outfit: Outfit
    pose: Pose
    body: Body
    scale: float
    origin: Array

    def pixels(self, points: Array) -> Array:
        """Places [... 3] to pixels [... 2]; parallel rays."""
        return points[..., :2] * self.scale + self.origin

    @property
    def head(self) -> Head:
        yaw, pitch, roll = (float(angle) for angle in self.pose.head)
        return Head(self.person, (yaw, pitch, roll), self.pixels(self.body.head), self.scale)

    def hand(self, side: int) -> Array:
        """[3] the middle of a hand: right 0, left 1."""
        elbow, wrist = self.body.arms[side, 1:]
        return wrist + (wrist - elbow) / np.linalg.norm(wrist - elbow) * HAND * 0.8

    def paint(self, picture: Picture) -> None:
        """Paint the figure over the picture."""
        head = self.head
        parts: list[tuple[float, Callable[[], None]]] = [
            (-0.35, lambda: head.draw_behind(picture)),
            (0.0, lambda: self._torso(picture)),
            (0.12, lambda: head.draw(picture, self.pose.mouth, self.pose.blink)),
        ]
        for side in (0, 1):
            shoulder, elbow, wrist = self.body.arms[side]
            behind = wrist[2] < -0.15 and elbow[2] < 0.05
            above = max(0.0, float(wrist[2])) * 0.5
            parts.append((-0.2 if behind else 0.05 + above * 0.2, lambda s=side: self._upper_arm(picture, s)))
            parts.append((-0.21 if behind else 0.13 + above, lambda s=side: self._forearm(picture, s)))
            parts.append(
                (-0.1 + 0.02 * float(self.body.legs[side, 1, 2]), lambda s=side: self._leg(picture, s))
            )
        if self.outfit.bottom == "skirt":
            parts.append((-0.03, lambda: self._skirt(picture)))
        for _, paint in sorted(parts, key=lambda part: part[0]):
            paint()

    def _limb(self, picture: Picture, a: Array, b: Array, radii: tuple[float, float], colour: Colour) -> None:
        thick = self.scale * self.person.girth
        limb(
            picture,
            self.pixels(a),
            self.pixels(b),
            radii[0] * thick,
            radii[1] * thick,
            colour,
            LINE * self.scale,
        )

    def _upper_arm(self, picture: Picture, side: int) -> None:
        shoulder, elbow, _ = self.body.arms[side]
        colour, bare = self.outfit.top_colour, self.person.skin
        if self.outfit.top == "vest":
            self._limb(picture, shoulder, elbow, (UPPER_ARM, FOREARM), bare)
        elif self.outfit.top == "t-shirt":
            middle = shoulder + 0.6 * (elbow - shoulder)
            self._limb(picture, shoulder, elbow, (UPPER_ARM * 0.9, FOREARM), bare)
            self._limb(picture, shoulder, middle, (UPPER_ARM * 1.05, UPPER_ARM), colour)
        else:
            self._limb(picture, shoulder, elbow, (UPPER_ARM * 1.05, FOREARM * 1.1), colour)

    def _forearm(self, picture: Picture, side: int) -> None:
        _, elbow, wrist = self.body.arms[side]
        hand, line = self.hand(side), LINE * self.scale
        disc(picture, self.pixels(hand), HAND * self.scale + line, shaded(self.person.skin, OUTLINE))
        disc(picture, self.pixels(hand), HAND * self.scale, shaded(self.person.skin, 0.97))
        sleeve = self.outfit.top in ("jumper", "jacket")
        colour = self.outfit.top_colour if sleeve else self.person.skin
        self._limb(picture, elbow, wrist, (FOREARM * (1.1 if sleeve else 1), WRIST), colour)
        if self.outfit.top == "jumper":
            cuff = elbow + 0.88 * (wrist - elbow)
            self._limb(picture, cuff, wrist, (WRIST * 1.08, WRIST * 1.08), self.outfit.second_colour)

    def _leg(self, picture: Picture, side: int) -> None:
        hip, knee, ankle = self.body.legs[side]
        bare, cloth = self.person.skin, self.outfit.bottom_colour
        toe = (
            ankle
            + self.body.turn[:, 2] * 0.28
            + np.array([0.0, 0.08, 0])
            + self.body.turn[:, 0] * (-0.05, 0.05)[side]
        )
        self._limb(picture, ankle, toe, (FOOT, FOOT * 0.85), self.outfit.shoes)
        lower = cloth if self.outfit.bottom == "trousers" else bare
        self._limb(picture, knee, ankle, (KNEE * 0.95, ANKLE), lower)
        self._limb(picture, hip, knee, (THIGH, KNEE), bare if self.outfit.bottom == "skirt" else cloth)

    def _skirt(self, picture: Picture) -> None:
        hips, knees = self.body.legs[:, 0], self.body.legs[:, 1]
        out = (hips[1] - hips[0]) * 0.35
        corners = np.stack(
            [
                hips[0] - out,
                hips[1] + out,
                knees[1] * 0.75 + hips[1] * 0.25 + out * 1.2,
                knees[0] * 0.75 + hips[0] * 0.25 - out * 1.2,
            ]
        )
        _outlined(picture, self.pixels(corners), self.outfit.bottom_colour, LINE * self.scale)

    def _torso(self, picture: Picture) -> None:
        outline = self.pixels(self._torso_outline())
        self._neck(picture)
        line = LINE * self.scale
        _outlined(picture, outline, self.outfit.top_colour, line)
        self._print(picture, outline)
        collar = self.body.neck - self.body.turn[:, 1] * 0.02 + self.body.turn[:, 2] * 0.1
        if self.outfit.top in ("vest", "t-shirt"):
            disc(picture, self.pixels(collar), 0.2 * self.scale, shaded(self.person.skin, 0.9))

    def _neck(self, picture: Picture) -> None:
        low, high = (
            self.body.neck + self.body.turn[:, 1] * 0.1,
            self.body.head + self.body.head_turn[:, 1] * 0.25,
        )
        capsule(
            picture,
            self.pixels(low),
            self.pixels(high),
            0.19 * self.scale,
            0.17 * self.scale,
            shaded(self.person.skin, 0.75),
        )

    def _torso_outline(self) -> Array:
        """[n 3] round the torso, whose depth keeps it wide when it is turned."""
        body, person = self.body, self.person
        across, down = body.turn[:, 0].copy(), body.turn[:, 1]
        facing = abs(across[0])
        side = np.array([np.sign(across[0]) or 1.0, across[1], 0.0])

        def wide(half: float, deep: float) -> float:
            return float(np.hypot(half * facing, deep * np.sqrt(max(0.0, 1 - facing**2))))

        rows = (
            (-0.07, 0.24, 0.2),
            (0.02, person.shoulders * 0.82, 0.24),
            (0.14, person.shoulders + 0.08, 0.28),
            (0.45, person.shoulders * 0.86 + 0.04, 0.34),
            (0.95, (person.shoulders * 0.45 + person.hips * 0.5) * person.girth**0.7, 0.32 * person.girth),
            (person.torso, person.hips + 0.16 * person.girth, 0.32),
            (person.torso + 0.16, person.hips + 0.14 * person.girth, 0.3),
        )
        middle = [body.neck + down * row[0] for row in rows]
        widths = [wide(row[1], row[2]) for row in rows]
        left = [m - side * w for m, w in zip(middle, widths, strict=True)]
        right = [m + side * w for m, w in zip(middle, widths, strict=True)]
        return np.array(left + right[::-1])

    def _print(self, picture: Picture, outline: Array) -> None:
        """The pattern of the top, wrapped round the torso."""
        body = self.body
        top, bottom = self.pixels(body.neck), self.pixels(body.pelvis + body.turn[:, 1] * 0.16)
        across = body.turn[:2, 0] * self.scale * (self.person.shoulders + 0.1)
        shift = body.turn[:2, 2] * self.scale * 0.3
        start = np.array([[0, 0], [TEXTURE, 0], [0, TEXTURE]], np.float32)
        goal = np.array([top + shift - across, top + shift + across, bottom + shift - across], np.float32)
        x0, y0 = np.maximum(np.floor(outline.min(axis=0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 1, picture.shape[1::-1])
        if x0 >= x1 or y0 >= y1:
            return
        matrix = cv2.getAffineTransform(start, goal - np.array([x0, y0], np.float32))
        size = (int(x1 - x0), int(y1 - y0))
        cloth = cv2.warpAffine(
            top_texture(self.outfit), matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        mask = np.zeros(size[::-1], np.uint8)
        polygon_mask = np.round((outline - [x0, y0]) * 16).astype(np.int32)
        cv2.fillPoly(mask, [polygon_mask], 255, cv2.LINE_AA, 4)
        light = np.linspace(1.04, 0.86, size[0])[None, :, None]
        target = picture[y0:y1, x0:x1]
        share = mask[..., None] / 255.0
        target[:] = np.clip(np.round(target + share * (cloth * light - target)), 0, 255).astype(np.uint8)


def _outlined(picture: Picture, corners: Array, colour: Colour, line: float) -> None:
    polygon(picture, corners, colour)
    points = np.round(corners * 16).astype(np.int32)
    cv2.polylines(picture, [points], True, rgb(shaded(colour, OUTLINE)), max(1, round(line)), cv2.LINE_AA, 4)


@lru_cache(maxsize=256)
def top_texture(outfit: Outfit) -> Picture:
    """The cloth of the top seen from the front, uint8 [128 128 3]."""
    cloth = np.empty((TEXTURE, TEXTURE, 3), np.uint8)
    cloth[:] = rgb(outfit.top_colour)
    cloth[_pattern(outfit.pattern) > 0] = rgb(outfit.second_colour)
    if outfit.top == "jacket":
        middle = TEXTURE // 2
        cloth[:, middle - 16 : middle + 16] = rgb(outfit.second_colour)
        cloth[:, middle - 1 : middle + 2] = rgb(shaded(outfit.second_colour, 0.6))
    return cloth


def _pattern(name: str) -> Picture:
    """Where the second colour is, uint8 [128 128]."""
    cover, step = np.zeros((TEXTURE, TEXTURE), np.uint8), TEXTURE // 8
    rows, columns = np.indices(cover.shape) // step
    stripes = {
        "stripes": rows % 2,
        "pinstripes": np.indices(cover.shape)[1] % step // 11,
        "checks": (rows // 2 + columns // 2) % 2,
        "halves": rows // 4,
    }
    if name in stripes:
        cover[:] = stripes[name]
    elif name == "dots":
        for row in range(step, TEXTURE, 2 * step):
            for column in range(step, TEXTURE, 2 * step):
                cv2.circle(cover, (column, row), 8, 1, -1)
    elif name == "badge":
        cv2.circle(cover, (TEXTURE // 2, TEXTURE // 3), 20, 1, -1)
    return cover

"""The exact skeleton of a figure, as a pose network would report it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..pose import people
from .figure import Figure
from .head import Head

Array = NDArray[np.float64]


def keypoints(figure: Figure, size: int, *, hands: bool = True) -> people.Person:
    """Joints, face and hands in fractions of a square picture of `size` pixels; what lies outside is absent."""
    body, head = figure.body, figure.head
    places = np.zeros((18, 2))
    seen = np.ones(18, dtype=bool)
    places[1] = figure.pixels(body.arms[:, 0].mean(axis=0))
    for side, (arm, leg) in enumerate(((2, 8), (5, 11))):
        places[arm : arm + 3] = figure.pixels(body.arms[side])
        places[leg : leg + 3] = figure.pixels(body.legs[side])
    for joint, (place, depth) in _head_joints(head).items():
        places[people.JOINT[joint]] = place
        seen[people.JOINT[joint]] = depth > -0.12
    face, face_seen = _face(head)
    parts = {"body": _part(places, seen, size), "face": _part(face, face_seen, size)}
    for side, name in enumerate(("right_hand", "left_hand")):
        shown = np.full(21, hands)
        parts[name] = _part(figure.pixels(_hand(figure, side)), shown, size)
    person = people.Person()
    for name, (points, scores) in parts.items():
        person = person.with_part(name, points, scores)
    return person


def _part(places: Array, seen: NDArray[np.bool_], size: int) -> tuple[Array, Array]:
    """Pixels to fractions, and scores; what is not seen or not in the picture is absent."""
    points = places / size
    there = seen & ((points > 0) & (points < 1)).all(axis=1)
    return np.where(there[:, None], points, 0.0), there.astype(np.float64)


def _head_joints(head: Head) -> dict[str, tuple[Array, float]]:
    person = head.person
    length, width = person.nose
    own = {"nose": np.array([0, 0.02 + length * 0.72, person.head[2] + 0.05 + width * 0.4])}
    for name, side in (("r", -1.0), ("l", 1.0)):
        eye = head.on_skin(np.array([side * person.eye_gap]), np.array([person.eye_height]))
        own[f"{name}_eye"] = eye[0]
        own[f"{name}_ear"] = np.array([side * person.head[0], 0.02, -0.03])
    places, depths = head.project(np.array(list(own.values())))
    return {name: (place, float(depth)) for name, place, depth in zip(own, places, depths, strict=True)}


def _face(head: Head) -> tuple[Array, NDArray[np.bool_]]:
    """The 68 points of the iBUG scheme: jaw, brows, nose, eyes, mouth."""
    person = head.person
    jaw = [(x, -0.05 - 0.95 * np.cos(x / 1.25 * np.pi / 2)) for x in np.linspace(-1.25, 1.25, 17)]
    brow_height = person.eye_height + person.eye_size + 0.12
    brows = [
        (side * person.eye_gap + step * person.eye_size * 1.35, brow_height)
        for side in (-1, 1)
        for step in np.linspace(-1, 1, 5)
    ]
    nose = [(0.0, y) for y in np.linspace(person.eye_height, -0.22, 4)]
    nose += [(x * person.nose[1] * 2, -0.3) for x in np.linspace(-1, 1, 5)]
    turn = np.linspace(np.pi, -np.pi, 7)[:-1]
    eyes = [
        (
            side * person.eye_gap + np.cos(a) * person.eye_size,
            person.eye_height + np.sin(a) * person.eye_size * 0.6,
        )
        for side in (-1, 1)
        for a in turn
    ]
    outer, inner = np.linspace(np.pi, -np.pi, 13)[:-1], np.linspace(np.pi, -np.pi, 9)[:-1]
    width, lips = person.mouth
    mouth = [
        (np.cos(a) * width * size, person.mouth_height + np.sin(a) * (lips + 0.02) * size)
        for angles, size in ((outer, 1.0), (inner, 0.7))
        for a in angles
    ]
    places = np.array(jaw + brows + nose + eyes + mouth)
    points, _ = head.project(head.on_skin(places[:, 0], places[:, 1]))
    return points.astype(np.float64), np.full(68, head.faces_us())


def _hand(figure: Figure, side: int) -> Array:
    """[21 3]: the wrist, then five fingers of four points, spread like a fan."""
    elbow, wrist = figure.body.arms[side, 1:]
    along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
    across = np.array([-along[1], along[0], 0.0]) * (1 if side else -1)
    points = [wrist]
    for spread in np.linspace(-0.7, 0.7, 5):
        finger = along * np.cos(spread) + across * np.sin(spread)
        points += [wrist + finger * 0.22 * reach for reach in (0.4, 0.65, 0.85, 1.0)]
    return np.array(points)

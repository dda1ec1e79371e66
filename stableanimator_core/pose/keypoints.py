"""POSE_KEYPOINT: reading and writing the OpenPose JSON that ComfyUI packs exchange.

Form: a list of frames, each {"people": [...], "canvas_width", "canvas_height"}; a person has
`pose_keypoints_2d`, `face_keypoints_2d`, `hand_left_keypoints_2d` and `hand_right_keypoints_2d`, each a flat
list of x, y, score or null. Sources: OpenPose's output format (CMU, doc/02_output.md) and what
controlnet_aux and ComfyUI's SDPose nodes write.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ..errors import InputError
from .people import BODY_JOINTS, JOINT, PART_SIZES, VISIBLE, Array, Clip, Frame, Person, is_absent

__all__ = [
    "BODY_JOINTS",
    "JOINT",
    "PART_SIZES",
    "VISIBLE",
    "Clip",
    "Frame",
    "Person",
    "is_absent",
    "load_pose_json",
    "parse_pose_keypoints",
    "save_pose_json",
    "to_pose_keypoints",
]

MAX_JSON_MIB = 256
MAX_FRAMES = 50_000
MAX_PEOPLE = 64
MAX_COORDINATE = 1e6
NORMALISED_LIMIT = 2.0
"""A clip whose every coordinate is below this is in fractions; a person is never two pixels tall."""

_KEYS = {
    "body": "pose_keypoints_2d",
    "face": "face_keypoints_2d",
    "left_hand": "hand_left_keypoints_2d",
    "right_hand": "hand_right_keypoints_2d",
}
_BODY_25 = [*range(8), *range(9, 19)]  # OpenPose's 25-joint body has the mid hip as joint 8 and feet after 18
_BODY_ROWS = {18: [*range(18)], 20: [*range(18)], 24: [*range(18)], 25: _BODY_25}  # 20 and 24: 18 and feet
_FORM = "use OpenPose JSON as DWPose nodes write it, a list of frames"
_EXPECTED = {"body": (18, 20, 24, 25), "face": (68, 70), "left_hand": (21,), "right_hand": (21,)}


def parse_pose_keypoints(
    data: Any, what: str = "pose keypoints", *, canvas: tuple[int, int] | None = None
) -> Clip:
    """POSE_KEYPOINT in any of its variants -> frames with points as fractions.

    Taken: a list of frames or one frame; a JSON string or bytes; pixels or fractions (decided over the whole
    clip); parts that are null, empty or left out; 68 or 70 face points; OpenPose's 18 or 25 joints, or 18 and
    feet. People without a single point are dropped.

    Args:
        data: the frames.
        what: how the user knows the input, for messages.
        canvas: (width, height) in pixels, for files that do not say their own.

    Raises:
        InputError: not this form, truncated, too large, not human, or a value that is no finite number; frame
            (counted from 0) and part are named.
    """
    entries = _frame_dicts(_decoded(data, what), what)
    raw = [_raw_people(entry, f"{what}, frame {number}") for number, entry in enumerate(entries)]
    sizes = _canvas_sizes(entries, what, canvas)
    unit = _is_normalised(raw)
    return [
        Frame(tuple(_person(parts, (1, 1) if unit else size) for parts in people), *size)
        for people, size in zip(raw, sizes, strict=True)
    ]


def to_pose_keypoints(frames: Sequence[Frame], *, whole_scores: bool = False) -> list[dict[str, Any]]:
    """Frames -> POSE_KEYPOINT with pixel coordinates, rounded to 1/1000 pixel, and scores to 1/10,000.

    Args:
        frames: the clip.
        whole_scores: write scores as 1 (above 0.3) or absent. controlnet_aux's renderers ignore every point
            with a score under 1; ours want the real ones.
    """
    return [
        {
            "people": [_person_dict(person, frame.size, whole_scores) for person in frame.people],
            "canvas_height": frame.height,
            "canvas_width": frame.width,
        }
        for frame in frames
    ]


def load_pose_json(path: str | Path, *, canvas: tuple[int, int] | None = None) -> Clip:
    """The frames of a POSE_KEYPOINT file; see `parse_pose_keypoints`.

    Raises:
        InputError: no such file, unreadable, too large, or not this form.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        _check_size(size, path.name)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            path.name, f"cannot be read ({error.strerror})", "choose an existing JSON file"
        ) from error
    return parse_pose_keypoints(data, path.name, canvas=canvas)


def save_pose_json(path: str | Path, frames: Sequence[Frame]) -> None:
    """Write the frames as POSE_KEYPOINT; the file appears whole or not at all."""
    path = Path(path)
    text = json.dumps(to_pose_keypoints(frames), separators=(",", ":"))
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _check_size(num_bytes: int, what: str) -> None:
    if num_bytes > MAX_JSON_MIB << 20:
        raise InputError(
            what,
            f"is {num_bytes / 2**20:.0f} MiB, the limit is {MAX_JSON_MIB} MiB",
            "split the clip",
        )


def _decoded(data: Any, what: str) -> Any:
    if not isinstance(data, (str, bytes, bytearray)):
        return data
    _check_size(len(data), what)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(
            what, f"is not complete JSON ({error})", "save the file again; it may have been cut short"
        ) from error


def _frame_dicts(data: Any, what: str) -> list[Mapping[str, Any]]:
    entries = [data] if isinstance(data, Mapping) else data
    if not isinstance(entries, (list, tuple)):
        raise InputError(
            what, f"is a {type(data).__name__}, not frames of keypoints", "connect a POSE_KEYPOINT"
        )
    if not entries:
        raise InputError(what, "holds no frames", "give at least one frame")
    if len(entries) > MAX_FRAMES:
        raise InputError(what, f"has {len(entries)} frames, the limit is {MAX_FRAMES}", "split the clip")
    for number, entry in enumerate(entries):
        where = f"{what}, frame {number}"
        if not isinstance(entry, Mapping):
            raise InputError(where, f"is a {type(entry).__name__}, not a frame", _FORM)
        if "animals" in entry or "ap10k" in str(entry.get("version", "")).lower():
            raise InputError(where, "holds animal poses (AP10K)", "use a detector for people, such as DWPose")
        if "people" not in entry:
            raise InputError(where, 'has no "people"', _FORM)
    return list(entries)


def _raw_people(entry: Mapping[str, Any], where: str) -> list[dict[str, Array]]:
    """Per person: part -> [n 3] numbers as written; people without any point are left out."""
    people = entry["people"] or []
    if not isinstance(people, (list, tuple)):
        raise InputError(where, f'"people" is a {type(people).__name__}', "it must be a list")
    if len(people) > MAX_PEOPLE:
        raise InputError(where, f"has {len(people)} people, the limit is {MAX_PEOPLE}", "crop the video")
    found = []
    for number, person in enumerate(people):
        name = where if len(people) == 1 else f"{where}, person {number}"
        if not isinstance(person, Mapping):
            raise InputError(name, f"is a {type(person).__name__}", _FORM)
        parts = {part: _triples(person.get(key), part, f"{name}, {key}") for part, key in _KEYS.items()}
        if any(values.any() for values in parts.values()):
            found.append(parts)
    return found


def _triples(values: Any, part: str, where: str) -> Array:
    """[n 3] x, y, score of one part, zeros if it is missing."""
    expected = _EXPECTED[part]
    if values is None or (isinstance(values, (list, tuple)) and not values):
        return np.zeros((expected[0], 3))
    if not isinstance(values, (list, tuple)):
        raise InputError(where, f"is a {type(values).__name__}", "it must be a flat list of x, y, score")
    if len(values) not in [3 * count for count in expected]:
        allowed = " or ".join(str(3 * count) for count in expected)
        animal = ", which is the 17-joint order of COCO or of animals" if len(values) == 51 else ""
        raise InputError(where, f"has {len(values)} numbers{animal}", f"it must have {allowed}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(where, f"holds {value!r:.40}, not a number", "save the file again")
        if not abs(value) <= MAX_COORDINATE:  # also true for NaN
            shown = "an endless number" if isinstance(value, int) else repr(value)
            raise InputError(where, f"holds {shown}", f"keep values within {MAX_COORDINATE:.0f}")
    return np.array(values, dtype=np.float64).reshape(-1, 3)


def _canvas_sizes(
    entries: list[Mapping[str, Any]], what: str, canvas: tuple[int, int] | None
) -> list[tuple[int, int]]:
    """(width, height) of every frame; a frame that does not say takes its neighbours'."""
    sizes = [_canvas_size(entry, f"{what}, frame {number}") for number, entry in enumerate(entries)]
    known = next((size for size in sizes if size), canvas)
    if known is None:
        raise InputError(
            what,
            'says no canvas size ("canvas_width", "canvas_height")',
            "give the width and height of the video the poses come from",
        )
    return [known := (size or known) for size in sizes]


def _canvas_size(entry: Mapping[str, Any], where: str) -> tuple[int, int] | None:
    size = []
    for key in ("canvas_width", "canvas_height"):
        value = entry.get(key)
        if value is None or value == 0:
            return None
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not 1 <= value <= 100_000:
            raise InputError(where, f'"{key}" is {value!r:.40}', "it must be the width or height in pixels")
        size.append(round(value))
    return None if max(size) <= 1 else (size[0], size[1])


def _is_normalised(raw: list[list[dict[str, Array]]]) -> bool:
    values = [np.abs(part[:, :2]).max() for people in raw for parts in people for part in parts.values()]
    return bool(values) and max(values) <= NORMALISED_LIMIT


def _person(parts: dict[str, Array], size: tuple[int, int]) -> Person:
    scaled = {name: values / [*size, 1] for name, values in parts.items()}
    scaled["body"] = scaled["body"][_BODY_ROWS[len(scaled["body"])]]
    person = Person()
    for name, values in scaled.items():
        wanted = values[: PART_SIZES[name]]
        person = person.with_part(name, wanted[:, :2], wanted[:, 2])
    if len(scaled["face"]) == 70:
        pupils = scaled["face"][68:]
        person = replace(person, pupils=pupils[:, :2], pupils_score=pupils[:, 2])
    return person


def _person_dict(person: Person, size: Array, whole_scores: bool) -> dict[str, list[float] | None]:
    written = {}
    for name, key in _KEYS.items():
        values = _written(person, name, size, whole_scores)
        if name == "face" and person.pupils_score.any():
            values = np.concatenate([values, _written(person, "pupils", size, whole_scores)])
        written[key] = values.ravel().tolist() if values.any() else None
    return written


def _written(person: Person, name: str, size: Array, whole_scores: bool) -> Array:
    points, scores = person.part(name)
    values = np.column_stack([np.round(points * size, 3), np.round(scores, 4)])
    if whole_scores:
        seen = scores > VISIBLE
        values[seen, 2] = 1.0
        values[~seen] = 0.0
    return values

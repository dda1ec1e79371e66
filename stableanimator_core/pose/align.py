"""Lay a driving clip's skeletons over the person of the reference picture.

Modes: "official" (StableAnimator's own line fit, `DWPose/skeleton_extraction.py` @ 020e7f2), "robust"
(weighted medians), "similarity" (Umeyama 1991, with rotation), "limbs" (robust, then bone by bone), "none".
All but "official" work in pixels and so keep a figure's shape when clip and picture differ in aspect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from ..errors import InputError, NoPersonError
from .affine import (
    FIT_JOINTS,
    Affine,
    observe,
    official_fit,
    placed,
    robust_fit,
    similarity_fit,
    to_fractions,
)
from .fit_people import Numbered, fit_people, in_range, reference_person
from .limbs import bone_lengths, limb_ratios, retarget
from .misfit import Misfit, judge, unjudged
from .people import JOINT, PART_SIZES, Array, Frame, Person, is_absent

Mode = Literal["official", "robust", "similarity", "limbs", "none"]
MODES: tuple[str, ...] = get_args(Mode)
TILTED = 15.0  # degrees; a reference rarely leans more than this against the driver


@dataclass(frozen=True)
class AlignOptions:
    """How to align. Mode none looks at nothing else here.

    Attributes:
        mode: see the head of this file.
        strength: 0 leaves the clip where it was (placed whole into the reference's canvas), 1 aligns fully.
        first_frame: number of the first frame of the fit.
        last_frame: number of the last one, included; None for the end of the clip.
        lock_first_frame: move everything so that the first driven neck lies on the reference's neck.
        limb_cap: in limbs mode no bone grows or shrinks by more than this factor.
    """

    mode: Mode = "robust"
    strength: float = 1.0
    first_frame: int = 0
    last_frame: int | None = None
    lock_first_frame: bool = False
    limb_cap: float = 1.3

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError("alignment mode", f"is {self.mode!r}", f"use one of {', '.join(MODES)}")
        if not 0 <= self.strength <= 1:
            raise InputError("alignment strength", f"is {self.strength}", "use 0 (off) to 1 (full)")
        if not 1 <= self.limb_cap <= 4:
            raise InputError("limb_cap", f"is {self.limb_cap}", "use 1 (no change) to 4")


@dataclass(frozen=True, eq=False)
class AlignResult:
    """An aligned clip and how it was done.

    Attributes:
        frames: the clip on the reference's canvas; everybody in it is moved, hands and faces too.
        scale: [2] of the full alignment, x and y, fractions of the clip's canvas to the reference's.
        offset: [2] likewise.
        rotation: degrees, in pixels; 0 except in similarity mode.
        joints: body joints that the fit used.
        fit_frames: numbers of the frames that the fit used.
        misfit: how well it fits now.
        messages: what a person should know, in words.
    """

    frames: list[Frame]
    scale: Array
    offset: Array
    rotation: float
    joints: tuple[int, ...]
    fit_frames: tuple[int, ...]
    misfit: Misfit
    messages: list[str] = field(default_factory=list)


def align(
    frames: Sequence[Frame],
    reference: Frame,
    options: AlignOptions | None = None,
    what: str = "driving poses",
) -> AlignResult:
    """The clip laid over the reference's first person.

    Frames with exactly one person make the fit; without any, the largest person of each frame does (not in
    official mode, which then cannot be done).

    Args:
        frames: the driving clip.
        reference: the pose found in the reference picture.
        options: how.
        what: how the user knows the clip, for messages.

    Raises:
        NoPersonError: nobody or too few joints in the reference, or in every frame of the fit (by number).
        InputError: an impossible range of frames, or canvases that change within the clip.
    """
    options = options or AlignOptions()
    if options.mode == "none":
        return _only_placed(frames, reference)
    person, official = reference_person(reference), options.mode == "official"
    chosen = in_range(frames, options.first_frame, options.last_frame, what)
    people, messages = fit_people(frames, chosen, person, official, what)
    size = frames[people[0][0]].size
    _check_canvases(frames, size, official, what)

    start = Affine(np.eye(2), np.zeros(2)) if official else placed(size, reference.size)
    fitted = _fit(people, size, person, reference, options.mode)
    change = _unchanged
    if options.mode == "limbs":
        change = _limb_change(people, fitted, person, reference, options.limb_cap, messages)
    if options.lock_first_frame:
        fitted = fitted.shifted(_lock_shift(frames, fitted, person, messages))

    def aligned(one: Person) -> Person:
        return _blend(one.moved(start), change(one.moved(fitted)), options.strength)

    rotation = _rotation(fitted, size, reference.size)
    messages += _fit_messages(fitted, rotation, len(reference.people))
    result = [_on_canvas(reference, [aligned(one) for one in frame.people]) for frame in frames]
    misfit = judge(result, [(number, aligned(one)) for number, one in people], reference)
    joints = tuple(joint for joint in FIT_JOINTS if person.visible[joint])
    used = tuple(number for number, _ in people)
    scale = _scale(fitted, rotation)
    return AlignResult(result, scale, fitted.offset, rotation, joints, used, misfit, messages)


def _check_canvases(frames: Sequence[Frame], size: Array, official: bool, what: str) -> None:
    if not official and any((frame.size != size).any() for frame in frames):
        raise InputError(what, "change their canvas size within the clip", "use frames of one video")


def _on_canvas(reference: Frame, people: Sequence[Person]) -> Frame:
    return Frame(tuple(people), reference.width, reference.height)


def _only_placed(frames: Sequence[Frame], reference: Frame) -> AlignResult:
    """The clip as it is, whole on the reference's canvas."""
    maps = [placed(frame.size, reference.size) for frame in frames]
    pairs = zip(frames, maps, strict=True)
    result = [_on_canvas(reference, [one.moved(move) for one in frame.people]) for frame, move in pairs]
    people = [(number, frame.people[0]) for number, frame in enumerate(result) if frame.people]
    misfit = judge(result, people, reference) if reference.people and people else unjudged(len(result))
    first = maps[0] if maps else placed(reference.size, reference.size)
    return AlignResult(result, np.diag(first.linear).copy(), first.offset, 0.0, (), (), misfit)


def _fit(people: Numbered, size: Array, person: Person, reference: Frame, mode: Mode) -> Affine:
    """The full alignment, in fractions."""
    if mode == "official":
        joints = [joint for joint in FIT_JOINTS if person.visible[joint]]
        driven = np.stack([one.body[joints] for _, one in people])
        known = np.stack([~is_absent(one.body, one.body_score)[joints] for _, one in people])
        return official_fit(driven, known, person.body[joints])
    seen = observe([one for _, one in people], size, person, reference.size)
    found = similarity_fit(seen) if mode == "similarity" else robust_fit(seen)
    return to_fractions(*found, size, reference.size)


def _unchanged(person: Person) -> Person:
    return person


def _limb_change(
    people: Numbered, fitted: Affine, person: Person, reference: Frame, cap: float, messages: list[str]
) -> Callable[[Person], Person]:
    moved = [one.moved(fitted) for _, one in people]
    ours, wanted = bone_lengths(moved, reference.size), bone_lengths([person], reference.size)
    ratios, notes = limb_ratios(ours, wanted, cap)
    messages += notes
    return lambda one: retarget(one, reference.size, ratios)


def _lock_shift(frames: Sequence[Frame], fitted: Affine, person: Person, messages: list[str]) -> Array:
    """[2] from the first driven root to the reference's, fractions."""
    for number, frame in enumerate(frames):
        for one in frame.people[:1]:
            for roots in ((JOINT["neck"],), (JOINT["r_hip"], JOINT["l_hip"]), FIT_JOINTS):
                both = [joint for joint in roots if person.visible[joint] and one.visible[joint]]
                if both and (len(both) == len(roots) or roots is FIT_JOINTS):
                    if number:
                        messages.append(f"locked on frame {number}, the first with a person")
                    return (person.body[both] - fitted(one.body[both])).mean(axis=0)
    raise NoPersonError("first-frame lock", "no frame has a joint to hold on to", "turn the lock off")


def _blend(start: Person, end: Person, strength: float) -> Person:
    """Each point on the way from `start` to `end`."""
    if strength == 1:
        return end
    parts = {name: (1 - strength) * start.part(name)[0] + strength * end.part(name)[0] for name in PART_SIZES}
    return replace(end, **parts)


def _rotation(fitted: Affine, size: Array, reference_size: Array) -> float:
    pixels = fitted.linear * reference_size[:, None] / size
    return float(np.degrees(np.arctan2(pixels[1, 0], pixels[0, 0]))) if pixels[1, 0] else 0.0


def _scale(fitted: Affine, rotation: float) -> Array:
    return np.diag(fitted.linear).copy() if not rotation else np.linalg.norm(fitted.linear, axis=0)


def _fit_messages(fitted: Affine, rotation: float, in_reference: int) -> list[str]:
    messages = []
    if in_reference > 1:
        messages.append(f"the reference shows {in_reference} people; the first is used")
    if fitted.linear[1, 1] <= 0 and not rotation:
        messages.append("the fit turns the figure upside down: use mode robust, or other frames")
    if abs(rotation) > TILTED:
        messages.append(f"the figure is tilted by {rotation:.0f} degrees: if that is wrong, use mode robust")
    return messages

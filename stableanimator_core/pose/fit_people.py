"""Who takes part in a fit: the person of the reference, and the driving person of each usable frame."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError, NoPersonError
from .affine import FIT_JOINTS
from .people import Frame, Mask, Person, is_absent

MIN_JOINTS = 2

Numbered = list[tuple[int, Person]]


def reference_person(reference: Frame) -> Person:
    """The reference's first person, who must show at least two of the fit's joints."""
    if not reference.people:
        raise NoPersonError(
            "reference picture", "shows nobody", "use a picture in which a person is clearly seen"
        )
    person = reference.people[0]
    seen = int(person.visible[list(FIT_JOINTS)].sum())
    if seen < MIN_JOINTS:
        raise NoPersonError(
            "reference picture",
            f"shows only {seen} of the {len(FIT_JOINTS)} joints alignment uses (head, shoulders, hips, legs)",
            "use a clearer picture of the person, or alignment mode none with a pose of your own",
        )
    return person


def in_range(frames: Sequence[Frame], first: int, last: int | None, what: str) -> range:
    """Numbers of the frames from `first` to `last`, None for the end of the clip."""
    if not frames:
        raise InputError(what, "hold no frames", "give at least one frame")
    end = len(frames) - 1
    if not 0 <= first <= (end if last is None else min(last, end)):
        raise InputError(
            "frames to fit on",
            f"are {first} to {'the end' if last is None else last}",
            f"the clip has frames 0 to {end}; choose a first and a last one within it",
        )
    return range(first, (end if last is None else min(last, end)) + 1)


def fit_people(
    frames: Sequence[Frame], chosen: range, reference: Person, official: bool, what: str
) -> tuple[Numbered, list[str]]:
    """The driving person of each frame that can take part in the fit."""
    single = [(n, frames[n].people[0]) for n in chosen if len(frames[n].people) == 1]
    several = [n for n in chosen if len(frames[n].people) > 1]
    nobody = [n for n in chosen if not frames[n].people]
    if official and not single:
        raise NoPersonError(
            what,
            f"have no frame with exactly one person: {_cases(several=several, nobody=nobody)}",
            "select one person of the clip first, or use another alignment mode",
        )
    candidates = single or [(n, max(frames[n].people, key=_area)) for n in several]
    if official:
        usable = [(n, one) for n, one in candidates if _known(one, reference).sum() >= MIN_JOINTS]
    else:
        usable = [(n, one) for n, one in candidates if _common(one, reference) >= MIN_JOINTS]
    if not usable:
        unseen = [n for n, _ in candidates]
        raise NoPersonError(
            what,
            f"have no frame to fit on: {_cases(nobody=nobody, unseen=unseen)}",
            "choose other frames to fit on, or a reference picture that shows the same parts of the body",
        )
    messages = [] if single else ["no frame shows exactly one person: fitted on the largest of each frame"]
    return usable, messages


def _cases(**numbers: list[int]) -> str:
    """Which case it is in which frames, for a message."""
    cases = {"several": "several people", "nobody": "nobody", "unseen": "too few of the reference's joints"}
    listed = [f"{cases[name]} in {frame_ranges(found)}" for name, found in numbers.items() if found]
    return "; ".join(listed)


def frame_ranges(numbers: Sequence[int]) -> str:
    """Frame numbers for reading: "0-3, 7, 9-12"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _area(person: Person) -> float:
    box = person.box()
    return (box[2] - box[0]) * (box[3] - box[1]) if box else 0.0


def _common(person: Person, reference: Person) -> int:
    return int((person.visible & reference.visible)[list(FIT_JOINTS)].sum())


def _known(person: Person, reference: Person) -> Mask:
    """[n] joints the reference shows and the driver has a place for, however doubtful: the official rule."""
    return (reference.visible & ~is_absent(person.body, person.body_score))[list(FIT_JOINTS)]

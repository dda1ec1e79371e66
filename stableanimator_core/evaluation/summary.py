"""From measures of clips to means, paired differences and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .judging import MEASURES, Measures
from .running import BOUNDS
from .statistics import Estimate, mean_with_interval, paired_difference
from .stored import Results

BASELINE = "full"
OTHER_PERSON = "other_person"
"""Row of the likeness that different people have: between a reference and the true frames of other clips."""

Row = dict[str, Estimate]
"""Measure -> estimate."""


@dataclass(frozen=True)
class Target:
    """Something promised: what, whether it holds (None if it was not measured), and what was found."""

    promise: str
    met: bool | None
    found: str

    @property
    def verdict(self) -> str:
        return {True: "met", False: "MISSED", None: "not measured"}[self.met]


@dataclass(frozen=True)
class Summary:
    """What the table shows.

    Attributes:
        means: system -> measure -> mean over its clips.
        differences: system -> measure -> mean difference to `BASELINE` over the clips that both have.
        gain: `BASELINE` less the copied reference.
        targets: the promises.
        clips: names of all clips.
    """

    means: dict[str, Row]
    differences: dict[str, Row]
    gain: Row
    targets: list[Target]
    clips: list[str]


def summarise(results: Results, faces: Mapping[str, Mapping[str, NDArray[Any]]] | None = None) -> Summary:
    """The summary of judged clips.

    Args:
        results: system -> clip -> measures.
        faces: clip -> identities in its true frames, for the row of other people.
    """
    others = other_people(faces or {})
    everything = {**results, **({OTHER_PERSON: others} if others else {})}
    means = {name: _means(clips) for name, clips in everything.items()}
    baseline = results.get(BASELINE, {})
    compared = [name for name in results if name not in (BASELINE, *BOUNDS) and baseline]
    differences = {name: compare(results[name], baseline) for name in compared}
    gain = compare(baseline, results.get("reference", {}))
    clips = sorted({clip for clips in results.values() for clip in clips})
    return Summary(means, differences, gain, targets(means, differences, gain), clips)


def compare(clips: Mapping[str, Measures], others: Mapping[str, Measures]) -> Row:
    """Paired differences, `clips` less `others`, over the clips in which both have a value."""
    row: Row = {}
    for name in MEASURES:
        pairs = [
            (a, b)
            for clip in sorted(clips.keys() & others.keys())
            if (a := clips[clip].get(name)) is not None and (b := others[clip].get(name)) is not None
        ]
        row[name] = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
    return row


def other_people(faces: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, Measures]:
    """For every clip the mean cosine of its reference to the true frames of all other clips."""
    result: dict[str, Measures] = {}
    for clip, own in faces.items():
        result[clip] = {}
        for name in ("csim", "csim_climbed"):
            strangers = [
                _mean_cosine(own[f"{name}_reference"], other[f"{name}_frames"])
                for key, other in faces.items()
                if key != clip and f"{name}_frames" in other and f"{name}_reference" in own
            ]
            result[clip][name] = float(np.nanmean(strangers)) if strangers else None
    return result if len(faces) > 1 else {}


def targets(means: Mapping[str, Row], differences: Mapping[str, Row], gain: Row) -> list[Target]:
    """The promises of the small model."""
    pose = means.get(BASELINE, {}).get("pose")
    found = [
        _at_least("full at least 3 dB above the copied reference", gain.get("psnr"), 3.0),
        _pose_target(pose),
    ]
    for name, words, sign in (
        ("no_adapter", "CSIM (judge): with the face branch above without it, p < 0.01", -1),
        ("other_face", "CSIM (judge): own face embedding above another person's, p < 0.01", -1),
        ("hjb_exact", "CSIM (judge): face optimisation (exact) above none, p < 0.01", 1),
        ("hjb_fast", "CSIM (judge): face optimisation (fast) above none, p < 0.01", 1),
    ):
        found.append(_significant(words, differences.get(name, {}).get("csim"), sign))
    return found


def _at_least(words: str, estimate: Estimate | None, least: float) -> Target:
    if estimate is None or not estimate.count:
        return Target(words, None, "")
    text = f"{estimate.mean:+.2f} dB, 95 % interval {estimate.low:+.2f} .. {estimate.high:+.2f}"
    return Target(words, estimate.mean >= least, text)


def _pose_target(estimate: Estimate | None) -> Target:
    words = "pose error of full at most 3 % of the height"
    if estimate is None or not estimate.count:
        return Target(words, None, "")
    mean, low, high = (100 * value for value in (estimate.mean, estimate.low, estimate.high))
    return Target(words, mean <= 3, f"{mean:.2f} %, 95 % interval {low:.2f} .. {high:.2f}")


def _significant(words: str, estimate: Estimate | None, sign: int) -> Target:
    """`estimate` is a variant less full; `sign` turns it into what is promised to be above 0."""
    if estimate is None or estimate.p is None:
        return Target(words, None, "")
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    text = f"{sign * estimate.mean:+.4f}, 95 % interval {low:+.4f} .. {high:+.4f}, p = {estimate.p:.2g}"
    return Target(words, sign * estimate.mean > 0 and estimate.p < 0.01, text)


def _means(clips: Mapping[str, Measures]) -> Row:
    return {
        name: mean_with_interval(
            [value for measures in clips.values() if (value := measures.get(name)) is not None]
        )
        for name in MEASURES
    }


def _mean_cosine(face: NDArray[Any], others: NDArray[Any]) -> float:
    """Mean cosine of a face [e] to others [f e], rows of NaN left out."""
    seen = others[np.isfinite(others).all(axis=1)]
    lengths = np.linalg.norm(seen, axis=1) * np.linalg.norm(face)
    return float((seen @ face / lengths).mean()) if len(seen) else np.nan

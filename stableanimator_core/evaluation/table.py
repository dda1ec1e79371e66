"""The summary as table.md, for people, and table.json, for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .judging import MEASURES
from .statistics import Estimate
from .summary import BASELINE, OTHER_PERSON, Row, Summary

MAIN = ("psnr", "ssim", "features", "pose", "csim", "csim_climbed")
"""Measures of the first tables; the others follow."""
NOTES = (
    "Means over clips; every clip is another drawn person of a seed that no network was trained on, animated from "
    "one of the clip's own frames outside the judged ones, the most face-on of eight. In brackets: 95 % bootstrap "
    "interval (BCa). p: two-sided sign-flip test of the paired differences. All versions share clips and noise.",
    "CSIM: mean cosine between face embeddings, faces cut out at their true places. The judge is an ArcFace of "
    "another seed, depth and width than the recogniser that gives the identity and that the face optimisation climbs; "
    "nothing is optimised or chosen with the judge.",
    "Pose error: mean distance between the joints that a small network finds and the true ones that lie in the "
    "picture, as share of the standing height; the row of the truth is the network's own error. The height is the "
    "scale (the largest ratio of a limb's length in the picture to its own length) times the person's proportions.",
    "Feature distance: like LPIPS, unit-length features compared place by place, here of the small VAE's encoder and "
    "without learned weights. GMSD: gradient magnitude similarity deviation. PSNR, SSIM: mean over frames.",
    "Every fifth clip moves as one of two recorded people (a man jumping, a woman walking), the others as generated. "
    "The face optimisation is told where the faces are by the skeletons, not by the truth.",
)


def write_table(folder: Path, summary: Summary, setup: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Write table.md and table.json, which says of itself what its rows and measures are, into `folder`.

    Args:
        folder: where.
        summary: see `summarise`.
        setup: what the run was made with, shown as it is.
        names: system -> description, in the order of the rows; systems that are not here come last.
    """
    (folder / "table.md").write_text(markdown(summary, setup, names), encoding="utf-8")
    measures = {key: {**asdict(MEASURES[key]), "main": key in MAIN} for key in MEASURES}
    content = {"setup": dict(setup), "rows": dict(names), "measures": measures, **asdict(summary)}
    text = json.dumps(_numbers(content), indent=1)
    (folder / "table.json").write_text(text + "\n", encoding="utf-8")


def markdown(summary: Summary, setup: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Targets, means, differences and notes."""
    missed = [target for target in summary.targets if target.met is False]
    head = "All measured targets are met."
    if missed:
        head = f"{len(missed)} of {len(summary.targets)} targets are MISSED."
    lines = ["# Evaluation", "", f"{len(summary.clips)} clips. {head}", ""]
    lines += ["| target | found | |", "|---|---|---|"]
    lines += [f"| {t.promise} | {t.found} | {t.verdict} |" for t in summary.targets]
    order = [*names, *(name for name in [*summary.means, OTHER_PERSON] if name not in names)]
    gain = {f"{BASELINE} less reference": summary.gain}
    compared = [name for name in order if name != "reference"]
    for title, keys in (("", MAIN), (", other measures", [key for key in MEASURES if key not in MAIN])):
        lines += ["", f"## Means{title}", "", *_table(summary.means, order, keys, _with_interval)]
        lines += ["", f"## Paired differences to {BASELINE}{title}", ""]
        lines += _table(summary.differences, compared, keys, _with_p)
        lines += [
            "",
            f"## Gain over copying the reference{title}",
            "",
            *_table(gain, list(gain), keys, _with_p),
        ]
    lines += ["", "## What the rows are", ""]
    lines += [f"- `{name}`: {names.get(name, '')}" for name in dict.fromkeys(order) if name in summary.means]
    lines += ["", "## How it was measured", "", *(f"- {note}" for note in NOTES)]
    lines += ["- Setup: " + ", ".join(f"{key} {value}" for key, value in setup.items()) + ".", ""]
    return "\n".join(lines)


def _table(
    rows: Mapping[str, Row], order: Sequence[str], keys: Sequence[str], cell: Callable[[str, Estimate], str]
) -> list[str]:
    heads = [f"{MEASURES[key].label} {'↑' if MEASURES[key].higher_is_better else '↓'}" for key in keys]
    lines = [f"| | clips | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for name in dict.fromkeys(order):
        if name in rows:
            count = max(estimate.count for estimate in rows[name].values())
            cells = [cell(key, rows[name][key]) for key in keys]
            lines.append(f"| `{name}` | {count} | {' | '.join(cells)} |")
    return lines


def _with_interval(key: str, estimate: Estimate, signed: bool = False) -> str:
    if not estimate.count or not np.isfinite(estimate.mean):
        return "–"
    low, mean, high = (
        MEASURES[key].text(value, signed=signed) for value in (estimate.low, estimate.mean, estimate.high)
    )
    return mean if low == high == mean else f"{mean} ({low} .. {high})"


def _with_p(key: str, estimate: Estimate) -> str:
    text = _with_interval(key, estimate, signed=True)
    return text if estimate.p is None else f"{text}, p {estimate.p:.2g}"


def _numbers(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_numbers(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

"""Settings chosen on people of their own, neither those of training nor those of the test.

The judge takes no part: a network that settings are chosen by could not judge them afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from ..errors import InputError
from ..models.unet import AdapterOptions
from .judging import MEASURES
from .networks import Networks
from .stored import Results
from .summary import summarise
from .systems import Settings, StableAnimator, System

AXES = ("steps", "guidance", "strength", "hjb_rate", "hjb_iterations")
TOLERANCE_DB = 0.3
"""Among settings at most this much below the best PSNR the one with the highest likeness is proposed."""
COLUMNS = ("psnr", "face_psnr", "ssim", "features", "pose", "csim_climbed", "csim_climbed_truth")


def parse_axes(words: Sequence[str]) -> dict[str, list[float]]:
    """["guidance=1,2,3", "steps=15,25"] to axes and their values.

    Raises:
        InputError: another form, or an unknown axis.
    """
    axes: dict[str, list[float]] = {}
    for word in words:
        name, _, values = word.partition("=")
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError:
            numbers = []
        if name not in AXES or not numbers:
            remedy = f"give for example guidance=1,2,3; axes are {', '.join(AXES)}"
            raise InputError("--sweep", f"{word!r} is not understood", remedy)
        axes[name] = numbers
    return axes


def sweep_systems(
    axes: Mapping[str, Sequence[float]], networks: Networks, settings: Settings
) -> list[System]:
    """The model with every combination of the values; with an axis of HJB also with the face optimisation."""
    return [
        _system(dict(zip(axes, values, strict=True)), networks, settings)
        for values in product(*axes.values())
    ]


def _system(values: Mapping[str, float], networks: Networks, settings: Settings) -> System:
    options, hjb = settings.animation, None
    if "steps" in values:
        options = replace(options, num_steps=int(values["steps"]))
    if "guidance" in values:
        options = replace(options, guidance=(values["guidance"], values["guidance"]))
    if "strength" in values:
        options = replace(options, adapter=AdapterOptions(values["strength"], options.adapter.alignment))
    if "hjb_rate" in values or "hjb_iterations" in values:
        hjb = replace(
            settings.hjb,
            learning_rate=values.get("hjb_rate", settings.hjb.learning_rate),
            iterations=int(values.get("hjb_iterations", settings.hjb.iterations)),
        )
    name = "_".join(f"{key}{value:g}" for key, value in values.items())
    return StableAnimator(name, networks, options, hjb)


def proposal(results: Results) -> str | None:
    """The name of the settings to take, see `TOLERANCE_DB`; None without results."""
    means = summarise(results).means
    scored = {
        name: (row["psnr"].mean, row["csim_climbed"].mean)
        for name, row in means.items()
        if row["psnr"].count and row["csim_climbed"].count
    }
    if not scored:
        return None
    best = max(psnr for psnr, _ in scored.values())
    good = [name for name, (psnr, _) in scored.items() if psnr >= best - TOLERANCE_DB]
    return max(good, key=lambda name: scored[name][1])


def sweep_markdown(results: Results) -> str:
    """The means of all settings, best PSNR first, and the proposal."""
    means = summarise(results).means
    names = sorted(means, key=lambda name: -means[name]["psnr"].mean)
    lines = [
        "| | " + " | ".join(MEASURES[key].label for key in COLUMNS) + " |",
        "|---" * (1 + len(COLUMNS)) + "|",
    ]
    for name in names:
        cells = [MEASURES[key].text(means[name][key].mean) for key in COLUMNS]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    count = max((len(clips) for clips in results.values()), default=0)
    rule = f"highest CSIM by the recogniser among those within {TOLERANCE_DB} dB of the best PSNR"
    return "\n".join([f"{count} validation clips. Proposed: `{proposal(results)}` ({rule}).", "", *lines, ""])

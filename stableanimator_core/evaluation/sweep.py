"""Settings chosen on people of their own, neither those of training nor those of the test.

The judge takes no part: a network that settings are chosen by could not judge them afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from ..errors import InputError
from ..models.unet import AdapterOptions
from .anyone import AnyoneSystem
from .judging import MEASURES
from .networks import Networks
from .stored import Results
from .summary import summarise
from .systems import Settings, StableAnimator, System, build_systems

AXES = ("steps", "guidance", "strength", "hjb_rate", "hjb_iterations", "anyone_guidance")
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
    """The model with every combination of the values; with an axis of HJB also with the face optimisation.

    With the axis `anyone_guidance` it is Animate Anyone, which has of the others the steps alone.

    Raises:
        InputError: an axis that Animate Anyone has not beside its guidance.
        WeightsError: Animate Anyone is asked for and its files are not there.
    """
    if "anyone_guidance" in axes:
        return _anyone_systems(axes, networks, settings)
    return [
        _system(dict(zip(axes, values, strict=True)), networks, settings)
        for values in product(*axes.values())
    ]


def _anyone_systems(
    axes: Mapping[str, Sequence[float]], networks: Networks, settings: Settings
) -> list[System]:
    if foreign := axes.keys() - {"anyone_guidance", "steps"}:
        remedy = "give anyone_guidance, with steps or alone"
        raise InputError("--sweep", f"Animate Anyone has no {', '.join(sorted(foreign))}", remedy)
    animated = build_systems(["animate_anyone"], networks, settings)[0]
    assert isinstance(animated, AnyoneSystem)
    found = []
    for chosen in product(*axes.values()):
        values = dict(zip(axes, chosen, strict=True))
        steps = int(values.get("steps", settings.anyone.num_steps))
        options = replace(settings.anyone, guidance=values["anyone_guidance"], num_steps=steps)
        found.append(replace(animated, options=options, name=_name(values)))
    return found


def _name(values: Mapping[str, float]) -> str:
    return "_".join(f"{key}{value:g}" for key, value in values.items())


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
    return StableAnimator(_name(values), networks, options, hjb)


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

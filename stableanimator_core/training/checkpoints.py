"""A run's checkpoints: written whole or not at all, readable by the loaders, and complete for going on.

    checkpoint-002000/
        unet.safetensors pose_net.safetensors face_encoder.safetensors    mean weights if there is a mean
        unet.pth pose_net.pth face_encoder.pth config.json                the official format, weights as trained
        state/                                                            accelerate's, with optimiser and scaler
        ema.safetensors progress.json

Of Animate Anyone: denoising_unet, reference_unet, pose_guider and, in stage 2, motion_module.
A checkpoint is written into a folder of another name, synchronised to the disk, and renamed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..weights.files import save_weights
from .average import Average
from .settings import Settings

PARTS = ("unet", "pose_net", "face_encoder")
Split = Callable[[Mapping[str, Tensor]], dict[str, dict[str, Tensor]]]
_NAME = re.compile(r"checkpoint-(\d+)$")


def checkpoint_name(step: int) -> str:
    """The folder's name; names sort as steps do, up to a million."""
    return f"checkpoint-{step:06}"


def checkpoints_in(output: Path) -> list[Path]:
    """Complete checkpoints, the oldest first."""
    found = [path for path in output.glob("checkpoint-*") if (path / "progress.json").is_file()]
    return sorted((path for path in found if _NAME.search(path.name)), key=_step_of)


def checkpoint_to_resume(output: Path, wanted: str) -> Path:
    """The checkpoint "latest", or the folder named.

    Raises:
        InputError: there is none.
    """
    found = checkpoints_in(output)
    if wanted == "latest":
        if not found:
            raise InputError("--resume", f"finds no checkpoint in {output}", "start without --resume")
        return found[-1]
    for path in (output / wanted, Path(wanted)):
        if (path / "progress.json").is_file():
            return path
    known = ", ".join(path.name for path in found) or "none"
    raise InputError("--resume", f"{wanted} is no checkpoint (there are: {known})", "name one of them")


def part_of(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """One network's state dict out of that of `TrainedNetworks`."""
    return {key.removeprefix(f"{part}."): t for key, t in state.items() if key.startswith(f"{part}.")}


@dataclass(frozen=True)
class Files:
    """The weight files of a checkpoint.

    Attributes:
        system: whose they are.
        split: the trained module's state to file -> state dict.
        unet: the file whose configuration goes to `config.json`.
        unet_class: diffusers' name of its network.
    """

    system: str
    split: Split
    unet: str
    unet_class: str


STABLEANIMATOR_FILES = Files(
    "StableAnimator",
    lambda state: {part: part_of(state, part) for part in PARTS},
    "unet",
    "UNetSpatioTemporalConditionModel",
)


def export_safetensors(
    folder: Path,
    states: Mapping[str, Mapping[str, Tensor]],
    configs: Mapping[str, Mapping[str, Any]],
    note: str,
) -> None:
    """The networks with their configurations, as the loaders take them.

    Args:
        folder: where to.
        states: file -> state dict.
        configs: file -> configuration.
        note: for people who look into the file.
    """
    for name, state in states.items():
        metadata = {"config": json.dumps(configs[name]), "note": note}
        save_weights(folder / f"{name}.safetensors", _float32(state), metadata)


def export_pth(
    folder: Path, states: Mapping[str, Mapping[str, Tensor]], unet_config: Mapping[str, Any], unet_class: str
) -> None:
    """The official files: plain state dicts in float32.

    They carry no configuration. The loaders tell it from shapes, but for the U-Net's heads, which `config.json`
    says.
    """
    for name, state in states.items():
        torch.save(_float32(state), folder / f"{name}.pth")
    write_json(folder / "config.json", {"_class_name": unet_class, **unet_config})


def export(
    folder: Path,
    state: Mapping[str, Tensor],
    configs: Mapping[str, Mapping[str, Any]],
    progress: Mapping[str, Any],
    average: Average | None,
    *,
    pth: bool,
    files: Files = STABLEANIMATOR_FILES,
) -> None:
    """Everything of a checkpoint but accelerate's state.

    Args:
        folder: where to.
        state: of the trained module, as trained.
        configs: file -> configuration, see `networks.configs_of`.
        progress: for `progress.json`; holds `step`.
        average: the mean weights, which then make the .safetensors.
        pth: also write the official files.
        files: which.
    """
    best = dict(state)
    if average is not None:
        best |= average.state()
        average.save(folder / "ema.safetensors")
    note = f"{files.system}, trained to step {progress['step']}"
    export_safetensors(folder, files.split(best), configs, note)
    if pth:
        export_pth(folder, files.split(state), configs[files.unet], files.unet_class)
    write_json(folder / "progress.json", progress)


def as_json(settings: Settings) -> Any:
    """Settings as JSON can hold them."""
    return _plain(asdict(settings))


def write_json(path: Path, content: Any) -> None:
    """A small file, in one step."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def publish(temporary: Path, final: Path) -> None:
    """Synchronise everything in `temporary` to the disk and give it its final name."""
    for path in temporary.rglob("*"):
        if path.is_file():
            _synchronise(path, os.O_RDONLY)
    if final.exists():
        shutil.rmtree(final)
    os.replace(temporary, final)
    if os.name != "nt":  # a folder cannot be opened there
        _synchronise(final.parent, os.O_RDONLY)


def prune(output: Path, keep: int) -> None:
    """Remove all but the last `keep` checkpoints, and unfinished ones; 0 keeps all finished."""
    for path in output.glob(".checkpoint-*.part"):
        shutil.rmtree(path, ignore_errors=True)
    if keep:
        for path in checkpoints_in(output)[:-keep]:
            shutil.rmtree(path)


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """What `progress.json` says.

    Raises:
        InputError: it is damaged.
    """
    try:
        return json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            str(checkpoint), f"is damaged ({error})", "resume from another checkpoint"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _step_of(path: Path) -> int:
    found = _NAME.search(path.name)
    return int(found[1]) if found else -1


def _float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: t.detach().cpu().float() if t.is_floating_point() else t.cpu() for key, t in state.items()}


def _synchronise(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

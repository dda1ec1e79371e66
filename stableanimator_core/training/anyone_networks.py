"""Animate Anyone's networks as training finds them: from files of either stage, from an image model, or new.

Code: `train_stage_1.py`, `train_stage_2.py`, MooreThreads/Moore-AnimateAnyone @ a914ef3.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..animate_anyone.denoising_unet import MOTION, add_motion_modules, build_denoising_unet, longest_window
from ..animate_anyone.motion_file import config_from as motion_config_from
from ..animate_anyone.pose_guider import build_pose_guider, config_from
from ..animate_anyone.reference_net import build_reference_net
from ..errors import InputError
from ..weights.animate_anyone import load_denoising_unet, load_pose_guider, load_reference_net
from ..weights.files import read_weights
from ..weights.load import build_empty, filled, load_image_encoder, model_config
from ..weights.roles import kind_of
from .anyone_settings import Anyone
from .anyone_step import AnyoneNetworks
from .checkpoints import checkpoints_in
from .config import unet_config
from .frozen import paths
from .networks import own_memory
from .settings import Settings, Trainable

FILES = ("denoising_unet", "reference_unet", "pose_guider", "motion_module")
_LAST = ("conv_norm_out.", "conv_out.")
_CONTROLNET = "controlnet_cond_embedding."
_MOTION_KEY = ".motion_modules."


def build_networks(settings: Settings) -> AnyoneNetworks:
    """All networks in float32 on the CPU, with the parameters chosen that learn in this stage.

    New networks depend on `training.seed` alone.

    Raises:
        WeightsError: a file is missing, damaged or another model.
        InputError: the networks do not fit each other, or a configuration is none of its network.
    """
    torch.manual_seed(settings.training.seed)
    files = starting_files(settings.anyone)
    unet: Any = _denoising_unet(settings, files)
    reference: Any = _reference_unet(unet, files["reference_unet"])
    guider = _pose_guider(settings, unet.config.block_out_channels[0], files["pose_guider"])
    if settings.stage == 2:
        _give_motion(unet, settings, files["motion_module"])
    _check(unet, reference, guider)
    for network in (unet, reference, guider):
        own_memory(network)
    choose_trainable(unet, reference, guider, stage=settings.stage, what=settings.training.trainable)
    if settings.training.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        reference.enable_gradient_checkpointing()
    token = empty_token(settings, unet.config.cross_attention_dim)
    return AnyoneNetworks(unet, reference, guider, settings.anyone, token).train()


def starting_files(anyone: Anyone) -> dict[str, Path | None]:
    """File of each part: the one named, or that of `start`; None where the part is new.

    Raises:
        InputError: `start` holds no denoising U-Net.
    """
    files: dict[str, Path | None] = {name: getattr(anyone, name) for name in FILES}
    if anyone.start is None:
        return files
    folder = (checkpoints_in(anyone.start) or [anyone.start])[-1]
    for name, given in files.items():
        path = folder / f"{name}.safetensors"
        files[name] = path if given is None and path.is_file() else given
    if files["denoising_unet"] is None:
        remedy = "name a checkpoint, or a run that has one"
        raise InputError("anyone.start", f"{anyone.start} holds no denoising_unet.safetensors", remedy)
    return files


def choose_trainable(
    denoising_unet: nn.Module,
    reference_unet: Any,
    pose_guider: nn.Module,
    *,
    stage: int,
    what: Trainable = "official",
) -> None:
    """Set `requires_grad` of every parameter.

    Official: stage 1 trains all but the reference U-Net's last level, stage 2 the motion modules alone.

    Args:
        denoising_unet: with motion modules in stage 2.
        reference_unet: likewise changed in place.
        pose_guider: likewise.
        stage: 1 or 2.
        what: "all" trains everything, for networks that do not start from an image model.
    """
    last_level = f"up_blocks.{len(reference_unet.up_blocks) - 1}."
    everything = what == "all"
    for name, parameter in denoising_unet.named_parameters():
        parameter.requires_grad_(everything or stage == 1 or _MOTION_KEY in name)
    for name, parameter in reference_unet.named_parameters():
        parameter.requires_grad_(everything or (stage == 1 and not name.startswith(last_level)))
    pose_guider.requires_grad_(everything or stage == 1)


@torch.no_grad()
def empty_token(settings: Settings, width: int) -> Tensor:
    """What stands for the image token where conditions are dropped [d]: CLIP of zero pixels, or zeros."""
    if settings.anyone.dropped_token == "zeros":
        return torch.zeros(width)
    encoder: Any = load_image_encoder(paths(settings.networks)[1], torch.float32)
    side = encoder.config.image_size
    return encoder(torch.zeros(1, 3, side, side)).image_embeds[0].clone()


def split(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The state of `AnyoneNetworks` as the official files: name -> state dict; the motion modules have their own."""
    files: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        part, _, name = key.partition(".")
        part = "motion_module" if _MOTION_KEY in key else part
        files.setdefault(part, {})[name] = tensor
    return files


def configs_of(networks: AnyoneNetworks) -> dict[str, dict[str, Any]]:
    """What each file's metadata says, so that the loaders build the same networks again."""
    parts: dict[str, Any] = dict(networks.named_children())
    configs = {name: _plain(parts[name].config) for name in ("denoising_unet", "reference_unet")}
    motion = configs["denoising_unet"].pop(MOTION, None)
    if motion is not None:
        state = split(networks.state_dict())["motion_module"]
        settings = {key: value for key, value in motion.items() if key != "mid_block"}
        configs["motion_module"] = {**motion_config_from(state), **settings}
    configs["pose_guider"] = config_from(parts["pose_guider"].state_dict())
    return configs


def _denoising_unet(settings: Settings, files: Mapping[str, Path | None]) -> nn.Module:
    path = files["denoising_unet"]
    if path is None:
        return _made(lambda: build_denoising_unet(unet_config(settings)), "networks.unet_config")
    motion = files["motion_module"] if settings.stage == 2 else None
    unet = load_denoising_unet(path, motion, torch.float32)
    if settings.stage == 1 and longest_window(unet) is not None:
        remedy = "give a file without them, or set stage = 2"
        raise InputError(
            "anyone.denoising_unet", "holds motion modules, which stage 1 knows nothing of", remedy
        )
    return unet


def _reference_unet(unet: Any, path: Path | None) -> nn.Module:
    """From its file, which may be a whole image U-Net, or a copy of the denoising U-Net's start."""
    if path is None:
        config = {key: value for key, value in _plain(unet.config).items() if key != MOTION}
        net = build_reference_net(config)
        net.load_state_dict(_without_ends(unet.state_dict()))
        return net
    weights = read_weights(path)
    kind = kind_of(weights.state.keys())
    if kind is None or kind.role != "denoising_unet":
        return load_reference_net(path, torch.float32)
    config = model_config("denoising_unet", weights, Path(path))
    config = {key: value for key, value in config.items() if key != MOTION}
    state = _without_ends(weights.state)
    return filled(build_empty("reference_unet", config), state, path, torch.float32)


def _pose_guider(settings: Settings, width: int, path: Path | None) -> nn.Module:
    if path is None:
        config = {**settings.anyone.pose_guider_config, "out_channels": width}
        return _made(lambda: build_pose_guider(config), "anyone.pose_guider_config")
    weights = read_weights(path)
    if not any(key.startswith(_CONTROLNET) for key in weights.state):
        return load_pose_guider(path, torch.float32)
    state = {
        key.removeprefix(_CONTROLNET): t for key, t in weights.state.items() if key.startswith(_CONTROLNET)
    }
    guider: Any = build_pose_guider({**config_from(state), "out_channels": width})
    ends = {key: t for key, t in guider.state_dict().items() if key.startswith("conv_out.")}  # zeros
    filled(guider, {**state, **ends}, path, torch.float32)
    return guider


def _give_motion(unet: Any, settings: Settings, path: Path | None) -> None:
    """New motion modules where neither file had some; those of a file by themselves for a new U-Net."""
    if longest_window(unet) is not None:
        return
    if path is None:
        _made(lambda: add_motion_modules(unet, **settings.anyone.motion_config), "anyone.motion_config")
        return
    raise InputError(
        "anyone.motion_module", f"is {path}, for a new denoising U-Net", "name anyone.denoising_unet as well"
    )


def _check(unet: Any, reference: Any, guider: Any) -> None:
    widths = [list(network.config.block_out_channels) for network in (unet, reference)]
    if widths[0] != widths[1]:
        problem = f"has the widths {widths[1]}, the denoising U-Net {widths[0]}"
        raise InputError("anyone.reference_unet", problem, "use files of the same model")
    poses = guider(torch.zeros(1, 3, 8, 8)).shape[1]
    if poses != widths[0][0]:
        problem = f"makes {poses} channels, the denoising U-Net has {widths[0][0]}"
        raise InputError("anyone.pose_guider", problem, "use files of the same model")


def _made(build: Any, key: str) -> Any:
    try:
        return build()
    except (TypeError, ValueError) as error:
        raise InputError(
            key, f"makes no network ({error})", "see the arguments in the documentation"
        ) from error


def _without_ends(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: t for key, t in state.items() if not key.startswith(_LAST) and _MOTION_KEY not in key}


def _plain(config: Any) -> dict[str, Any]:
    return {key: value for key, value in dict(config).items() if not key.startswith("_")}

"""Cases of Animate Anyone's networks, sampler and windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...animate_anyone.attention import Reference
from ...animate_anyone.denoising_unet import MOTION, FrameLayers, build_denoising_unet, denoise
from ...animate_anyone.motion_module import MotionModule
from ...animate_anyone.pose_guider import PoseGuider
from ...animate_anyone.reference_net import build_reference_net, write_reference
from ...animate_anyone.walk import time_embedding, walk
from ...errors import InputError
from ..checks import Row, case, close, exact, relative
from ..golden import Golden, open_golden, recipe_tensor

_FEATURES, _ROUNDED, _MOTION = 2e-5, 5e-5, 1e-5  # largest difference over the golden's largest value
_BLOCKS = ("down_blocks", "mid_block", "up_blocks")


def network_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A sidecar's configuration of a U-Net as ours."""
    theirs = ("use_", "unet_use_", "motion_module_")  # arguments that diffusers' class does not have
    ours = {key: value for key, value in config.items() if not key.startswith(theirs)}
    if "down_block_types" not in ours:  # the sidecars of the 3-D network leave out what never varies
        ours["down_block_types"] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
        ours["up_block_types"] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    if config.get("use_motion_module"):
        settings = config["motion_module_kwargs"]
        ours[MOTION] = {
            "heads": settings["num_attention_heads"],
            "max_frames": settings["temporal_position_encoding_max_len"],
            "num_blocks": settings["num_transformer_block"],
            "num_attentions": len(settings["attention_block_types"]),
            "mid_block": config["motion_module_mid_block"],
        }
    return ours


def scale_weights(module: nn.Module, gain: float) -> None:
    """Multiply every weight, but no bias."""
    for name, parameter in module.named_parameters():
        if name.endswith(".weight"):
            parameter.data *= gain


@case("pose_guider")
def check_pose_guider(golden: Golden) -> Iterator[Row]:
    """Both sizes of network, with and without gain; pictures as (b, 3, f, H, W)."""
    for size in ("small", "default"):
        config = golden.sidecar[f"config_{size}"]
        guider = PoseGuider(config["conditioning_embedding_channels"], config["block_out_channels"])
        golden.fill(guider)
        for ending in ("", "_gain"):
            if ending:
                scale_weights(guider, golden.sidecar["gain"])
            for kind in ("", "_odd"):
                name = f"output{kind}_{size}{ending}"
                if name in golden.tensors:
                    frames = golden[f"input{kind}"].transpose(1, 2)  # [b f 3 H W]
                    output = guider(frames).unflatten(0, frames.shape[:2]).transpose(1, 2)
                    yield close(name, output, golden.expected(name), rtol=1e-4, atol=2e-6)


@case("motion_module")
def check_motion_module(golden: Golden) -> Iterator[Row]:
    """Any number of frames up to the table's, the table itself, and another one in the file."""
    config = golden.sidecar["config"]
    module = MotionModule(
        golden.sidecar["channels"],
        config["num_attention_heads"],
        config["temporal_position_encoding_max_len"],
        config["num_transformer_block"],
        len(config["attention_block_types"]),
    )
    golden.fill(module)
    tables = {key: value for key, value in module.state_dict().items() if key.endswith(".pe")}
    for key, table in tables.items():
        yield relative(key, table, golden.expected("position_table"), _MOTION)
    for name in ("", "two_batches.", "one_frame.", "max_frames."):
        output = _moved(module, golden[f"{name}input"])
        yield relative(f"{name}output", output, golden.expected(f"{name}output"), _MOTION)
    for key, table in tables.items():
        table.copy_(recipe_tensor(key, tuple(table.shape), golden.salt) * 40)
    yield relative(
        "output_other_table", _moved(module, golden["input"]), golden.expected("output_other_table"), _MOTION
    )


def _moved(module: MotionModule, video: Tensor) -> Tensor:
    """A motion module on (b, c, f, h, w)."""
    frames = video.transpose(1, 2)  # [b f c h w]
    return module(frames.flatten(0, 1), frames.shape[1]).view_as(frames).transpose(1, 2)


@case("reference_unet")
def check_reference_unet(golden: Golden) -> Iterator[Row]:
    """Every stored tensor, and what the network would return if it were run to its end."""
    net = golden.fill(build_reference_net(network_config(golden.sidecar["config"])))
    token = golden["token"]
    for prefix, tokens in (("", torch.cat([torch.zeros_like(token), token])), ("odd.", token)):
        latents = golden[f"{prefix}latent"].expand(len(tokens), -1, -1, -1)
        features = write_reference(net, latents, tokens)
        if not prefix:
            yield exact("blocks", list(features), golden.sidecar["blocks_in_execution_order"])
        for name, feature in features.items():
            yield relative(f"{prefix}{name}", feature, golden.expected(f"{prefix}feature.{name}"), _FEATURES)
        output = _run_to_its_end(net, latents, tokens)
        yield relative(f"{prefix}output", output, golden.expected(f"{prefix}output"), _FEATURES)


def _run_to_its_end(net: Any, latents: Tensor, tokens: Tensor) -> Tensor:
    """The same layers as an image network reads them."""
    emb = time_embedding(net, torch.tensor([0]), latents)
    reader = FrameLayers(1, emb, tokens, nn.functional.scaled_dot_product_attention, None, ())
    return walk(net, net.conv_in(latents), reader)


@case("denoising_unet")
def check_denoising_unet(golden: Golden) -> Iterator[Row]:
    """All outputs, with the official rounding of the features and without, and every block's output."""
    side = golden.sidecar
    unet = golden.fill(build_denoising_unet(network_config(side["config"])))
    still = golden.fill(build_denoising_unet({**network_config(side["config"]), MOTION: None}))
    yield from _outputs(golden, unet, "", side["timestep"])
    yield from _outputs(golden, unet, "odd.", side["odd_timestep"])
    pair = _pair(golden, "", side["timestep"])
    reference: dict[str, Any] = {"reference": _reference(golden, "", True), "reference_rows": (False, True)}
    posed: dict[str, Any] = {"pose_features": _frames(golden["pose_feature"])}
    row = (pair[0][1:], pair[1], pair[2][1:])
    other = {
        "output_no_reference": (denoise(unet, *pair, **posed), _FEATURES),
        "output_no_pose": (denoise(unet, *pair, **reference), _ROUNDED),
        "output_no_guidance": (denoise(unet, *row, **posed, reference=reference["reference"]), _ROUNDED),
        "output_no_motion": (denoise(still, *pair, **posed, **reference), _ROUNDED),
    }
    for name, (output, tolerance) in other.items():
        yield relative(name, output.transpose(1, 2), golden.expected(name), tolerance)


def _outputs(golden: Golden, unet: Any, prefix: str, timestep: int) -> Iterator[Row]:
    pair = _pair(golden, prefix, timestep)
    posed: dict[str, Any] = {
        "pose_features": _frames(golden[f"{prefix}pose_feature"]),
        "reference_rows": (False, True),
    }
    seen, output = _watched(
        unet, lambda: denoise(unet, *pair, **posed, reference=_reference(golden, prefix, True))
    )
    yield relative(f"{prefix}output", output.transpose(1, 2), golden.expected(f"{prefix}output"), _ROUNDED)
    for name, after in seen.items():
        stored = golden.expected(f"{prefix}after.{name}")  # frame 1 of both rows
        frame = after.unflatten(0, (2, -1))[:, 1:2].transpose(1, 2)
        yield relative(f"{prefix}after.{name}", frame, stored, _ROUNDED)
    exactly = denoise(unet, *pair, **posed, reference=_reference(golden, prefix, False))
    name = f"{prefix}output_features_float32"
    yield relative(name, exactly.transpose(1, 2), golden.expected(name), _FEATURES)


def _watched(unet: Any, function: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Every block's output [bf c h w] while `function` runs, told from what its last layer gives; and its result."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for name, block in _named_blocks(unet):
        samplers = getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None)
        last = samplers[-1] if samplers else block.motion_modules[-1]
        if (
            name == "mid_block"
        ):  # it ends with a residual block, which is a function here: taken from what follows
            last = unet.up_blocks[0].resnets[0].norm1
            hooks.append(last.register_forward_pre_hook(_keep_mid(seen, unet)))
            continue
        hooks.append(last.register_forward_hook(lambda _m, _i, x, name=name: seen.update({name: x})))
    try:
        return seen, function()
    finally:
        for hook in hooks:
            hook.remove()


def _keep_mid(seen: dict[str, Tensor], unet: Any) -> Any:
    channels = unet.mid_block.resnets[-1].conv2.out_channels  # the skip is joined after them
    return lambda _module, inputs: seen.update({"mid_block": inputs[0][:, :channels].clone()})


def _named_blocks(unet: Any) -> Iterator[tuple[str, Any]]:
    for kind in _BLOCKS:
        part = getattr(unet, kind)
        if kind == "mid_block":
            yield kind, part
        else:
            yield from ((f"{kind}.{number}", block) for number, block in enumerate(part))


def _pair(golden: Golden, prefix: str, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample of both rows [2 f 4 h w], time, tokens with the unconditional zeros first."""
    sample = golden[f"{prefix}sample"].transpose(1, 2).expand(2, -1, -1, -1, -1)
    token = golden["token"]
    return sample, torch.tensor(timestep), torch.cat([torch.zeros_like(token), token])


def _reference(golden: Golden, prefix: str, rounded: bool) -> Reference:
    """The golden features of the token half."""
    stored, start = open_golden(golden.folder, "reference_unet"), f"{prefix}feature."
    features = {name[len(start) :]: stored[name][-1:] for name in stored.tensors if name.startswith(start)}
    if not features:
        raise InputError("reference_unet", "holds no features", "keep both goldens in one folder")
    return Reference(features, round_to_half=rounded)


def _frames(video: Tensor) -> Tensor:
    """(1, c, f, h, w) to [f c h w]."""
    return video[0].transpose(0, 1)

"""Cases of the core networks: PoseNet, Face Encoder, ID adapter, U-Net, IResNet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...models.face_encoder import FaceEncoder
from ...models.fast_blocks import temporal_share
from ...models.folded_attention import add_spatial_cross_attention
from ...models.id_adapter import AdapterOptions, IDAdapter, id_attention
from ...models.iresnet import IResNet
from ...models.pose_net import PoseNet
from ...models.unet import build_unet, denoise, set_plain
from ..checks import Row, absolute, case, close, relative
from ..golden import Golden, recipe_tensor
from ..thinned import Expected, Sampled, values_of

_UNET = 5e-5  # largest difference over the golden's largest value


@case("pose_net")
def check_pose_net(golden: Golden) -> Iterator[Row]:
    """Pictures as [bf ...] and as [b f ...]."""
    pose_net = golden.fill(PoseNet(golden.sidecar["config"]["noise_latent_channels"]))
    for name in ("", "_5d"):
        yield close(
            f"output{name}",
            pose_net(golden[f"input{name}"]),
            golden.expected(f"output{name}"),
            rtol=1e-4,
            atol=1e-6,
        )


@case("face_encoder")
def check_face_encoder(golden: Golden) -> Iterator[Row]:
    """Face tokens as used, with the shortcut, and of no identity."""
    sidecar, config = golden.sidecar, golden.sidecar["config"]
    encoder = FaceEncoder(
        token_width=config["cross_attention_dim"],
        identity_width=config["id_embeddings_dim"],
        image_width=config["clip_embeddings_dim"],
        num_tokens=config["num_tokens"],
        depth=sidecar["depth"],
        heads=sidecar["heads"],
        ff_mult=sidecar["ff_mult"],
    )
    golden.fill(encoder)
    identity, image = golden["id_embeds"], golden["clip_embeds"]
    outputs = {
        "output": encoder(identity, image),
        "output_shortcut": encoder(identity, image, shortcut=0.7),
        "output_zero_id": encoder(torch.zeros_like(identity), image),
    }
    for name, output in outputs.items():
        yield close(name, output, golden.expected(name), rtol=1e-4, atol=2e-5)


class _CrossAttention(nn.Module):
    """What diffusers' attention layer offers to a processor."""

    def __init__(self, config: dict[str, int]):
        super().__init__()
        self.heads = config["heads"]
        inner = config["heads"] * config["dim_head"]
        self.to_q = nn.Linear(config["query_dim"], inner, bias=False)
        self.to_k = nn.Linear(config["cross_attention_dim"], inner, bias=False)
        self.to_v = nn.Linear(config["cross_attention_dim"], inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, config["query_dim"])])
        self.processor = IDAdapter(config["hidden_size"], config["cross_attention_dim"])


@case("id_attention")
def check_id_attention(golden: Golden) -> Iterator[Row]:
    """The adapter written out, and the folded form that runs by default."""
    attn = golden.fill(_CrossAttention(golden.sidecar["config"]))
    hidden = golden["hidden"]
    for name in sorted(name for name in golden.tensors if name.startswith("out_")):
        kind, strength, context = re.fullmatch(r"out_(normalized|plain)_scale([0-9p]+)(.*)", name).groups()  # pyright: ignore[reportOptionalMemberAccess]
        options = AdapterOptions(
            float(strength.replace("p", ".")), "full" if kind == "normalized" else "none"
        )
        tokens = golden[f"encoder_hidden_states{context}"]
        written_out = id_attention(attn, hidden, tokens, options)
        yield close(name, written_out, golden.expected(name), rtol=1e-4, atol=2e-5)
        nothing = torch.zeros_like(hidden)[:, None]  # [b 1 s c]; what the attention is added to
        folded = add_spatial_cross_attention(attn, lambda _: hidden[:, None], nothing, tokens, options)[:, 0]
        yield close(f"{name} (folded)", folded, golden.expected(name), rtol=1e-4, atol=2e-5)


@case("unet")
def check_unet(golden: Golden) -> Iterator[Row]:
    """All outputs and probes, by diffusers' own forward functions and by ours."""
    unet = golden.fill(build_unet(golden.sidecar["config"], plain=True))
    probes = [name.removeprefix("probe_") for name in golden.tensors if name.startswith("probe_")]
    seen = _record(unet, {name: name for name in probes})
    yield from _unet_outputs(unet, golden, "plain", seen)
    yield from (
        relative(f"{name} (plain)", seen[name], golden.expected(f"probe_{name}"), _UNET) for name in probes
    )
    set_plain(unet, False)
    seen = _record(unet, {name: _last_inside(unet, name) for name in probes})
    yield from _unet_outputs(unet, golden, "fast", seen)
    for name in probes:
        expected = golden.expected(f"probe_{name}")
        if "temporal_transformer_blocks" in name:  # ours returns the blend with its input
            expected = _blended(unet, golden, name, expected)
        yield relative(f"{name} (fast)", seen[name].reshape(expected.shape), expected, _UNET)


def _unet_outputs(unet: Any, golden: Golden, path: str, seen: dict[str, Tensor]) -> Iterator[Row]:
    def run(batch: str = "", *, zero: bool = False, **options: Any) -> Tensor:
        tokens = golden[f"encoder_hidden_states{batch}"]
        tokens = torch.zeros_like(tokens) if zero else tokens
        timestep, ids = golden[f"timestep{batch}"], golden[f"added_time_ids{batch}"]
        return denoise(unet, golden[f"sample{batch}"], timestep, tokens, ids, **options)

    pose, pose_b2 = golden["pose_latents"], golden["pose_latents_b2"]
    got = {"output_pose": run(pose_features=pose)}
    probed = dict(seen)
    got["output_no_pose"] = run()
    got["output_uncond"] = run(zero=True)
    got["output_image_only"] = run(pose_features=pose, image_only=True)
    got["output_b2"] = run("_b2", pose_features=pose_b2)
    seen.update(probed)  # the probes belong to the first run
    for name, output in got.items():
        yield relative(f"{name} ({path})", output, golden.expected(name), _UNET)


def _record(unet: nn.Module, modules: dict[str, str]) -> dict[str, Tensor]:
    """Keep a copy of what submodules return, under the given names."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, output: Any) -> None:
        seen[name] = (output[0] if isinstance(output, tuple) else output).clone()

    for name, path in modules.items():
        unet.get_submodule(path).register_forward_hook(lambda _m, _i, output, name=name: keep(name, output))
    return seen


def _last_inside(unet: nn.Module, name: str) -> str:
    """The last module inside a down, middle or up block, which the fast path does not call itself."""
    children = dict(unet.get_submodule(name).named_children())
    if "resnets" not in children:
        return name
    order = (
        "downsamplers",
        "upsamplers",
        *(("resnets",) if name == "mid_block" else ("attentions", "resnets")),
    )
    last = next(child for child in order if child in children)
    return f"{name}.{last}.{len(list(children[last].children())) - 1}"


def _blended(unet: nn.Module, golden: Golden, name: str, temporal: Expected) -> Expected:
    other = golden.expected(f"probe_{name.replace('temporal_transformer_blocks', 'transformer_blocks')}")
    mixer = unet.get_submodule(f"{name.split('.temporal_')[0]}.time_mixer")
    spatial = values_of(other)  # element by element, so that samples do if both are of the same elements
    blended = torch.lerp(spatial, values_of(temporal), temporal_share(mixer, spatial))
    return replace(temporal, values=blended) if isinstance(temporal, Sampled) else blended


@case("iresnet100")
def check_iresnet(golden: Golden) -> Iterator[Row]:
    """Embeddings of the plain and of the damped weights, and means along the way."""
    shapes = golden.json("keys_iresnet100.json")
    config = IResNet.config_from({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    network: Any = golden.fill(IResNet(**config))
    means = [name for name in golden.tensors if name.startswith("mean_abs_")]
    seen = _record(network, {name: name.removeprefix("mean_abs_") for name in means} | {"layer4": "layer4"})
    output = network(golden["input"])
    yield relative("output", output, golden.expected("output"), 1e-3)
    for name in means:
        yield relative(name, seen[name].abs().mean().reshape(1), golden.expected(name), 1e-3)
    yield relative("layer4_first8", seen["layer4"][:, :8], golden.expected("layer4_first8"), 1e-3)
    state = network.state_dict()
    for key in (key for key in state if key.endswith("bn3.weight")):
        state[key].copy_(recipe_tensor(key, tuple(state[key].shape), golden.salt) * 0.1)
    damped = network(golden["input"])
    yield relative("output_damped", damped, golden.expected("output_damped"), 1e-4)
    cosine = torch.cosine_similarity(damped, golden["output_damped"])
    yield absolute("output_damped, cosine", cosine, torch.ones_like(cosine), 1e-6)

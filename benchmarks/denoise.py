"""How fast the denoising network runs here, ours against diffusers' own forward functions, in one run.

    python benchmarks/denoise.py                              a medium network on the CPU, about a minute
    python benchmarks/denoise.py --compile                    the same, ours compiled too (takes minutes)
    python benchmarks/denoise.py --device cuda --full-size    the real shapes, 512x512 and 576x1024

Weights are random: time and memory do not depend on them. "plain" is the unoptimised path of the same network
with the same weights (`models.unet.set_plain`): stock blocks, simple attention processors, guidance as two
forwards. The floor is the time that the plain network's matrix products, convolutions and attention products
alone would take at the device's peak rate.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from side_by_side import GIB, Measured, device_name, measure, parser, plan
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stableanimator_core.models.pose_net import PoseNet
from stableanimator_core.models.unet import build_unet, denoise, set_plain

STEPS = 25
TOKEN_WIDTH = 1024
FULL_SIZES = ((512, 512), (1024, 576))  # height, width
PEAK_FLOPS = {"H200": 790e12, "H100": 790e12, "A100": 312e12, "4090": 165e12}  # dense 16-bit, achievable


@dataclass(frozen=True)
class Setup:
    """What is measured: network widths, frames, picture size in pixels, and where."""

    widths: tuple[int, ...]
    frames: int
    height: int
    width: int
    device: torch.device
    dtype: torch.dtype


def main() -> None:
    options = parse()
    chosen = plan(options, FULL_SIZES)
    print(f"{chosen}, {options.frames} frames")
    with torch.no_grad():
        networks = build(chosen.widths, chosen.device, chosen.dtype)
        for height, width in chosen.sizes:
            setup = Setup(chosen.widths, options.frames, height, width, chosen.device, chosen.dtype)
            report(setup, networks, options.repeats, options.compile)


def parse() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--compile", action="store_true", help="also measure our path under torch.compile")
    options.add_argument("--frames", type=int, default=16)
    return options.parse_args()


def build(widths: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> tuple[Any, Any, PoseNet]:
    """Our U-Net, its plain twin on the same weights, and the pose net."""
    torch.manual_seed(0)
    config = {
        "in_channels": 8,
        "out_channels": 4,
        "block_out_channels": widths,
        "num_attention_heads": tuple(width // 64 for width in widths),
        "cross_attention_dim": TOKEN_WIDTH,
        "layers_per_block": 2,
    }
    with torch.device(device):
        ours = build_unet(config).to(dtype).eval()
        pose_net = PoseNet(widths[0]).to(dtype).eval()
    torch.nn.init.normal_(pose_net.final_proj.weight, std=0.1)
    shared = {id(parameter): parameter for parameter in ours.parameters()}
    plain = copy.deepcopy(ours, shared)
    set_plain(plain, True)
    return ours, plain, pose_net


def inputs(setup: Setup, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sample, timestep, tokens, time ids; of two rows the first is unconditional."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(batch, 5, TOKEN_WIDTH, generator=generator)
    if batch == 2:
        tokens[0] = 0
    sample = torch.randn(batch, setup.frames, 8, setup.height // 8, setup.width // 8, generator=generator)
    ids = torch.tensor([[6.0, 127.0, 0.02]]).expand(batch, 3)
    on_device = [x.to(setup.device, setup.dtype) for x in (sample, torch.full((batch,), 0.5), tokens, ids)]
    return tuple(on_device)  # type: ignore[return-value]


def report(setup: Setup, networks: tuple[Any, Any, PoseNet], repeats: int, compiled: bool) -> None:
    """Measure one size and print it."""
    ours, plain, pose_net = networks
    poses = torch.rand(setup.frames, 3, setup.height, setup.width).mul(2).sub(1).to(setup.device, setup.dtype)
    pose = pose_net(poses)
    single, pair = inputs(setup, 1), inputs(setup, 2)
    both_poses = torch.cat((torch.zeros_like(pose), pose))
    rows = [tuple(x[i : i + 1] for x in pair) for i in range(2)]

    def two_forwards() -> Tensor:
        return torch.cat((denoise(plain, *rows[0]), denoise(plain, *rows[1], pose_features=pose)))

    paths: dict[str, dict[str, Callable[[], Tensor]]] = {
        "pose net": {"ours": lambda: pose_net(poses)},
        "unet forward": {
            "plain": lambda: denoise(plain, *single, pose_features=pose),
            "ours": lambda: denoise(ours, *single, pose_features=pose),
        },
        "guidance pair": {
            "plain": two_forwards,
            "ours": lambda: denoise(ours, *pair, pose_features=both_poses),
        },
    }
    if compiled:
        fast = torch.compile(denoise)
        paths["unet forward"]["ours, compiled"] = lambda: fast(ours, *single, pose_features=pose)
        if setup.device.type == "cuda":
            paths["guidance pair"]["ours, compiled"] = lambda: fast(ours, *pair, pose_features=both_poses)
    print(f"\n{setup.width}x{setup.height}: latents {setup.width // 8}x{setup.height // 8}")
    print(f"  {'stage':14} {'path':15} {'seconds':>9} {'ratio':>6} {'peak GiB':>9} {'error':>8}")
    results = {stage: measure(functions, repeats, setup.device) for stage, functions in paths.items()}
    for stage, functions in paths.items():
        print_stage(stage, functions, results[stage])
    print_clip(setup, plain, results)


def print_stage(stage: str, functions: dict[str, Callable[[], Tensor]], results: dict[str, Measured]) -> None:
    expected = functions["plain"]().float() if "plain" in functions else None
    for path, result in results.items():
        ratio = error = ""
        if expected is not None and path != "plain":
            ratio = f"{results['plain'].seconds / result.seconds:.2f}x"
            error = f"{float((functions[path]().float() - expected).abs().max() / expected.abs().max()):.0e}"
        memory = f"{result.peak_bytes / GIB:.2f}" if result.peak_bytes is not None else "-"
        print(f"  {stage:14} {path:15} {result.seconds:9.4f} {ratio:>6} {memory:>9} {error:>8}")


def print_clip(setup: Setup, plain: Any, results: dict[str, dict[str, Measured]]) -> None:
    """What one window costs in all its steps, and how near that is to the floor."""
    with torch.device("meta"):
        twin = build_unet({**plain.config}, plain=True).to("meta")
    like = [torch.empty_like(x, device="meta", dtype=torch.float32) for x in inputs(setup, 1)]
    with FlopCounterMode(display=False) as counter:
        denoise(twin, *like)
    flops = 2 * counter.get_total_flops()
    peak = peak_flops(setup)
    best = min(result.seconds for path, result in results["guidance pair"].items() if path != "plain")
    print(
        f"  {STEPS} steps with guidance: {STEPS * best:.2f} s; {flops / 1e12:.2f} TF a step; "
        f"{flops / peak / best:.0%} of the floor at {peak / 1e12:.3g} TFLOP/s"
    )


def peak_flops(setup: Setup) -> float:
    """Operations per second: a known card's figure, else what a large matrix product reaches here."""
    if setup.device.type == "cuda":
        name = device_name(setup.device)
        known = [flops for card, flops in PEAK_FLOPS.items() if card in name]
        if known and setup.dtype != torch.float32:
            return known[0]
    side = 8192 if setup.device.type == "cuda" else 1536
    matrix = torch.randn(side, side, device=setup.device, dtype=setup.dtype)
    seconds = measure({"": lambda: matrix @ matrix}, 5, setup.device)[""].seconds
    return 2 * side**3 / seconds


if __name__ == "__main__":
    main()

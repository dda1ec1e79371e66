"""How fast Animate Anyone's denoising network runs here, ours against a plain path of the same network, in one run.

    python benchmarks/animate_anyone.py                              a medium network on the CPU, about a minute
    python benchmarks/animate_anyone.py --device cuda --full-size    the real shapes, 512x768 and 576x1024, 24 frames

Weights are random: time and memory do not depend on them. "plain" is `animate_anyone.literal` on the same weights:
diffusers' own blocks, both guidance halves attending to their map joined to the reference's, the unconditional half
computed again without it and written over. "new reference" projects the reference's keys and values, as the first
call of a run does; "ours" finds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from side_by_side import GIB, Measured, measure, parser, plan
from torch import Tensor

from stableanimator_core.animate_anyone.attention import Reference
from stableanimator_core.animate_anyone.denoising_unet import MOTION, build_denoising_unet, denoise
from stableanimator_core.animate_anyone.literal import LiteralLayers, denoise_literally, time_before_silu
from stableanimator_core.animate_anyone.reference_net import build_reference_net, write_reference
from stableanimator_core.animate_anyone.walk import walk

STEPS = 25
TOKEN_WIDTH = 768
FULL_SIZES = ((768, 512), (1024, 576))  # height, width
PAIR = (False, True)


@dataclass(frozen=True)
class Inputs:
    """What one prediction of a guidance pair takes."""

    sample: Tensor
    tokens: Tensor
    pose: Tensor
    features: dict[str, Tensor]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--frames", type=int, help="frames of the window; 24, or 8 for the medium network")
    given = options.parse_args()
    chosen, frames = plan(given, FULL_SIZES), given.frames or (24 if given.full_size else 8)
    print(f"{chosen}, {frames} frames")
    with torch.no_grad():
        unet, net = build(chosen.widths, chosen.device, chosen.dtype)
        for height, width in chosen.sizes:
            report(unet, net, frames, height, width, given.repeats)


def build(widths: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """The denoising network with motion modules, and the reference network."""
    torch.manual_seed(0)
    diffusers.utils.logging.set_verbosity_error()  # it warns at every change of the number format
    config = {"block_out_channels": widths, "cross_attention_dim": TOKEN_WIDTH, "attention_head_dim": 8}
    with torch.device(device):
        unet = build_denoising_unet({**config, MOTION: {}}).to(dtype).eval()
        net = build_reference_net(config).to(dtype).eval()
    for name, parameter in unet.named_parameters():
        if ".motion_modules." in name and not parameter.any():  # zeros would hide errors of what comes before
            torch.nn.init.normal_(parameter, std=0.02)
    return unet, net


def inputs(unet: Any, net: Any, frames: int, height: int, width: int) -> Inputs:
    """Random inputs of one window; of the two rows the first is unconditional."""
    like = next(unet.parameters())
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(like)

    sample = drawn(1, frames, 4, height // 8, width // 8).repeat(2, 1, 1, 1, 1)
    tokens = torch.cat([torch.zeros(1, 1, TOKEN_WIDTH).to(like), drawn(1, 1, TOKEN_WIDTH)])
    pose = 0.1 * drawn(frames, unet.config.block_out_channels[0], height // 8, width // 8)
    features = write_reference(net, drawn(1, 4, height // 8, width // 8), tokens[1:])
    return Inputs(sample, tokens, pose, features)


def report(unet: Any, net: Any, frames: int, height: int, width: int, repeats: int) -> None:
    """Measure one size and print it."""
    given = inputs(unet, net, frames, height, width)
    device = given.sample.device
    timestep = torch.tensor(499, device=device)
    kept = Reference(given.features)
    latents = given.sample[:1, 0]

    def ours(reference: Reference) -> Tensor:
        settings = {"pose_features": given.pose, "reference": reference, "reference_rows": PAIR}
        return denoise(unet, given.sample, timestep, given.tokens, **settings)

    pair = {
        "plain": lambda: denoise_literally(
            unet, given.sample, timestep, given.tokens, given.pose, given.features
        ),
        "new reference": lambda: ours(Reference(given.features)),
        "ours": lambda: ours(kept),
    }
    once = {
        "plain": lambda: net_to_its_end(net, latents, given.tokens),
        "ours": lambda: next(iter(write_reference(net, latents, given.tokens[1:]).values())),
    }
    print(f"\n{width}x{height}: latents {width // 8}x{height // 8}")
    print(f"  {'stage':15} {'path':15} {'seconds':>9} {'ratio':>6} {'peak GiB':>9}")
    show("reference, once", measure(once, repeats, device))
    results = measure(pair, repeats, device)
    show("guidance pair", results)
    expected = pair["plain"]().float()
    error = float((pair["ours"]().float() - expected).abs().max() / expected.abs().max())
    print(f"  largest difference between plain and ours: {error:.0e} of the largest value")
    whole = {path: STEPS * result.seconds for path, result in results.items()}
    print(f"  {STEPS} steps of one window: plain {whole['plain']:.1f} s, ours {whole['ours']:.1f} s")


def net_to_its_end(net: Any, latents: Tensor, tokens: Tensor) -> Tensor:
    """The reference network as the official code runs it: both guidance halves, to the end, by diffusers' blocks."""
    twice = latents.repeat(2, 1, 1, 1)
    emb = time_before_silu(net, torch.tensor(0, device=latents.device), twice)
    return walk(net, net.conv_in(twice), LiteralLayers(1, emb, tokens))


def show(stage: str, results: dict[str, Measured]) -> None:
    for path, result in results.items():
        ratio = "" if path == "plain" else f"{results['plain'].seconds / result.seconds:.2f}x"
        memory = f"{result.peak_bytes / GIB:.2f}" if result.peak_bytes is not None else "-"
        print(f"  {stage:15} {path:15} {result.seconds:9.4f} {ratio:>6} {memory:>9}")


if __name__ == "__main__":
    main()

"""python benchmarks/hjb.py [--full-size] [--device cuda]: what each way of the face optimisation costs.

First table, measured in one run: time of one Adam update and the most memory held, for the published way
(one graph over the whole clip, float32, diffusers' block checkpointing) and each of our settings. On the CPU
the time is that of the process (other work on the machine does not count) and memory is counted by tracking
every allocation (`hjb.memory`) in a pass of its own before, which also warms up. On CUDA it is wall time and
torch.cuda.max_memory_allocated, less what was allocated before.

Second table, derived, at the real sizes on any machine: peak memory by running the same code on the meta
device, where every allocation has its real size but no data; FLOPs by torch's own counter, as multiples of
the plain sampling's 50 U-Net forwards. Networks have random weights; only shapes matter.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stableanimator_core.hjb.budget import chunk_bytes
from stableanimator_core.hjb.crop import displayed, face_crop
from stableanimator_core.hjb.decoder import Decoding, statistics_of
from stableanimator_core.hjb.identity_loss import SCALING_FACTOR, IdentityLoss, faces_of_clip, pixels_of
from stableanimator_core.hjb.memory import GIB, peak_bytes
from stableanimator_core.hjb.options import HJBOptions, Setting
from stableanimator_core.hjb.refine import LossAndGradient, differentiate, refine_x0
from stableanimator_core.hjb.regions import Box
from stableanimator_core.models.iresnet import IResNet
from stableanimator_core.models.vae import build_vae
from stableanimator_core.sigmas import karras_sigmas

ITERATIONS, NUM_STEPS, CHUNK = 3, 25, 4
FULL_WIDTHS, MEDIUM_WIDTHS = (128, 256, 512, 512), (32, 32, 64, 64)
FULL_SIZES = [(512, 512), (576, 1024)]
FACE_SHARE = 4  # the face is a fourth of the height: 128 of 512 pixels


@dataclass(frozen=True)
class Result:
    """One measured way."""

    name: str
    seconds: float
    gib: float


def random_decoder(widths: tuple[int, ...], device: str) -> nn.Module:
    with torch.device(device):
        vae = build_vae(
            {
                "down_block_types": ["DownEncoderBlock2D"] * len(widths),
                "block_out_channels": list(widths),
                "layers_per_block": 2,
            }
        )
    return vae.decoder.to(device).eval().requires_grad_(False)  # a few parameters ignore torch.device


def face_boxes(num_frames: int, height: int, width: int) -> list[list[Box]]:
    side = height // FACE_SHARE
    top, left = height // 8, (width - side) // 2
    return [[Box(top + frame % 3, top + side + frame % 3, left, left + side)] for frame in range(num_frames)]


class Bench:
    """Networks and a clip, and the ways to refine it.

    Args:
        decoder, embedder: networks on the device.
        height, width: of the picture, pixels.
        num_frames: of the clip.
    """

    def __init__(self, decoder: nn.Module, embedder: nn.Module, height: int, width: int, num_frames: int):
        device = next(decoder.parameters()).device
        generator = torch.Generator().manual_seed(0)
        self.x0 = torch.randn(num_frames, 4, height // 8, width // 8, generator=generator).to(device)
        self.decoder, self.embedder = decoder, embedder
        self.faces = faces_of_clip(face_boxes(num_frames, height, width), *pixels_of(self.x0))
        with torch.no_grad():
            self.identity = embedder(torch.randn(1, 3, 112, 112, generator=generator).to(device))

    def published(self) -> LossAndGradient:
        """The whole clip in one graph, each block of each chunk checkpointed as diffusers does it."""
        self.decoder._gradient_checkpointing_func = _published_checkpoint  # type: ignore[assignment]
        self.decoder.gradient_checkpointing = True  # type: ignore[assignment]

        def loss(latents: Tensor) -> Tensor:
            chunks = (latents / SCALING_FACTOR).split(CHUNK)
            indicator = torch.zeros(1, CHUNK, device=latents.device)
            parts = [self.decoder(part, indicator[:, : len(part)], len(part)) for part in chunks]
            shown = displayed(torch.cat(parts).float())
            crops = [face_crop(shown[frame], boxes[0]) for frame, boxes in enumerate(self.faces.boxes)]
            cosines = torch.cosine_similarity(self.embedder(torch.cat(crops)), self.identity)
            return (1 - cosines).abs().mean()

        return differentiate(loss)

    def ours(self, setting: Setting) -> LossAndGradient:
        decoder = self.decoder.to(setting.dtype)
        return IdentityLoss(decoder, self.embedder, self.identity, self.faces, setting)

    def measure(self, name: str, make: Callable[[], LossAndGradient]) -> Result:
        self.decoder.float()
        self.decoder.gradient_checkpointing = False  # type: ignore[assignment]
        step = _step(make(), self.x0)
        if not self.x0.is_cuda:
            peak = peak_bytes(step)
            started = time.process_time()
            step()
            return Result(name, time.process_time() - started, peak / GIB)
        step()  # the first one chooses convolution algorithms
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        started = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        return Result(name, seconds, (torch.cuda.max_memory_allocated() - before) / GIB)


def _step(loss: LossAndGradient, x0: Tensor) -> Callable[[], Tensor]:
    return lambda: refine_x0(x0, loss, iterations=1, learning_rate=0.05)


def _published_checkpoint(function: Callable, *arguments: object) -> object:
    return torch.utils.checkpoint.checkpoint(function, *arguments, use_reentrant=False)


def ways(half: torch.dtype, with_half: bool) -> list[tuple[str, Setting]]:
    levels = ["none", "activations", "block", "resblock"]
    rows = [(f"exact, {level}, fp32", Setting(level, CHUNK, torch.float32)) for level in levels]
    if with_half:
        rows += [(f"exact, {level}, half", Setting(level, CHUNK, half)) for level in levels]
    rows.append(("fast, activations, fp32", Setting("activations", CHUNK, torch.float32, True)))
    if with_half:
        rows.append(("fast, activations, half", Setting("activations", CHUNK, half, True)))
    return rows


def measured(device: str, full_size: bool, num_frames: int) -> list[Result]:
    """The first table at one size (CPU or small) or all real sizes."""
    widths = FULL_WIDTHS if full_size else MEDIUM_WIDTHS
    sizes = FULL_SIZES if full_size else [(128, 128)]
    torch.manual_seed(0)
    decoder = random_decoder(widths, device)
    layers = (3, 13, 30, 3) if full_size else (1, 1, 1, 1)
    embedder = IResNet(layers=layers).to(device).eval().requires_grad_(False)
    results = []
    for height, width in sizes:
        bench = Bench(decoder, embedder, height, width, num_frames)
        print(f"\n{num_frames} frames of {width}x{height}, widths {widths}, on {device}; one Adam update")
        results += compared(bench, with_half=device == "cuda")
    return results


def compared(bench: Bench, *, with_half: bool) -> list[Result]:
    """Every way on one clip, a printed row each, with ratios to the first that fits the memory."""
    print(f"{'':42} {'s':>9} {'GiB':>8} {'time':>6} {'memory':>7}")
    rows: list[tuple[str, Callable[[], LossAndGradient]]] = [
        ("as published: one graph, fp32", bench.published)
    ]
    rows += [(name, partial(bench.ours, setting)) for name, setting in ways(torch.bfloat16, with_half)]
    results: list[Result] = []
    for name, make in rows:
        try:
            results.append(bench.measure(name, make))
        except torch.OutOfMemoryError:
            print(f"{name:42} out of memory")
            torch.cuda.empty_cache()
            continue
        result, base = results[-1], results[0]
        ratios = f"{result.seconds / base.seconds:6.2f} {result.gib / base.gib:7.2f}"
        print(f"{name:42} {result.seconds:9.2f} {result.gib:8.3f} {ratios}", flush=True)
    return results


def unet_tflop(height: int, width: int, num_frames: int) -> float:
    """TFLOP of one U-Net forward, batch 1, at the real widths."""
    from diffusers import UNetSpatioTemporalConditionModel

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet = UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20)).to("meta")
        sample = torch.empty(1, num_frames, 8, height // 8, width // 8)
        unet(sample, torch.empty(1), torch.empty(1, 5, 1024), torch.empty(1, 3))
    return counter.get_total_flops() / 1e12


def decode_tflop(decoder: nn.Module, setting: Setting, height: int, width: int) -> tuple[float, float]:
    """TFLOP per frame of one evaluation there and back, and of one decoding without gradient."""
    with torch.device("meta"):
        latents = torch.empty(CHUNK, 4, height // 8, width // 8)
    with FlopCounterMode(display=False) as plain:
        statistics = statistics_of(decoder, latents)
    box = face_boxes(1, height, width)[0][0] if setting.crop else None
    with FlopCounterMode(display=False) as both:
        variable = latents.detach().requires_grad_()
        frozen = statistics if setting.crop else None
        decoded = Decoding(decoder, checkpointing=setting.checkpointing, frozen=frozen)(variable, box)
        decoded.backward(torch.empty_like(decoded))
    return both.get_total_flops() / CHUNK / 1e12, plain.get_total_flops() / CHUNK / 1e12


def derived(num_frames: int) -> list[dict[str, object]]:
    """The second table: real sizes, nothing computed."""
    decoder = random_decoder(FULL_WIDTHS, "meta")
    rows: list[dict[str, object]] = []
    for height, width in FULL_SIZES:
        plain = 2 * NUM_STEPS * unet_tflop(height, width, num_frames)
        print(
            f"\nderived, {num_frames} frames of {width}x{height}, bf16; plain sampling is {plain:.0f} TFLOP"
        )
        print(f"{'':26} {'steps':>5} {'GiB held':>9} {'with U-Net':>11} {'FLOPs / plain sampling':>23}")
        for mode in ("exact", "late", "fast"):
            for level in ("none", "activations", "block", "resblock"):
                cost = derived_cost(decoder, HJBOptions(mode=mode), level, height, width, num_frames)
                cost["flops_ratio"] /= plain
                numbers = f"{cost['steps']:5.0f} {cost['gib']:9.2f} {cost['gib'] + UNET_GIB:11.2f}"
                print(f"{mode + ', ' + level:26} {numbers} {cost['flops_ratio']:23.2f}", flush=True)
                rows.append({"size": f"{width}x{height}", "mode": mode, "checkpointing": level, **cost})
    return rows


def derived_cost(
    decoder: nn.Module, options: HJBOptions, level: str, height: int, width: int, num_frames: int
) -> dict[str, float]:
    """Optimised steps, GiB held with the decoder and IResNet-100, and TFLOP of the whole run in bf16."""
    sigmas = karras_sigmas(NUM_STEPS).tolist()
    steps = sum(options.active(step, sigmas[step], NUM_STEPS) for step in range(NUM_STEPS))
    setting = Setting(level, CHUNK, torch.bfloat16, options.crops)
    box = face_boxes(1, height, width)[0][0] if setting.crop else None
    held = chunk_bytes(decoder, setting, (CHUNK, height // 8, width // 8), box)
    held += 2 * _count(decoder) + 4 * IRESNET100_PARAMETERS
    update, decoding = decode_tflop(decoder, setting, height, width)
    whole = -(-steps // options.statistics_every) if setting.crop else 0
    total = num_frames * (steps * ITERATIONS * update + (whole + 1) * decoding)
    return {"steps": steps, "gib": held / GIB, "flops_ratio": total}


IRESNET100_PARAMETERS = 65_156_160
UNET_GIB = 2.89  # weights of the real U-Net in half precision


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--full-size", action="store_true", help="measure the real widths, 512x512 and 1024x576"
    )
    parser.add_argument("--frames", type=int, help="16 at full size, else 8")
    parser.add_argument("--skip-derived", action="store_true", help="leave out the second table")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    num_frames = arguments.frames or (16 if arguments.full_size else 8)
    results = [asdict(result) for result in measured(arguments.device, arguments.full_size, num_frames)]
    rows = [] if arguments.skip_derived else derived(16)
    if arguments.json:
        arguments.json.write_text(json.dumps({"measured": results, "derived": rows}, indent=1))


if __name__ == "__main__":
    main()

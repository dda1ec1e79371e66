"""Seconds and memory of a training step here, with and without checkpointing and cached latents, in one run.

    python benchmarks/train.py                              a small network on the CPU, about a minute
    python benchmarks/train.py --device cuda --full-size    the real shapes: 512x512 and 576x1024, fp16

Weights and pictures are random: time and memory do not depend on them. A step is what the trainer does: conditions,
forward, backward, AdamW. "from pictures" encodes every clip by VAE and CLIP in the step, "cached" takes what they
would have made.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import time
from typing import Any

import torch
from side_by_side import device_name

from stableanimator_core.models.face_encoder import FaceEncoder
from stableanimator_core.models.image_encoder import build_image_encoder
from stableanimator_core.models.pose_net import PoseNet
from stableanimator_core.models.unet import build_unet
from stableanimator_core.models.vae import build_vae
from stableanimator_core.training.frozen import Frozen
from stableanimator_core.training.settings import Training
from stableanimator_core.training.step import TrainedNetworks, conditions_of
from stableanimator_core.training.trainable import choose_trainable, start_adapter_from_image_attention

GIB = 1 << 30
SMALL = {"widths": (64, 96, 128, 128), "heads": (2, 3, 4, 4), "layers": 1, "token": 128, "vae": (32,) * 4}
FULL = {
    "widths": (320, 640, 1280, 1280),
    "heads": (5, 10, 20, 20),
    "layers": 2,
    "token": 1024,
    "vae": (128, 256, 512, 512),
}
FULL_SIZES = ((512, 512), (1024, 576))  # height, width
CLIP_H = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
CLIP_SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    shape = FULL if options.full_size else SMALL
    sizes = [tuple(options.size[::-1])] if options.size else FULL_SIZES if options.full_size else [(128, 128)]
    precision = options.precision or ("fp16" if device.type == "cuda" else "no")
    networks, frozen = build(shape, options, device, DTYPES[precision])
    learning = sum(p.numel() for p in networks.parameters() if p.requires_grad)
    print(
        f"{device_name(device)}, torch {torch.__version__}, {precision}, {learning / 1e6:.1f} M parameters learn"
    )
    for height, width in sizes:
        print(f"{width}x{height}, {options.batch} x {options.frames} frames")
        first = None
        for cached, checkpointing in itertools.product((True, False), (False, True)):
            label = f"{'cached' if cached else 'from pictures'}{', checkpointing' if checkpointing else ''}"
            sample = random_sample(options, height, width, shape["token"], device, cached=cached)
            switch_checkpointing(networks.unet, checkpointing)
            place(frozen, torch.device("cpu") if cached else device)
            try:
                seconds, peak = measure(
                    networks, None if cached else frozen, sample, precision, options.repeats
                )
            except torch.OutOfMemoryError:
                print(f"  {label:28s} does not fit into memory")
                continue
            first = first or seconds
            memory = f"{peak / GIB:6.2f} GiB peak" if peak is not None else ""
            print(f"  {label:28s} {seconds:8.3f} s/step  {seconds / first:5.2f} x  {memory}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--full-size", action="store_true", help="the real networks")
    parser.add_argument("--size", type=int, nargs=2, metavar=("W", "H"), help="pixels, multiples of 64")
    parser.add_argument("--frames", type=int, default=0, help="per clip; 16 at full size, else 8")
    parser.add_argument("--batch", type=int, default=1, help="clips per step")
    parser.add_argument("--precision", choices=tuple(DTYPES), help="fp16 on CUDA, else no")
    parser.add_argument("--trainable", choices=("official", "all"), default="official")
    parser.add_argument("--repeats", type=int, default=3, help="steps per measurement; the fastest counts")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice if left out")
    options = parser.parse_args()
    options.frames = options.frames or (16 if options.full_size else 8)
    return options


def build(
    shape: dict[str, Any], options: argparse.Namespace, device: torch.device, dtype: torch.dtype
) -> tuple[TrainedNetworks, Frozen]:
    """What learns, in float32, and what does not, in `dtype`."""
    torch.manual_seed(0)
    token = shape["token"]
    config = {
        "in_channels": 8,
        "out_channels": 4,
        "block_out_channels": shape["widths"],
        "num_attention_heads": shape["heads"],
        "cross_attention_dim": token,
        "layers_per_block": shape["layers"],
    }
    vae = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "block_out_channels": shape["vae"],
        "layers_per_block": shape["layers"],
        "latent_channels": 4,
    }
    clip = {**(CLIP_H if options.full_size else CLIP_SMALL), "projection_dim": token, "image_size": 224}
    with torch.device(device):
        unet, pose_net = build_unet(config), PoseNet(shape["widths"][0])
        face_encoder = FaceEncoder(token_width=token, image_width=token)
        frozen = Frozen(
            build_vae(vae), build_image_encoder({**clip, "patch_size": 14 if options.full_size else 32})
        )
    start_adapter_from_image_attention(unet)
    choose_trainable(unet, pose_net, face_encoder, what=options.trainable)
    for network in (frozen.vae, frozen.image_encoder):
        network.to(device, dtype).eval().requires_grad_(False)
    return TrainedNetworks(unet, pose_net, face_encoder, Training()).train(), frozen


def random_sample(
    options: argparse.Namespace, height: int, width: int, token: int, device: torch.device, *, cached: bool
) -> dict[str, torch.Tensor]:
    """A collated sample, see `training.samples`."""
    b, f, h, w = options.batch, options.frames, height // 8, width // 8
    common = {
        "identity": torch.randn(b, 512),
        "poses": torch.randint(0, 255, (b, f, height, width, 3), dtype=torch.uint8),
        "face_masks": torch.zeros(b, f, 1, h, w),
        "posterior_noise": torch.randn(b, f, 4, h, w),
        "reference_posterior_noise": torch.randn(b, 4, h, w),
        "noise": torch.randn(b, f, 4, h, w),
        "sigma": torch.full((b,), 0.7),
        "drop": torch.full((b,), 0.9),
    }
    if cached:
        frames = {
            "target_mean": torch.randn(b, f, 4, h, w),
            "target_std": torch.rand(b, f, 4, h, w),
            "reference_mean": torch.randn(b, 4, h, w),
            "reference_std": torch.rand(b, 4, h, w),
            "image_embedding": torch.randn(b, token),
        }
    else:
        frames = {
            "pixels": torch.rand(b, f, 3, height, width) * 2 - 1,
            "reference": torch.rand(b, 3, height, width) * 2 - 1,
            "clip_pixels": torch.randn(b, 3, 224, 224),
        }
    return {name: tensor.to(device) for name, tensor in (common | frames).items()}


def place(frozen: Frozen, device: torch.device) -> None:
    for network in (frozen.vae, frozen.image_encoder):
        network.to(device)


def switch_checkpointing(unet: Any, on: bool) -> None:
    (unet.enable_gradient_checkpointing if on else unet.disable_gradient_checkpointing)()


def measure(
    networks: TrainedNetworks, frozen: Frozen | None, sample: dict, precision: str, repeats: int
) -> tuple[float, int | None]:
    """Seconds of the fastest step, and the largest memory in use: on the card, or of this process."""
    device, dtype = sample["sigma"].device, DTYPES[precision]
    learning = [p for p in networks.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-5)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16" and device.type == "cuda")
    times = []
    forget_peak(device)
    for _ in range(repeats + 1):  # the first one makes the optimiser's state
        began = time.perf_counter()
        batch = conditions_of(sample, frozen, dtype)
        with torch.autocast(device.type, dtype, enabled=precision != "no"):
            loss = networks(batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        float(loss.detach())  # waits for the device
        times.append(time.perf_counter() - began)
    peak = peak_bytes(device)
    del optimizer, loss, batch
    return min(times[1:]), peak


def forget_peak(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # or the largest run so far would count for all after it
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # Linux: start the high-water mark anew
    except OSError:
        pass


def peak_bytes(device: torch.device) -> int | None:
    """None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()

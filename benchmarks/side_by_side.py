"""What the benchmarks of the two denoising networks share: options, and measuring functions side by side."""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

GIB = 1 << 30
MEDIUM = (64, 128, 256, 256)
FULL = (320, 640, 1280, 1280)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options of both programs; each adds its own `--frames`."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    found.add_argument(
        "--full-size", action="store_true", help="the real widths; else a network of 1/5 the width"
    )
    found.add_argument("--size", type=int, nargs=2, metavar=("W", "H"), help="pixels, multiples of 64")
    found.add_argument("--dtype", choices=("float32", "float16", "bfloat16"))
    found.add_argument("--repeats", type=int, default=5, help="runs per measurement; the fastest counts")
    found.add_argument("--threads", type=int, help="CPU threads; torch's own choice if left out")
    return found


@dataclass(frozen=True)
class Plan:
    """Widths of the network, sizes (height, width) in pixels, and where and in what it runs."""

    widths: tuple[int, ...]
    sizes: list[tuple[int, int]]
    device: torch.device
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{device_name(self.device)}, {self.dtype}, torch {torch.__version__}, widths {self.widths}"


def plan(options: argparse.Namespace, full_sizes: Sequence[tuple[int, int]]) -> Plan:
    """What the options ask for. Sets the number of threads."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    dtype = getattr(torch, options.dtype or ("float16" if device.type == "cuda" else "float32"))
    sizes = list(full_sizes) if options.full_size else [(256, 256)]
    if options.size:
        sizes = [(options.size[1], options.size[0])]
    return Plan(FULL if options.full_size else MEDIUM, sizes, device, dtype)


def device_name(device: torch.device) -> str:
    """The card's name, or the CPU and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


@dataclass(frozen=True)
class Measured:
    """The fastest of several runs, and the memory it needed beyond what was there before."""

    seconds: float
    peak_bytes: int | None


def measure(
    functions: dict[str, Callable[[], Tensor]], repeats: int, device: torch.device
) -> dict[str, Measured]:
    """Fastest time of each function; they take turns, so that a busy machine hurts all of them alike."""
    peaks = {}
    for name, function in functions.items():
        function()  # warm up, and compile
        peaks[name] = peak_memory(function, device)
    seconds: dict[str, float] = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            seconds[name] = min(seconds[name], timed(function, device))
    return {name: Measured(seconds[name], peaks[name]) for name in functions}


def timed(function: Callable[[], Tensor], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_memory(function: Callable[[], Tensor], device: torch.device) -> int | None:
    """Bytes needed beyond what was in use before; None where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # Linux: give freed memory back, or the run would use it unseen,
        Path("/proc/self/clear_refs").write_text("5")  # and forget the largest resident size so far
    except (OSError, AttributeError):
        return None
    before = resident_bytes("VmRSS")
    function()
    return resident_bytes("VmHWM") - before


def resident_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])

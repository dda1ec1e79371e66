"""The joint finder that evaluation measures poses with, trained on the store's exact joints.

Losses: distance of the soft-argmax (in units of a thousandth of the picture's side, joints in the picture alone),
cross-entropy of the heatmap's nearest cell, and of whether a joint is seen. Pictures are also shown blurred and
noisy, because it is made for generated ones.
Axes: b pictures, j joints.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...evaluation.joint_detector import JointDetector, save_joint_detector, soft_argmax
from ...pose.people import VISIBLE
from ...preprocess import from_uint8
from .loop import Stage
from .store import FrameStore

_MAP_WEIGHT, _SEEN_WEIGHT = 0.1, 0.1
_DISTANCE_SCALE = 20.0
_SHIFT = 12  # pixels, at most


class JointStage(Stage):
    """See the module.

    Args:
        store: the pictures.
        seed: of the first weights.
        batch: pictures of a step.
    """

    name = "joints"
    peak_rate = 3e-3
    weight_decay = 1e-3

    def __init__(self, store: FrameStore, seed: int = 0, batch: int = 48):
        torch.manual_seed(seed + 104729)
        self.store, self.batch = store, batch
        self.network: JointDetector = JointDetector()
        self.numbers = store.training

    def losses(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        pixels, points, seen = self._drawn(random.choice(self.numbers, self.batch), random)
        with torch.autocast("cpu", torch.bfloat16):
            logits, seen_logits = (output.float() for output in self.network(pixels))
        inside = seen & (points > 0).all(dim=2) & (points < 1).all(dim=2)
        height, width = logits.shape[-2:]
        cells = (points.clamp(0, 0.999) * torch.tensor([width, height])).long()
        flat = (cells[..., 1] * width + cells[..., 0])[inside]
        distances = (soft_argmax(logits) - points).norm(dim=2)[inside]
        return {
            "distance": _DISTANCE_SCALE * distances.mean(),
            "maps": _MAP_WEIGHT * F.cross_entropy(logits.flatten(2)[inside], flat),
            "seen": _SEEN_WEIGHT * F.binary_cross_entropy_with_logits(seen_logits, inside.float()),
        }

    def evaluate(self) -> dict[str, float]:
        numbers = self.store.held_out
        numbers = numbers[:: max(1, len(numbers) // 400)]
        points, seen = self._truth(numbers)
        found = torch.cat([self.network.locate(part).points for part in self._pixels(numbers).split(64)])
        inside = seen & (points > 0).all(dim=2) & (points < 1).all(dim=2)
        distances = (found - points).norm(dim=2)
        heights = figure_heights(points, inside)[:, None].expand_as(distances)
        return {
            "percent_of_picture": 100 * float(distances[inside].mean()),
            "percent_of_height": 100 * float((distances / heights)[inside].mean()),
            "median_percent_of_height": 100 * float((distances / heights)[inside].median()),
        }

    def export(self, folder: Path, dtype: torch.dtype) -> list[Path]:
        path = folder / "joints.safetensors"
        save_joint_detector(path, self.network, dtype)
        return [path]

    def _pixels(self, numbers: np.ndarray) -> Tensor:
        return from_uint8(self.store.frames[numbers]).permute(0, 3, 1, 2)

    def _truth(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        points = torch.from_numpy(np.nan_to_num(self.store.joints[numbers]))
        return points, torch.from_numpy(self.store.joint_scores[numbers] > VISIBLE)

    def _drawn(self, numbers: np.ndarray, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures in [-1, 1], shifted and worsened, their joints and which are seen."""
        points, seen = self._truth(numbers)
        pixels = self._pixels(numbers)
        size = pixels.shape[-1]
        if random.random() < 0.5:
            side = int(random.integers(size // 3, size))
            pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
            pixels = F.interpolate(pixels, size=(size, size), mode="bilinear")
        dx, dy = random.integers(-_SHIFT, _SHIFT + 1, size=2)
        pixels = F.pad(pixels, (_SHIFT,) * 4, mode="replicate")
        pixels = pixels[..., _SHIFT - dy : _SHIFT - dy + size, _SHIFT - dx : _SHIFT - dx + size]
        points = points + torch.tensor([dx / size, dy / size], dtype=torch.float32)
        noise = 0.05 * random.random() * random.standard_normal(pixels.shape, dtype=np.float32)
        light = torch.from_numpy(random.uniform(0.85, 1.15, (len(numbers), 3, 1, 1)).astype(np.float32))
        return (pixels * light + torch.from_numpy(noise)).clamp(0, 1) * 2 - 1, points, seen


def figure_heights(points: Tensor, inside: Tensor, least: float = 0.25) -> Tensor:
    """[b] heights of the figures, fractions of the picture: from the highest to the lowest joint in it.

    Args:
        points: [b j 2], fractions.
        inside: [b j], which joints count.
        least: smallest height, for figures of which little is seen.
    """
    y = points[..., 1]
    highest = torch.where(inside, y, 1.0).amin(dim=1)
    lowest = torch.where(inside, y, 0.0).amax(dim=1)
    return (lowest - highest).clamp_min(least)

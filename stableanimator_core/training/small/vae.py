"""The small temporal-decoder VAE, trained from nothing on the frame store.

Layout: Stable Video Diffusion's AutoencoderKLTemporalDecoder (diffusers), /8 and 4 channels, narrower.
Loss: L1, sharper on faces; L1 of differences to the right and downwards at three scales, in place of a perceptual
network; L1 of blurred colours, hues above all; colours linear in the latents; a small KL. The temporal layers begin
as the identity; a phase that is told so trains them, on single frames and short clips.
Axes: b pictures, f frames of a clip, H W pixels, h w latent cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.vae import SCALING_FACTOR
from ...preprocess import from_uint8
from ...weights.files import save_weights
from .loop import Stage
from .normalised_vae import NormalisedVAE, folded
from .store import FrameStore

CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "block_out_channels": [32, 32, 64, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "scaling_factor": SCALING_FACTOR,
    "norm_num_groups": 8,
}
_FACE_WEIGHT = 2.0  # added to 1 where the face is
_EDGE_WEIGHT = 1.0
_KL_WEIGHT = 1e-4
_GREY_WEIGHT, _HUE_WEIGHT = 0.3, 1.0
_LINEAR_WEIGHT = 0.1


@dataclass(frozen=True)
class Phase:
    """One part of the training.

    Attributes:
        until: progress at which it ends.
        crop: side of the cuts in pixels; at most the store's.
        batch: cuts of a step.
        temporal: whether the temporal layers take part, on clips, with the encoder standing still.
    """

    until: float
    crop: int
    batch: int
    temporal: bool = False


PHASES = (Phase(0.8, 32, 16), Phase(0.92, 64, 5), Phase(1.0, 128, 2))
"""Many cheap cuts teach colours and edges. Whole pictures come last, because group norms differ between cuts and
wholes. No phase trains the temporal layers: as long as they are the identity, Animate Anyone has the same VAE."""


class VAEStage(Stage):
    """See the module.

    Args:
        store: the pictures.
        seed: of the first weights.
        config: of the VAE.
        phases: what is shown when.
        num_frames: longest clip the decoder sees; at most the store's.
    """

    name = "vae"
    peak_rate = 3e-3
    weight_decay = 1e-4

    def __init__(
        self,
        store: FrameStore,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
        phases: Sequence[Phase] = PHASES,
        num_frames: int = 4,
    ):
        torch.manual_seed(seed)
        self.config = dict(config or CONFIG)
        self.network: NormalisedVAE = NormalisedVAE(self.config)
        self.store, self.schedule = store, tuple(phases)
        self.num_frames = min(num_frames, store.plan.num_frames)
        self.starts = store.clip_starts()

    def losses(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        phase = next((phase for phase in self.schedule if progress < phase.until), self.schedule[-1])
        if phase.temporal:
            self._stand_still()
        num_frames = int(random.choice([1, 2, self.num_frames])) if phase.temporal else 1
        crop = min(phase.crop, self.store.plan.size)
        pixels, weight = self._drawn(random, max(1, phase.batch // num_frames), num_frames, crop)
        noise = random.standard_normal(
            (len(pixels), self.config["latent_channels"], crop // 8, crop // 8), dtype=np.float32
        )
        with torch.autocast("cpu", torch.bfloat16):
            mean, log_variance = self.network.encode(pixels)
            latents = mean + (log_variance / 2).exp() * torch.from_numpy(noise)
            if phase.temporal:
                decoded = self.network.decode(latents, num_frames)
            else:
                decoded = self.network.decode_spatially(latents)
        terms = {
            "l1": (weight * (decoded - pixels).abs()).mean() / weight.mean(),
            "edges": _EDGE_WEIGHT * edge_loss(decoded, pixels, weight),
            "colour": colour_loss(decoded, pixels),
        }
        if not phase.temporal:
            terms["linear"] = _LINEAR_WEIGHT * linear_colour_loss(mean, pixels)
            terms["kl"] = _KL_WEIGHT * (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
        return terms

    def evaluate(self) -> dict[str, float]:
        starts = self.store.clip_starts(held_out=True)
        starts = starts[:: max(1, len(starts) // 8)][:8]
        whole, face, stds = [], [], []
        for start in starts:
            pixels, weight = self._pictures(np.arange(start, start + self.num_frames))
            mean, _ = self.network.encode(pixels)
            error = (self.network.decode(mean, self.num_frames).clamp(-1, 1) - pixels) ** 2 / 4
            on_face = (weight > 1).expand_as(error)
            whole.append(psnr(error.mean()))
            face += [psnr(error[on_face].mean())] if on_face.any() else []
            stds.append(mean.std().item())
        return {
            "psnr": float(np.mean(whole)),
            "psnr_face": float(np.mean(face)) if face else float("nan"),
            "latent_std": float(np.mean(stds)),
        }

    def export(self, folder: Path, dtype: torch.dtype) -> list[Path]:
        place = folder / "SVD" / "vae"
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text(json.dumps(self.config, indent=1) + "\n")
        path = place / "diffusion_pytorch_model.safetensors"
        state = folded(self.network).state_dict()
        save_weights(path, {key: value.to(dtype) for key, value in state.items()})
        return [path]

    def _stand_still(self) -> None:
        if not self.network.frozen:
            numbers = np.random.default_rng(0).choice(self.starts, min(256, len(self.starts)), replace=False)
            parts = np.array_split(numbers, max(1, len(numbers) // 16))
            self.network.freeze([self._pictures(part)[0] for part in parts])
        self.network.keep_encoder()

    def _pictures(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures [b 3 H W] in [-1, 1] and the loss's weights [b 1 H W]."""
        pixels = from_uint8(self.store.frames[numbers]).permute(0, 3, 1, 2) * 2 - 1
        masks = from_uint8(self.store.masks[numbers])[:, None]
        return pixels.contiguous(), 1 + _FACE_WEIGHT * masks

    def _drawn(
        self, random: np.random.Generator, count: int, num_frames: int, crop: int
    ) -> tuple[Tensor, Tensor]:
        """`count` clips of `num_frames` frames, each cut alike: half of the cuts hold the face. As `_pictures`."""
        size = self.store.plan.size
        parts = []
        for start in random.choice(self.starts, count):
            start += random.integers(self.store.plan.num_frames - num_frames + 1)
            pixels, weight = self._pictures(np.arange(start, start + num_frames))
            top, left = random.integers(size - crop + 1, size=2)
            box = self.store.boxes[start]
            if random.random() < 0.5 and np.isfinite(box).all():
                middle = np.array([box[1] + box[3], box[0] + box[2]]) / 2 + random.uniform(
                    -crop / 4, crop / 4, 2
                )
                top, left = np.clip(middle - crop / 2, 0, size - crop).astype(int)
            cut = (..., slice(top, top + crop), slice(left, left + crop))
            flip = [3] if random.random() < 0.5 else []
            parts.append((pixels[cut].flip(flip), weight[cut].flip(flip)))
        pixels, weights = zip(*parts, strict=True)
        return torch.cat(pixels), torch.cat(weights)


def edge_loss(decoded: Tensor, pixels: Tensor, weight: Tensor, scales: int = 3) -> Tensor:
    """L1 of neighbours' differences [b c H W], in both directions, at full size, half of it, ..."""
    total = decoded.new_zeros(())
    for _ in range(scales):
        for axis in (2, 3):
            difference = (decoded.diff(dim=axis) - pixels.diff(dim=axis)).abs()
            shape = difference.shape[2:]
            total = total + (difference * weight[..., : shape[0], : shape[1]]).mean() / weight.mean()
        decoded, pixels, weight = (F.avg_pool2d(x, 2) for x in (decoded, pixels, weight))
    return total / scales


def colour_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """L1 of brightness, and of colour without it, [b 3 H W] at a quarter of the size: hues are learned late."""
    error = F.avg_pool2d(decoded - pixels, 4)
    grey = error.mean(dim=1, keepdim=True)
    return _GREY_WEIGHT * grey.abs().mean() + _HUE_WEIGHT * (error - grey).abs().mean()


def linear_colour_loss(latents: Tensor, pixels: Tensor, ridge: float = 1e-3) -> Tensor:
    """RMS of what the best linear map from a cell's latents [b 4 h w] to the mean colour of its pixels leaves over:
    colours that lie straight in the latents are learned sooner, and are easier for the diffusion network."""
    height, width = latents.shape[-2:]
    colours = F.adaptive_avg_pool2d(pixels, (height, width)).permute(0, 2, 3, 1).flatten(0, 2).double()
    cells = latents.permute(0, 2, 3, 1).flatten(0, 2).double()
    cells = torch.cat([cells, torch.ones_like(cells[:, :1])], dim=1)
    gram = cells.T @ cells / len(cells) + ridge * torch.eye(cells.shape[1], dtype=cells.dtype)
    solution = torch.linalg.solve(gram, cells.T @ colours / len(cells))
    return (colours - cells @ solution).square().mean().sqrt().float()


def psnr(error: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error on the scale 0..1."""
    return float(-10 * error.clamp_min(1e-10).log10())

"""The small temporal-decoder VAE, trained from nothing on the frame store.

Layout: Stable Video Diffusion's AutoencoderKLTemporalDecoder (diffusers), /8 and 4 channels, narrower.
Loss: L1, sharper on faces; L1 of differences to the right and downwards at three scales, in place of a perceptual
network; a small KL. The temporal layers begin as the identity and are left out until the last phase, where the
decoder sees single frames and short clips.
While it trains, latents are brought to mean 0 and variance 1 per channel between encoder and decoder; `folded`
moves those numbers into the weights, so that diffusion sees unit variance after the scaling factor.
Axes: b pictures, f frames of a clip, H W pixels, h w latent cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.vae import SCALING_FACTOR, build_vae
from ...preprocess import from_uint8
from ...weights.files import save_weights
from .loop import Stage
from .store import FrameStore

if TYPE_CHECKING:
    from diffusers import AutoencoderKLTemporalDecoder

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


PHASES = (Phase(0.4, 32, 32), Phase(0.65, 64, 10), Phase(0.85, 128, 4), Phase(1.0, 128, 4, temporal=True))
"""Many cheap cuts teach colours and edges first. Whole pictures come later, because group norms differ between cuts
and wholes; temporal layers last, as Stable Video Diffusion trained its own."""

_MOMENTUM = 0.02
_FIRST_LOG_VARIANCE = -6.0


class NormalisedVAE(nn.Module):
    """The VAE with running statistics of its latents, which stand between encoder and decoder."""

    latent_mean: Tensor
    latent_std: Tensor
    frozen: Tensor

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        self.config = dict(config)
        self.vae = build_vae(config)
        channels = int(config["latent_channels"])
        with torch.no_grad():  # begin with little noise: at variance 1 nothing would get through
            self.vae.quant_conv.weight[channels:] *= 0.1
            self.vae.quant_conv.bias[channels:] = _FIRST_LOG_VARIANCE  # pyright: ignore[reportOptionalSubscript]
        _make_temporal_layers_identity(self.vae.decoder)
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_std", torch.ones(channels))
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures [b 3 H W] in [-1, 1] to mean and log variance [b 4 h w] of unit-variance latents."""
        moments = self.vae.quant_conv(self.vae.encoder(pixels)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        if self.training and not self.frozen:
            self._follow(mean.detach())
        mean = (mean - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]
        return mean, log_variance.clamp(-12, 4)

    def decode(self, latents: Tensor, num_frames: int) -> Tensor:
        """Unit-variance latents [b 4 h w] to pictures; b is a multiple of `num_frames`."""
        return self.vae.decode(latents, num_frames=num_frames).sample.float()  # pyright: ignore[reportAttributeAccessIssue]

    def decode_spatially(self, latents: Tensor) -> Tensor:
        """As `decode`, without the temporal layers."""
        decoder = self.vae.decoder
        x = decoder.conv_in(latents)
        first, *others = decoder.mid_block.resnets
        x = first.spatial_res_block(x, None)
        for resnet, attention in zip(others, decoder.mid_block.attentions, strict=False):
            x = resnet.spatial_res_block(attention(x), None)
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                x = resnet.spatial_res_block(x, None)
            for upsampler in block.upsamplers or ():
                x = upsampler(x)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x))).float()

    @torch.no_grad()
    def freeze(self, pixels: list[Tensor]) -> None:
        """Take the statistics of these batches for good."""
        moments = [self.vae.quant_conv(self.vae.encoder(batch)).float() for batch in pixels]
        means = torch.cat([moment.chunk(2, dim=1)[0] for moment in moments])
        self.latent_mean.copy_(means.mean(dim=(0, 2, 3)))
        self.latent_std.copy_(means.std(dim=(0, 2, 3)))
        self.frozen.fill_(True)

    def keep_encoder(self) -> None:
        """No gradients for the encoder from now on."""
        self.vae.encoder.requires_grad_(False)
        self.vae.quant_conv.requires_grad_(False)

    def _follow(self, mean: Tensor) -> None:
        std = mean.std(dim=(0, 2, 3)).clamp_min(1e-4)
        untouched = bool((self.latent_std == 1).all())
        share = 1.0 if untouched else _MOMENTUM
        self.latent_mean.lerp_(mean.mean(dim=(0, 2, 3)), share)
        self.latent_std.lerp_(std, share)


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
    peak_rate = 2e-3
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
        self.store, self.phases = store, tuple(phases)
        self.num_frames = min(num_frames, store.plan.num_frames)
        self.starts = store.clip_starts()

    def losses(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        phase = next((phase for phase in self.phases if progress < phase.until), self.phases[-1])
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
        return {
            "l1": (weight * (decoded - pixels).abs()).mean() / weight.mean(),
            "edges": _EDGE_WEIGHT * edge_loss(decoded, pixels, weight),
            "kl": _KL_WEIGHT * (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2,
        }

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


@torch.no_grad()
def _make_temporal_layers_identity(decoder: nn.Module) -> None:
    for name, module in decoder.named_modules():
        if name.endswith("temporal_res_block"):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
        if name.endswith("time_conv_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
            for channel in range(len(module.weight)):
                module.weight[channel, channel, module.weight.shape[2] // 2] = 1


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


def psnr(error: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error on the scale 0..1."""
    return float(-10 * error.clamp_min(1e-10).log10())


@torch.no_grad()
def folded(network: NormalisedVAE) -> AutoencoderKLTemporalDecoder:
    """A VAE of its own whose latents times the scaling factor are the unit-variance ones."""
    vae = build_vae(network.config)
    vae.load_state_dict(network.vae.state_dict())
    channels = len(network.latent_std)
    scale = 1 / (network.latent_std * SCALING_FACTOR)
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    weight[:channels] *= scale[:, None, None, None]
    bias[:channels] = (bias[:channels] - network.latent_mean) * scale  # pyright: ignore[reportOptionalSubscript]
    bias[channels:] -= 2 * float(np.log(SCALING_FACTOR))  # pyright: ignore[reportOptionalSubscript]
    vae.decoder.conv_in.weight *= SCALING_FACTOR
    return vae.eval()

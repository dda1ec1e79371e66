"""A VAE whose latents have mean 0 and variance 1 per channel while it trains.

Running statistics stand between encoder and decoder; `folded` moves them into the weights, so that diffusion sees
unit variance after the scaling factor and the file is a plain AutoencoderKLTemporalDecoder.
Axes: b pictures, H W pixels, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ...models.vae import SCALING_FACTOR, build_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderKLTemporalDecoder

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
        decoder: Any = self.vae.decoder
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


@torch.no_grad()
def _make_temporal_layers_identity(decoder: nn.Module) -> None:
    layers: dict[str, Any] = dict(decoder.named_modules())
    for name, layer in layers.items():
        if name.endswith("temporal_res_block"):
            nn.init.zeros_(layer.conv2.weight)
            nn.init.zeros_(layer.conv2.bias)
        if name.endswith("time_conv_out"):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            for channel in range(len(layer.weight)):
                layer.weight[channel, channel, layer.weight.shape[2] // 2] = 1

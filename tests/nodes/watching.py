"""What the network was given, call by call, and what a model with little memory gives, for the nodes' tests."""

from __future__ import annotations

import torch
from torch import Tensor


def forward_sizes(models, monkeypatch) -> list[int]:
    """A list that fills with the batch size of every forward of the network."""
    sizes: list[int] = []
    _watch(models, monkeypatch, lambda x, _: sizes.append(len(x)))
    return sizes


def skeletons_seen(models, monkeypatch) -> list[Tensor]:
    """A list that fills with the pose features [b ...] of every forward, the guidance halves one after the other."""
    seen: list[Tensor] = []
    _watch(models, monkeypatch, lambda _, options: seen.append(options["pose_features"]))
    return seen


def _watch(models, monkeypatch, look) -> None:
    unet = models.model.model.diffusion_model
    forward = unet._forward

    def looking(x, *args, **options):
        look(x, options)
        return forward(x, *args, **options)

    monkeypatch.setattr(unet, "_forward", looking)


def assert_a_third_of_the_memory_is_enough(model, sample) -> None:
    """Two thirds of the weights stay behind, and `sample(model)` gives the same latents bit for bit."""
    plain = sample(model)
    patcher = model.clone()
    patcher.unpatch_model(patcher.offload_device)
    patcher.load(patcher.load_device, lowvram_model_memory=patcher.model_size() // 3)
    assert patcher.model.model_lowvram
    assert torch.equal(sample(patcher), plain)
    patcher.unpatch_model(patcher.offload_device)

"""Conditioning made by the nodes, for their tests."""

from __future__ import annotations

from types import SimpleNamespace

import torch

SIDE = 64
SETTINGS = {
    "width": SIDE,
    "height": SIDE,
    "num_frames": 3,
    "seed": 0,
    "motion_bucket": 127,
    "fps": 7.0,
    "noise_augmentation": 0.02,
    "content_fusion": True,
    "noise_window": 16,
}


def photo(seed: int = 1) -> torch.Tensor:
    return torch.rand(1, 80, 70, 3, generator=torch.Generator().manual_seed(seed))


def skeletons(frames: int = 3, width: int = SIDE, height: int = SIDE) -> torch.Tensor:
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(2))


def face_of(pack, seed: int = 1, identity: torch.Tensor | None = None):
    identity = (
        torch.randn(512, generator=torch.Generator().manual_seed(seed)) if identity is None else identity
    )
    return pack.module("stableanimator_core.face.embed").FaceIdentity(identity, None, None, ())


def encode(pack, models, **changes) -> SimpleNamespace:
    sockets = {"clip_vision": models.clip_vision, "vae": models.vae, "face_encoder": models.face_encoder}
    values = {**sockets, "image": photo(), **SETTINGS, "face": face_of(pack), **changes}
    with torch.inference_mode():
        positive, negative, latent = pack.ArcFaceCLIPEncode.execute(**values).args
    return SimpleNamespace(positive=positive, negative=negative, latent=latent)


def posed(pack, models, clip, *values, poses=None) -> SimpleNamespace:
    poses = skeletons(len(clip.latent["samples"])) if poses is None else poses
    with torch.inference_mode():
        positive, negative = pack.ApplyPoseNet.execute(
            clip.positive, clip.negative, models.pose_net, poses, *(values or (1.0, 0.0, 1.0))
        ).args
    return SimpleNamespace(positive=positive, negative=negative, latent=clip.latent)


def adapted(pack, model, *values):
    return pack.IDAdapterUNet.execute(model, *values).args[0]

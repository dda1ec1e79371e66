"""One clip's frames against the truth: every measure, and the table of what the measures are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..pose.draw import Picture
from ..preprocess import from_uint8
from . import pictures
from .clips import EvaluationClip
from .likeness import csim, identities_of, identity_of
from .networks import Networks
from .pose_error import found_joints, pose_error

Measures = dict[str, float | None]
"""Value of each measure; None where it does not apply."""


@dataclass(frozen=True)
class Measure:
    """A column of the table.

    Attributes:
        label: its heading.
        form: how a value is written.
        higher_is_better: else lower is.
        unit_factor: what a value is multiplied by before it is written.
    """

    label: str
    form: str
    higher_is_better: bool
    unit_factor: float = 1.0

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """A value as the table shows it."""
        if value is None or not np.isfinite(value):
            return "–"
        return format(value * self.unit_factor, ("+" if signed else "") + self.form)


MEASURES = {
    "psnr": Measure("PSNR, dB", ".2f", True),
    "ssim": Measure("SSIM", ".3f", True),
    "features": Measure("feature distance", ".4f", False),
    "gradients": Measure("GMSD", ".4f", False),
    "face_psnr": Measure("PSNR of the face, dB", ".2f", True),
    "change": Measure("error of changes in time", ".2f", False),
    "pose": Measure("pose error, % of height", ".2f", False, 100),
    "csim": Measure("CSIM to the reference, judge", ".3f", True),
    "csim_truth": Measure("CSIM to the truth, judge", ".3f", True),
    "csim_climbed": Measure("CSIM to the reference, recogniser", ".3f", True),
    "csim_climbed_truth": Measure("CSIM to the truth, recogniser", ".3f", True),
}


@dataclass(frozen=True, eq=False)
class TrueFaces:
    """Identities in a clip's true frames, by one recogniser: `reference` [e] and `frames` [f e], NaN unseen."""

    reference: Tensor
    frames: Tensor

    @classmethod
    def of(cls, network: nn.Module, clip: EvaluationClip) -> TrueFaces:
        """Of a clip."""
        reference = identity_of(network, clip.inputs.reference, clip.inputs.reference_box)
        return cls(reference, identities_of(network, clip.frames, clip.face_boxes))


class Judge:
    """Judges the frames of one clip; what is known of the truth is computed once."""

    def __init__(self, networks: Networks, clip: EvaluationClip):
        self.networks, self.clip = networks, clip
        self.faces = {"csim_climbed": TrueFaces.of(networks.recogniser, clip)}
        if networks.judge is not None:
            self.faces["csim"] = TrueFaces.of(networks.judge, clip)

    def measures(self, frames: Picture) -> Measures:
        """All of `MEASURES` for frames uint8 [f H W 3]."""
        clip = self.clip
        encoder = self.networks.animator.vae.encoder
        face = pictures.psnr_in_boxes(frames, clip.frames, clip.face_boxes)
        found: Measures = {
            "psnr": float(pictures.psnr(frames, clip.frames).mean()),
            "ssim": float(pictures.ssim(frames, clip.frames).mean()),
            "features": float(pictures.feature_distance(encoder, frames, clip.frames).mean()),
            "gradients": float(pictures.gradient_deviation(frames, clip.frames).mean()),
            "face_psnr": float(np.nanmean(face)),
            "change": pictures.change_error(frames, clip.frames),
            "pose": self._pose(frames),
        }
        for name in ("csim", "csim_climbed"):
            found |= self._likeness(name, frames)
        return found

    def reconstructed(self) -> Picture:
        """The true frames through the VAE and back: the best that latents can give. uint8 [f H W 3]."""
        return reconstruct(self.networks, self.clip.frames)

    def _pose(self, frames: Picture) -> float | None:
        if self.networks.joints is None:
            return None
        joints = found_joints(self.networks.joints, frames)
        return pose_error(joints, self.clip.inputs.skeletons, self.clip.body_height)

    def _likeness(self, name: str, frames: Picture) -> Measures:
        truth = self.faces.get(name)
        network = self.networks.judge if name == "csim" else self.networks.recogniser
        if truth is None or network is None:
            return {name: None, f"{name}_truth": None}
        faces = identities_of(network, frames, self.clip.face_boxes)
        return {name: csim(faces, truth.reference), f"{name}_truth": csim(faces, truth.frames)}


@torch.no_grad()
def reconstruct(networks: Networks, frames: Picture) -> Picture:
    """Frames [f H W 3] encoded and decoded by the VAE, in the pipeline's own chunks."""
    from ..decode import DecodeOptions
    from ..models.vae import SCALING_FACTOR, encode_mode

    vae = networks.animator.vae
    pixels = from_uint8(frames).permute(0, 3, 1, 2) * 2 - 1
    latents = encode_mode(vae, pixels.to(next(vae.parameters())))
    return networks.animator.decode(latents * SCALING_FACTOR, DecodeOptions())

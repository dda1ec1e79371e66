"""The networks of an evaluation: those that animate, and those that judge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import small_model
from ..errors import WeightsError
from ..models.iresnet import IResNet
from ..pipeline import Animator
from .joint_detector import JointDetector


@dataclass(frozen=True, eq=False)
class Networks:
    """What `Networks.load` finds in a folder.

    Attributes:
        folder: where they come from.
        animator: U-Net, PoseNet, Face Encoder, VAE and image encoder.
        recogniser: gives the identity; the face optimisation climbs it.
        judge: another recogniser, which nothing is ever optimised with; None if the folder has none.
        joints: finds joints; None likewise.
        fingerprint: of the files that animate; `judges_fingerprint` of those that judge.
    """

    folder: Path
    animator: Animator
    recogniser: IResNet
    judge: IResNet | None
    joints: JointDetector | None
    fingerprint: str
    judges_fingerprint: str

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu", with_judge: bool = True) -> Networks:
        """Read the files that `small_model` names; they are used in float32. Judges may be missing.

        Args:
            folder: of the files.
            device: where they compute.
            with_judge: off where something is chosen: the judge of likeness must take no part in that.

        Raises:
            WeightsError: a file that animates is missing, damaged or another model.
        """
        from ..weights.load import load_face_recognizer
        from .joint_detector import load_joint_detector

        lacking = small_model.missing(folder, judges=False)
        if lacking:
            remedy = "give a folder with the small model's files"
            raise WeightsError(str(folder), f"lacks {', '.join(lacking)}", remedy)
        unet, pose_net, face_encoder, recogniser = (folder / name for name in small_model.FILES[:4])
        animator = Animator.load(unet, pose_net, face_encoder, folder / "SVD")
        for network in vars(animator).values():
            network.to(device)
        judge, joints = (folder / name for name in small_model.JUDGE_FILES)
        return cls(
            folder=folder,
            animator=animator,
            recogniser=load_face_recognizer(recogniser, torch.float32).to(device),
            judge=load_face_recognizer(judge, torch.float32).to(device)
            if with_judge and judge.is_file()
            else None,
            joints=load_joint_detector(joints).to(device) if joints.is_file() else None,
            fingerprint=fingerprint(folder, small_model.FILES),
            judges_fingerprint=fingerprint(folder, small_model.JUDGE_FILES + small_model.FILES[3:5]),
        )


def fingerprint(folder: Path, names: tuple[str, ...]) -> str:
    """Sixteen hexadecimal digits of the contents of those of the files that are there."""
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        digest.update(name.encode())
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]

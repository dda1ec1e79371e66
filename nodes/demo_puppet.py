"""Demo Puppet: a drawn person and a dance, so that a first animation needs no photo, no video and no model files."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..stableanimator_core.preprocess import from_uint8
from .base import CATEGORY, AnimatorNode
from .sockets import PoseKeypoint

_FRAMINGS = ["half", "knees", "full"]
_LARGEST_SEED = 2**32 - 1


class DemoPuppet(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_DemoPuppet",
            display_name="Demo Puppet",
            category=f"{CATEGORY}/demo",
            description="Draws a person, standing still, and the skeletons of a dance made for that person. For the "
            "small demo model, which knows such figures only; needs no files.",
            inputs=[
                io.Int.Input(
                    "person",
                    default=1_000_014,
                    min=0,
                    max=_LARGEST_SEED,
                    tooltip="Who it is: every number is another face, hair and build. The small demo model has never "
                    "seen anybody from 1000000 on.",
                ),
                io.Int.Input(
                    "motion_seed",
                    default=1_000_006,
                    min=0,
                    max=_LARGEST_SEED,
                    tooltip="The dance, the clothes and the place. From 1000000 on never seen in training.",
                ),
                io.Combo.Input(
                    "framing",
                    options=_FRAMINGS,
                    default="half",
                    tooltip="How much of the body is seen. The face is largest in half, and kept best.",
                ),
                io.Int.Input(
                    "size",
                    default=128,
                    min=64,
                    max=512,
                    step=64,
                    tooltip="Width and height of the portrait in pixels. The small demo model was trained at 128.",
                ),
                io.Int.Input(
                    "num_frames",
                    default=16,
                    min=1,
                    max=1024,
                    tooltip="Frames of the dance. Above 16, add Animation Windows.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="portrait",
                    tooltip="The person, facing us. For Face Embed and ArcFace + CLIP Encode.",
                ),
                io.Mask.Output(
                    display_name="face_mask", tooltip="White on the portrait's face. For Face Embed."
                ),
                PoseKeypoint.Output(
                    display_name="portrait_pose",
                    tooltip="The portrait's skeleton: the reference for Pose Align, to dance to another motion.",
                ),
                PoseKeypoint.Output(
                    display_name="motion",
                    tooltip="This person's skeleton dancing. For Pose Draw, at 512 x 512.",
                ),
                io.Int.Output(
                    "frames",
                    display_name="num_frames",
                    tooltip="Frames of the dance, for ArcFace + CLIP Encode.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, person: int, motion_seed: int, framing: str, size: int, num_frames: int
    ) -> io.NodeOutput:
        from ..stableanimator_core.pose.keypoints import to_pose_keypoints
        from ..stableanimator_core.puppets.demo import demo_puppet

        puppet = demo_puppet(person, motion_seed, num_frames, size, framing)
        return io.NodeOutput(
            from_uint8(puppet.portrait[None]),
            torch.from_numpy(puppet.face_mask[None]).float() / 255,
            to_pose_keypoints([puppet.portrait_pose]),
            to_pose_keypoints(puppet.motion),
            num_frames,
        )

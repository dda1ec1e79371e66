"""Pose Align: the clip's motion laid over the person of the photo, with a picture to judge it by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..stableanimator_core.errors import InputError
from ..stableanimator_core.preprocess import check_pictures, from_uint8, to_uint8
from .base import CATEGORY, AnimatorNode, advanced, say
from .pose_edit import frames_in_words
from .sockets import PoseKeypoint

if TYPE_CHECKING:
    import numpy as np

    from ..stableanimator_core.pose.align import AlignResult
    from ..stableanimator_core.pose.people import Clip, Frame

_MODES = ["robust", "similarity", "limbs", "official", "none"]
_PREVIEW_SIDE = 768
_ASPECT_TOLERANCE = 0.02


class PoseAlign(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_PoseAlign",
            display_name="Pose Align",
            category=f"{CATEGORY}/pose",
            description="Lays the clip's skeletons over the person of the photo: same place, same size. "
            "Look at the overlay before the long part of the run.",
            inputs=[
                PoseKeypoint.Input("poses", tooltip="The motion, one person a frame, from Pose Select."),
                PoseKeypoint.Input(
                    "reference", tooltip="The photo's own pose, from DWPose Extract on the photo."
                ),
                io.Combo.Input(
                    "mode",
                    options=_MODES,
                    default="robust",
                    tooltip="robust: size and place, one wrong joint does no harm. similarity: also turns "
                    "the figure. "
                    "limbs: also fits the length of every limb. official: as the published code, which may "
                    "stretch. "
                    "none: only placed into the photo's frame.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="1 aligns fully, 0 leaves the motion where it was.",
                ),
                io.Boolean.Input(
                    "lock_first_frame",
                    default=False,
                    tooltip="Move the motion so that it begins exactly at the neck of the person in the "
                    "photo.",
                ),
                advanced(
                    io.Int.Input(
                        "fit_first_frame",
                        default=0,
                        min=0,
                        max=100000,
                        tooltip="First frame that the fit looks at. Choose frames in which the person "
                        "stands as in the photo.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "fit_last_frame",
                        default=-1,
                        min=-1,
                        max=100000,
                        tooltip="Last frame that the fit looks at; -1 is the end of the clip.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "limb_cap",
                        default=1.3,
                        min=1.0,
                        max=4.0,
                        step=0.05,
                        tooltip="Mode limbs: no limb grows or shrinks by more than this factor.",
                    )
                ),
                io.Image.Input(
                    "reference_image",
                    optional=True,
                    tooltip="The photo, for the overlay. Left open, the overlay is drawn on grey.",
                ),
            ],
            outputs=[
                PoseKeypoint.Output(
                    "aligned",
                    display_name="poses",
                    tooltip="The motion in the photo's frame. Next: Pose Draw, Face Masks.",
                ),
                io.Image.Output(
                    display_name="overlay",
                    tooltip="First, worst and last frame over the photo; white is the photo's own pose. "
                    "Next: Preview Image.",
                ),
                io.Float.Output(
                    display_name="misfit",
                    tooltip="How far off it is, as a share of body height: up to 0.06 fits, above 0.15 is "
                    "bad.",
                ),
                io.String.Output(
                    display_name="report", tooltip="The verdict and what it rests on, in words."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        poses,
        reference,
        mode: str,
        strength: float,
        lock_first_frame: bool,
        fit_first_frame: int,
        fit_last_frame: int,
        limb_cap: float,
        reference_image: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        from ..stableanimator_core.pose.align import AlignOptions, align
        from ..stableanimator_core.pose.keypoints import parse_pose_keypoints, to_pose_keypoints
        from ..stableanimator_core.pose.overlay import contact_sheet

        last = None if fit_last_frame < 0 else fit_last_frame
        options = AlignOptions(mode, strength, fit_first_frame, last, lock_first_frame, limb_cap)
        frames = parse_pose_keypoints(poses, "poses")
        wanted = _only_frame(parse_pose_keypoints(reference, "reference"))
        photo = _photo(reference_image, wanted)
        result = align(frames, wanted, options, "poses")
        if result.misfit.level != "FIT OK":
            say(cls, result.misfit.text)
        sheet = contact_sheet(photo, result.frames, result.misfit, wanted)
        return io.NodeOutput(
            to_pose_keypoints(result.frames),
            from_uint8(sheet[None]),
            result.misfit.share,
            _report(result, mode),
        )


def _only_frame(frames: Clip) -> Frame:
    if len(frames) != 1:
        raise InputError(
            "reference",
            f"has {len(frames)} frames",
            "connect the pose of the one photo, from DWPose Extract on it",
        )
    return frames[0]


def _photo(image: torch.Tensor | None, wanted: Frame) -> np.ndarray:
    """The photo as uint8 [H W 3], small enough for a preview; grey in the same shape if there is none."""
    import numpy as np
    from PIL import Image

    if image is None:
        width, height = _preview_size(wanted.width, wanted.height)
        return np.full((height, width, 3), 64, dtype=np.uint8)
    picture = to_uint8(check_pictures(image, "reference_image"))[0]
    height, width = picture.shape[:2]
    if abs(height * wanted.width - width * wanted.height) > _ASPECT_TOLERANCE * height * wanted.width:
        raise InputError(
            "reference_image",
            f"is {width} x {height}, the reference pose belongs to a picture of "
            f"{wanted.width} x {wanted.height}",
            "connect the same photo to DWPose Extract and here",
        )
    size = _preview_size(width, height)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _preview_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _PREVIEW_SIDE / max(width, height))
    return max(16, round(width * scale)), max(16, round(height * scale))


def _report(result: AlignResult, mode: str) -> str:
    misfit = result.misfit
    lines = [
        misfit.text,
        f"mode {mode}, misfit {misfit.share:.3f} of the body height (0.06 fits, 0.15 is bad)",
    ]
    if result.fit_frames:
        lines.append(f"fitted on {len(result.joints)} joints of {frames_in_words(list(result.fit_frames))}")
        x, y = result.scale
        lines.append(f"scale {x:.3f} x {y:.3f} of the frame, turned by {result.rotation:.1f} degrees")
    return "\n".join([*lines, *result.messages])

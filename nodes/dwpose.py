"""DWPose Extract: the people of a video or a photo as POSE_KEYPOINT."""

from __future__ import annotations

import comfy.utils
import torch
from comfy_api.latest import io

from ..stableanimator_core.preprocess import check_pictures, from_uint8, to_uint8
from . import folders
from .base import CATEGORY, AnimatorNode, advanced, say
from .sockets import PoseKeypoint, one_of

_CHANNELS = {"RGB (as the official extraction)": "rgb", "BGR (as the detector was trained)": "bgr"}
_NO_PERSON = {"leave empty": "empty", "error": "empty", "whole picture (official)": "official"}


class DWPoseExtract(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_DWPoseExtract",
            display_name="DWPose Extract",
            category=f"{CATEGORY}/pose",
            description="Finds the people in every frame of a video, or in a photo: body, hands and face.",
            inputs=[
                io.Image.Input("images", tooltip="The frames of the video, or the photo."),
                io.Combo.Input(
                    "detector",
                    options=folders.file_choices(
                        folders.POSE_FOLDERS, "yolox_l.onnx", "yolox", endings=folders.ONNX_ENDINGS
                    ),
                    tooltip="Finds where people are: yolox_l.onnx (217 MB). A copy of controlnet_aux is "
                    "found too.",
                ),
                io.Combo.Input(
                    "estimator",
                    options=folders.file_choices(
                        folders.POSE_FOLDERS,
                        "dw-ll_ucoco_384.onnx",
                        "dw-ll_ucoco",
                        "dw-",
                        endings=folders.ONNX_ENDINGS,
                    ),
                    tooltip="Finds the joints of each person: dw-ll_ucoco_384.onnx (134 MB).",
                ),
                io.Combo.Input(
                    "no_person",
                    options=list(_NO_PERSON),
                    default="leave empty",
                    tooltip="If a frame shows nobody: leave it empty and go on (Pose Select can fill short "
                    "gaps), "
                    "stop, or guess a person from the whole picture as the official code does. Nobody in "
                    "any frame "
                    "always stops.",
                ),
                advanced(
                    io.Combo.Input(
                        "channels",
                        options=list(_CHANNELS),
                        default="RGB (as the official extraction)",
                        tooltip="Colour order the person detector sees. If people are missed, try the other.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "preview_size",
                        default=512,
                        min=64,
                        max=2048,
                        step=64,
                        tooltip="Shorter side of the preview in pixels. It does not change the poses.",
                    )
                ),
            ],
            outputs=[
                PoseKeypoint.Output(
                    display_name="poses",
                    tooltip="The people of every frame. Next: Pose Select or Pose Align.",
                ),
                io.Image.Output(
                    display_name="preview", tooltip="The skeletons on black, one picture a frame."
                ),
                io.Int.Output(
                    display_name="num_frames", tooltip="How many frames there are; for ArcFace + CLIP Encode."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        detector: str,
        estimator: str,
        no_person: str,
        channels: str,
        preview_size: int,
    ) -> io.NodeOutput:
        from ..stableanimator_core.pose.dwpose import open_dwpose
        from ..stableanimator_core.pose.keypoints import to_pose_keypoints

        one_of("no_person", no_person, _NO_PERSON)
        one_of("channels", channels, _CHANNELS)
        pictures = to_uint8(check_pictures(images, "images"))
        dwpose = open_dwpose(
            folders.resolve(detector, folders.POSE_FOLDERS, "detector"),
            folders.resolve(estimator, folders.POSE_FOLDERS, "estimator"),
            channels=_CHANNELS[channels],
            no_person=_NO_PERSON[no_person],
        )
        running = f"runs on {_named(dwpose.providers)}"
        say(cls, running)
        progress = comfy.utils.ProgressBar(len(pictures))  # its update also ends the work on Cancel
        frames = dwpose.extract_poses(pictures, lambda number: progress.update_absolute(number + 1))
        _report_empty(cls, frames, running, stop=no_person == "error")
        return io.NodeOutput(to_pose_keypoints(frames), from_uint8(_drawn(frames, preview_size)), len(frames))


def _named(providers: tuple[str, str]) -> str:
    """The providers without the word that each of onnxruntime's names ends with."""
    return " and ".join(dict.fromkeys(name.removesuffix("ExecutionProvider") for name in providers))


def _report_empty(node: type[AnimatorNode], frames: list, running: str, *, stop: bool) -> None:
    from ..stableanimator_core.errors import NoPersonError
    from ..stableanimator_core.pose.fit_people import frame_ranges

    empty = [number for number, frame in enumerate(frames) if not frame.people]
    if len(empty) == len(frames):
        raise NoPersonError(
            "images",
            "show nobody that the detector can see"
            if len(frames) == 1
            else f"show nobody that the detector can see in any of the {len(frames)} frames",
            "use pictures of a person, try the other channel order, or check that yolox_l.onnx is the "
            "detector",
        )
    if empty and stop:
        raise NoPersonError(
            "images",
            f"show nobody in frame {frame_ranges(empty)}",
            "cut these frames, or set no_person to leave empty",
        )
    if empty:
        say(node, f"{running}; nobody found in {len(empty)} of {len(frames)} frames: {frame_ranges(empty)}")


def _drawn(frames: list, shorter_side: int):
    from ..stableanimator_core.pose.draw import draw_clip

    scale = shorter_side / min(frames[0].width, frames[0].height)
    return draw_clip(frames, round(frames[0].height * scale), round(frames[0].width * scale))

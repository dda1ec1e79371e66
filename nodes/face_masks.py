"""Face Masks: where the face is in every frame of the video to be made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.utils
import torch
from comfy_api.latest import io

from ..stableanimator_core.errors import InputError
from ..stableanimator_core.preprocess import check_pictures, to_uint8
from . import folders
from .base import CATEGORY, AnimatorNode, advanced, say
from .inputs import CHANNELS, face_detector_input, size_inputs
from .pose import FITS
from .sockets import FaceBoxesSocket, PoseKeypoint, one_of

if TYPE_CHECKING:
    from ..stableanimator_core.face.boxes import FaceBoxes

_SOURCES = ["skeleton", "detector", "mask"]
_PAINTED = 0.5


class FaceMasks(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_FaceMasks",
            display_name="Face Masks",
            category=f"{CATEGORY}/face",
            description="Says where the face is in every frame. Frames without a face are left out, and "
            "listed.",
            inputs=[
                io.Combo.Input(
                    "source",
                    options=_SOURCES,
                    default="skeleton",
                    tooltip="skeleton: the face points of the aligned poses, right for the video that is "
                    "made. "
                    "detector: faces found in the driving frames, the official way, right only without "
                    "alignment. "
                    "mask: painted by you.",
                ),
                *size_inputs("the video"),
                io.Float.Input(
                    "padding",
                    default=0.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Margin added on each side, as a share of the box: 0.2 takes in hair and chin.",
                ),
                io.Int.Input(
                    "fill_gaps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="A face missing in up to so many frames in a row is interpolated. 0 fills none.",
                ),
                advanced(
                    io.Combo.Input(
                        "fit",
                        options=FITS,
                        default="contain",
                        tooltip="How the frame is placed into width x height if its aspect differs: the "
                        "same as in Pose Draw.",
                    )
                ),
                advanced(face_detector_input("Opened for source detector only.")),
                advanced(
                    io.Combo.Input(
                        "channels",
                        options=list(CHANNELS),
                        default="BGR (as trained)",
                        tooltip="Colour order the face detector sees.",
                    )
                ),
                PoseKeypoint.Input(
                    "poses", optional=True, tooltip="For source skeleton: the motion from Pose Align."
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="For source detector: the frames of the driving video."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="For source mask: white on the face, one mask for each frame.",
                ),
            ],
            outputs=[
                FaceBoxesSocket.Output(
                    display_name="face_boxes", tooltip="The boxes in every frame, in pixels of the video."
                ),
                io.Mask.Output(
                    "face_mask",
                    display_name="mask",
                    tooltip="The same as masks; empty where there is no face.",
                ),
                io.String.Output(
                    display_name="report", tooltip="How many frames have a face, and which have none."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        source: str,
        width: int,
        height: int,
        padding: float,
        fill_gaps: int,
        fit: str,
        detector: str,
        channels: str,
        poses=None,
        images: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        from ..stableanimator_core.face import boxes as face

        one_of("source", source, _SOURCES)
        size = (height, width)
        if source == "skeleton":
            found = _of_skeleton(_needed(poses, "poses", source, "Pose Align"), size, fit)
        elif source == "detector":
            found = _of_detector(
                _needed(images, "images", source, "the driving frames"), size, fit, detector, channels
            )
        else:
            found = _of_mask(_needed(mask, "mask", source, "a mask for each frame"), size, fit)
        filled = face.fill_gaps(face.pad_boxes(found, padding, height, width), fill_gaps)
        report = _report(found, filled)
        if face.frames_without_face(filled):
            say(cls, report.splitlines()[-1])
        return io.NodeOutput(filled, face.boxes_to_masks(filled, height, width), report)


def _needed(value, name: str, source: str, wanted: str):
    if value is None:
        raise InputError(
            name, f"is not connected, and source is '{source}'", f"connect {wanted}, or choose another source"
        )
    return value


def _of_skeleton(poses, size: tuple[int, int], fit: str) -> FaceBoxes:
    from ..stableanimator_core.face.boxes import boxes_from_skeleton
    from ..stableanimator_core.pose.fit import fit_frames
    from ..stableanimator_core.pose.keypoints import parse_pose_keypoints

    return boxes_from_skeleton(fit_frames(parse_pose_keypoints(poses, "poses"), *size, fit), *size)


def _of_detector(
    images: torch.Tensor, size: tuple[int, int], fit: str, detector: str, channels: str
) -> FaceBoxes:
    from ..stableanimator_core.face.analysis import FaceDetector
    from ..stableanimator_core.face.boxes import boxes_from_detector
    from ..stableanimator_core.face.place_boxes import place_boxes

    one_of("channels", channels, CHANNELS)
    pictures = to_uint8(check_pictures(images, "images"))
    opened = FaceDetector(folders.resolve(detector, folders.FACE_FOLDERS, "detector"))
    progress = comfy.utils.ProgressBar(len(pictures))  # its update also ends the work on Cancel
    found = boxes_from_detector(
        opened,
        pictures,
        channels=CHANNELS[channels],
        on_frame=lambda number: progress.update_absolute(number + 1),
    )
    return place_boxes(found, pictures.shape[1:3], size, fit)


def _of_mask(mask: torch.Tensor, size: tuple[int, int], fit: str) -> FaceBoxes:
    from ..stableanimator_core.face.boxes import boxes_from_masks
    from ..stableanimator_core.face.place_boxes import place_boxes

    return place_boxes(boxes_from_masks(mask, threshold=_PAINTED), tuple(mask.shape[-2:]), size, fit)


def _report(found: FaceBoxes, filled: FaceBoxes) -> str:
    """Lines; the last one says which frames are left out, if any are."""
    from ..stableanimator_core.face.boxes import frames_without_face
    from ..stableanimator_core.pose.fit_people import frame_ranges

    missing, empty = frames_without_face(found), frames_without_face(filled)
    lines = [f"{len(filled) - len(empty)} of {len(filled)} frames have a face"]
    if len(missing) > len(empty):
        lines.append(f"interpolated: {frame_ranges(sorted(set(missing) - set(empty)))}")
    if empty:
        lines.append(f"left out, no face: {frame_ranges(empty)}")
    return "\n".join(lines)

"""Load / Save Pose Keypoints and Pose Draw: POSE_KEYPOINT from and to JSON, and into skeleton pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..stableanimator_core.errors import InputError
from ..stableanimator_core.preprocess import from_uint8
from .base import CATEGORY, AnimatorNode, advanced
from .inputs import size_inputs
from .sockets import PoseKeypoint, one_of

_SHIPPED = Path(__file__).parents[1] / "assets" / "motion"
_SHIPPED_PREFIX = "shipped: "
FITS = ["contain", "cover", "stretch"]
_STYLES = ["StableAnimator", "Animate Anyone"]


def _shipped_files() -> dict[str, Path]:
    return {f"{_SHIPPED_PREFIX}{path.name}": path for path in sorted(_SHIPPED.glob("*.json"))}


def _input_files() -> list[str]:
    folder = folder_paths.get_input_directory()
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(".json"))


def _pose_file(name: str) -> Path:
    """The file a combo entry names.

    Raises:
        InputError: none of the entries, or a path out of the input folder.
    """
    shipped = _shipped_files().get(name)
    if shipped is not None:
        return shipped
    root = os.path.abspath(folder_paths.get_input_directory())
    path = os.path.abspath(os.path.join(root, name))
    if not path.startswith(root + os.sep) or not os.path.isfile(path):
        raise InputError(
            "file", f"'{name}' is not in ComfyUI's input folder", "put the JSON file there and press R"
        )
    return Path(path)


class LoadPoseKeypoints(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_LoadPoseKeypoints",
            display_name="Load Pose Keypoints",
            category=f"{CATEGORY}/pose",
            description="Reads a motion from OpenPose JSON in ComfyUI's input folder, or one that comes with the pack.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[*_shipped_files(), *_input_files()],
                    tooltip="A JSON file of the input folder, as DWPose nodes save it, or a shipped motion.",
                ),
                io.Int.Input(
                    "first_frame",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip="Frames to skip at the start of the file.",
                ),
                io.Int.Input(
                    "max_frames",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip="Frames to take at most; 0 takes all that follow.",
                ),
                advanced(
                    io.Int.Input(
                        "every_nth",
                        default=1,
                        min=1,
                        max=100,
                        tooltip="Take every nth frame: 2 halves the frame rate.",
                    )
                ),
            ],
            outputs=[
                PoseKeypoint.Output(display_name="poses", tooltip="The motion. Next: Pose Draw."),
                io.Int.Output(
                    display_name="num_frames", tooltip="How many frames it has; for ArcFace + CLIP Encode."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, **kwargs: Any) -> str:
        """Run again when the file has changed."""
        try:
            status = _pose_file(file).stat()
        except InputError:
            return ""
        return f"{file}:{status.st_mtime_ns}:{status.st_size}"

    @classmethod
    def execute(cls, file: str, first_frame: int, max_frames: int, every_nth: int) -> io.NodeOutput:
        from ..stableanimator_core.pose.keypoints import load_pose_json, to_pose_keypoints

        frames = load_pose_json(_pose_file(file))
        chosen = frames[first_frame::every_nth]
        chosen = chosen[:max_frames] if max_frames else chosen
        if not chosen:
            raise InputError(
                "first_frame",
                f"is {first_frame}, the file has {len(frames)} frames",
                "choose a smaller number",
            )
        return io.NodeOutput(to_pose_keypoints(chosen), len(chosen))


class SavePoseKeypoints(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_SavePoseKeypoints",
            display_name="Save Pose Keypoints",
            category=f"{CATEGORY}/pose",
            description="Writes a motion as OpenPose JSON into ComfyUI's output folder.",
            is_output_node=True,
            inputs=[
                PoseKeypoint.Input("poses", tooltip="The motion to write."),
                io.String.Input(
                    "filename_prefix",
                    default="poses/motion",
                    tooltip="Folder and beginning of the file name below ComfyUI's output folder; a number is added.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, poses, filename_prefix: str) -> io.NodeOutput:
        from ..stableanimator_core.pose.keypoints import parse_pose_keypoints, save_pose_json

        frames = parse_pose_keypoints(poses, "poses")
        try:
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
                filename_prefix, folder_paths.get_output_directory()
            )
        except Exception as error:
            raise InputError(
                "filename_prefix",
                f"'{filename_prefix}' leaves the output folder",
                "use a name without .. or /",
            ) from error
        file = f"{name}_{counter:05}_.json"
        save_pose_json(os.path.join(folder, file), frames)
        return io.NodeOutput(ui={"text": [os.path.join(subfolder, file)]})


class PoseDraw(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_PoseDraw",
            display_name="Pose Draw",
            category=f"{CATEGORY}/pose",
            description="Draws skeletons as the model saw them in training, on black.",
            inputs=[
                PoseKeypoint.Input(
                    "poses", tooltip="The motion, from Load Pose Keypoints or any DWPose node."
                ),
                *size_inputs("the pictures"),
                io.Combo.Input(
                    "fit",
                    options=FITS,
                    default="contain",
                    tooltip="If the motion's frame has another aspect: show all of it, fill and cut, or stretch it "
                    "(the official code stretches).",
                ),
                advanced(io.Boolean.Input("body", default=True, tooltip="Draw limbs and joints.")),
                advanced(io.Boolean.Input("hands", default=True, tooltip="Draw the hands.")),
                advanced(io.Boolean.Input("face", default=True, tooltip="Draw the face points.")),
                io.Combo.Input(
                    "style",
                    options=_STYLES,
                    optional=True,
                    default="StableAnimator",
                    tooltip="Whose training the pictures look like: StableAnimator's thin lines that fade with "
                    "confidence, or Animate Anyone's, four times as thick and in full colour.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip="One picture a frame. Next: Apply PoseNet or Apply Pose Guider.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        poses,
        width: int,
        height: int,
        fit: str,
        body: bool,
        hands: bool,
        face: bool,
        style: str = "StableAnimator",
    ) -> io.NodeOutput:
        from ..stableanimator_core.pose.draw import draw_clip
        from ..stableanimator_core.pose.fit import fit_frames
        from ..stableanimator_core.pose.keypoints import parse_pose_keypoints

        one_of("style", style, _STYLES)
        frames = fit_frames(parse_pose_keypoints(poses, "poses"), height, width, fit)
        progress = comfy.utils.ProgressBar(len(frames))  # its update also ends the drawing on Cancel
        parts = {"body": body, "hands": hands, "face": face}
        pictures = draw_clip(frames, height, width, **parts, style=style, on_frame=progress.update_absolute)
        return io.NodeOutput(from_uint8(pictures))

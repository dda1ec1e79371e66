"""Pose Select: which person of the clip moves, with gaps filled and trembling calmed."""

from __future__ import annotations

from comfy_api.latest import io

from .base import CATEGORY, AnimatorNode, advanced, say
from .sockets import PoseKeypoint

_WAYS = ["tracked", "largest", "central", "index", "all"]


def _smoothing(part: str) -> io.Float.Input:
    return advanced(
        io.Float.Input(
            f"smooth_{part}",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.5,
            tooltip=f"Calms a trembling {part.removesuffix('s')}: width of the filter in frames, 1 to 3 is "
            "usual. "
            "0 leaves it as it is.",
        )
    )


class PoseSelect(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_PoseSelect",
            display_name="Pose Select",
            category=f"{CATEGORY}/pose",
            description="Keeps one person of the clip, fills short gaps, calms trembling, and names "
            "doubtful frames.",
            inputs=[
                PoseKeypoint.Input("poses", tooltip="The motion, from DWPose Extract or any DWPose node."),
                io.Combo.Input(
                    "how",
                    options=_WAYS,
                    default="tracked",
                    tooltip="tracked: follow one person through the clip. largest, central: the one of each "
                    "frame. "
                    "index: by the detector's order. all: keep everybody.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=63,
                    tooltip="For tracked: 0 is the person most present in the clip, 1 the next. For index: "
                    "place in the "
                    "detector's order. Not used otherwise.",
                ),
                io.Int.Input(
                    "fill_gaps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Joints or people that are missing in up to so many frames in a row are "
                    "interpolated. 0 fills "
                    "none.",
                ),
                _smoothing("body"),
                _smoothing("hands"),
                _smoothing("face"),
            ],
            outputs=[
                PoseKeypoint.Output(
                    "selected", display_name="poses", tooltip="The chosen person. Next: Pose Align."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="Which frames lacked the person, were filled, or are doubtful.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        poses,
        how: str,
        index: int,
        fill_gaps: int,
        smooth_body: float,
        smooth_hands: float,
        smooth_face: float,
    ) -> io.NodeOutput:
        from ..stableanimator_core.pose.keypoints import parse_pose_keypoints, to_pose_keypoints
        from ..stableanimator_core.pose.select import select_person
        from ..stableanimator_core.pose.smooth import SmoothOptions, repair

        options = SmoothOptions(fill_gaps, smooth_body, smooth_hands, smooth_face)
        frames = parse_pose_keypoints(poses, "poses")
        selection = select_person(frames, how, index)
        repaired = repair(selection.frames, options)
        empty = [number for number, frame in enumerate(repaired.frames) if not frame.people]
        if empty:
            say(
                cls,
                f"nobody in {frames_in_words(empty)}: black skeleton pictures there; fill_gaps closes "
                "short gaps",
            )
        doubtful = [number for number in repaired.doubtful if number not in empty]
        lines = [
            f"{len(frames)} frames, person: {how}{f' {index}' if how in ('tracked', 'index') else ''}",
            f"not found in: {frames_in_words(selection.missing)}",
            f"filled: {frames_in_words(repaired.filled)}",
            f"still empty: {frames_in_words(empty)}",
            f"low confidence: {frames_in_words(doubtful)}",
        ]
        return io.NodeOutput(to_pose_keypoints(repaired.frames), "\n".join(lines))


def frames_in_words(numbers: list[int]) -> str:
    """For example "frames 3-5, 9", or "none"."""
    from ..stableanimator_core.pose.fit_people import frame_ranges

    return f"frame{'s' if len(numbers) > 1 else ''} {frame_ranges(numbers)}" if numbers else "none"

"""Model Doctor: which weight files are there, whether they are what they should be, and what runs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io, ui

from ..stableanimator_core.preprocess import from_uint8
from . import folders, small
from .base import CATEGORY, AnimatorNode, advanced

if TYPE_CHECKING:
    from ..stableanimator_core.doctor import Row

_FOLDERS = dict.fromkeys(
    (*folders.UNET_FOLDERS, *folders.SVD_FOLDERS, *folders.FACE_FOLDERS, *folders.POSE_FOLDERS)
)


class ModelDoctor(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_ModelDoctor",
            display_name="Model Doctor",
            category=f"{CATEGORY}/loaders",
            description="Shows every model file the pack can use: found or missing, whole or damaged, its "
            "licence, "
            "where to get it. Loads and downloads nothing.",
            is_output_node=True,
            inputs=[
                advanced(
                    io.Boolean.Input(
                        "check_hashes",
                        default=False,
                        tooltip="Also read the files whole and compare published SHA-256 sums. Takes "
                        "minutes.",
                    )
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="All of it as text. Next: Preview as Text."),
                io.Image.Output(display_name="table", tooltip="The same as a picture."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, check_hashes: bool) -> float:
        """Look again on every run: files come and go."""
        return float("nan")

    @classmethod
    def execute(cls, check_hashes: bool) -> io.NodeOutput:
        from ..stableanimator_core import doctor
        from ..stableanimator_core.doctor_table import draw_table

        roots = folders.roots(_FOLDERS)
        rows = doctor.examine(roots, check_hashes=check_hashes)
        notes = [small.note(), *doctor.provider_lines(), *doctor.library_lines()]
        report = _without_places(doctor.as_text(rows, roots, notes), roots)
        table = from_uint8(draw_table([_shortened(row, roots) for row in rows], notes)[None])
        shown = {"text": [report], **ui.PreviewImage(table, cls=cls).as_dict()}
        return io.NodeOutput(report, table, ui=shown)


def _shortened(row: Row, roots: list[Path]) -> Row:
    return replace(
        row, problem=_without_places(row.problem, roots), remedy=_without_places(row.remedy, roots)
    )


def _without_places(text: str, roots: list[Path]) -> str:
    """`text` with every folder named from ComfyUI's own folder on: a report is shown to others."""
    home = Path(folder_paths.models_dir).parent
    for root in sorted(roots, key=lambda path: -len(str(path))):
        inside = root.is_relative_to(home)
        text = text.replace(
            str(root), str(root.relative_to(home)) if inside else f"(extra folder) {root.name}"
        )
    return text

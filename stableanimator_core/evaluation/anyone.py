"""Animate Anyone's small model as a system of the evaluation: the same clips, size and judges.

It is given no face and no box of one: it takes the person from the photo alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import small_model
from ..errors import WeightsError
from ..pose.draw import Picture
from .clips import Inputs

if TYPE_CHECKING:
    from ..animate_anyone.pipeline import AnimateAnyone, AnyoneOptions


def load(folder: Path) -> AnimateAnyone:
    """The networks, in float32 on the CPU.

    Raises:
        WeightsError: a file is missing, damaged or of another model.
    """
    from ..weights.animate_anyone import load_animate_anyone

    if missing := small_model.missing_anyone(folder):
        remedy = "leave out the variant animate_anyone, or give a folder that has its files"
        raise WeightsError(str(folder), f"lacks {', '.join(missing)}", remedy)
    unet, net, motion, guider = (folder / name for name in small_model.ANYONE_FILES[:4])
    svd = folder / "SVD"
    return load_animate_anyone(unet, net, guider, svd, svd, motion_module=motion)


@dataclass(frozen=True, eq=False)
class AnyoneSystem:
    """See `systems.System`. The noise of a clip is drawn from its seed.

    Attributes:
        networks: as loaded.
        files: fingerprint of what they were loaded from.
        options: of every run.
    """

    networks: AnimateAnyone
    files: str
    options: AnyoneOptions
    name: str = "animate_anyone"

    @property
    def fingerprint(self) -> str:
        """See `System`."""
        return f"{self.files} {asdict(self.options)}"

    def animate(self, inputs: Inputs) -> Picture:
        """See `System`."""
        height, width = inputs.size
        return self.networks.animate(
            inputs.reference,
            inputs.poses,
            height=height,
            width=width,
            seed=inputs.seed,
            options=self.options,
        ).frames

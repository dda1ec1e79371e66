"""From decoded pictures to what the face network sees.

Code: `step` of `euler_discrete_pro.py` and `inference_op.py`, Francis-Rings/StableAnimator @ 020e7f2. The
same numbers; different: a frame without a face is left out instead of stopping the run, boxes may lie partly
outside the picture.
Axes: n faces, f frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..models.iresnet import FACE_SIZE
from .regions import Box


def displayed(decoded: Tensor) -> Tensor:
    """Decoder output as the 8-bit range would show it, unrounded, back in [-1, 1]. No gradient where it
    saturates."""
    unit = (decoded / 2 + 0.5).clamp(0, 1)
    return ((unit * 255).clamp(0, 255) / 255 - 0.5) / 0.5


def face_crop(picture: Tensor, box: Box) -> Tensor:
    """The part `box` of a picture [3 H W] as the face network takes it: [1 3 112 112]."""
    face = picture[None, :, box.top : box.bottom, box.left : box.right]
    return F.interpolate(face, size=(FACE_SIZE, FACE_SIZE), mode="bilinear", align_corners=False)


def boxes_of_masks(masks: Tensor) -> list[list[Box]]:
    """The smallest box around the pixels of each mask that are exactly 1; no box for an empty mask.

    Args:
        masks: [f H W], 1 where the face is. Pixels between 0 and 1 do not count, as in the reference.
    """
    return [_boxes_of_mask(mask) for mask in masks]


def _boxes_of_mask(mask: Tensor) -> list[Box]:
    rows, columns = torch.nonzero(mask == 1, as_tuple=True)
    if not len(rows):
        return []
    return [Box(int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1)]


def boxes_inside(faces: Sequence[Sequence[Box]], height: int, width: int) -> list[list[Box]]:
    """The parts of the boxes within a picture of height x width; boxes wholly outside are left out."""
    clipped = [[Box(*box).grown(0, height, width) for box in boxes] for boxes in faces]
    return [[box for box in boxes if min(box.size) > 0] for boxes in clipped]


@torch.no_grad()
def identity_of_portrait(embedder: nn.Module, portrait: Tensor, box: Box) -> Tensor:
    """The identity [1 e] of a face in a portrait, as the optimisation compares it.

    Args:
        embedder: face network, [n 3 112 112] in [-1, 1] RGB -> [n e].
        portrait: [3 H W] in [-1, 1], RGB, at its own size.
        box: the face.

    Raises:
        InputError: the box lies outside the portrait.
    """
    inside = boxes_inside([[box]], *portrait.shape[-2:])[0]
    if not inside:
        raise InputError(
            "face box", f"{tuple(box)} lies outside the portrait", "give a box within the picture"
        )
    return embedder(face_crop(portrait, inside[0]))

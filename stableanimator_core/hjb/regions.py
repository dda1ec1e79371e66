"""Which part of each layer of the decoder a part of the picture depends on, and which latents lie under a
face.

Past the middle block, with GroupNorm statistics given, the decoder only looks a few pixels around: 1 for each
3x3 convolution. Walking back from the wanted pixels gives the box each layer must compute. All boxes are
plain integers.
Axes: f frames, h w height and width of latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

LATENT_PIXELS = 8
"""Pixels of the picture along one side of a latent."""


class Box(NamedTuple):
    """A rectangle: rows top..bottom and columns left..right, without bottom and right themselves."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, left: float, top: float, right: float, bottom: float) -> Box:
        """Around corners in pixels with fractions, all four included."""
        return cls(int(top), int(bottom) + 1, int(left), int(right) + 1)

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def grown(self, margin: int, height: int, width: int) -> Box:
        """`margin` wider on every side, but not beyond a map of height x width."""
        return Box(
            max(self.top - margin, 0),
            min(self.bottom + margin, height),
            max(self.left - margin, 0),
            min(self.right + margin, width),
        )

    def halved(self) -> Box:
        """The smallest box on a map of half the size that covers this one."""
        return Box(self.top // 2, -(-self.bottom // 2), self.left // 2, -(-self.right // 2))

    def doubled(self) -> Box:
        return Box(*(2 * side for side in self))

    def cut(self, x: Tensor, origin: Box) -> Tensor:
        """This box of `x` [... h w], which holds the box `origin` of the whole map."""
        if self == origin:
            return x
        top, left = self.top - origin.top, self.left - origin.left
        height, width = self.size
        return x[..., top : top + height, left : left + width]


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box around all `boxes`."""
    tops, bottoms, lefts, rights = zip(*boxes, strict=True)
    return Box(min(tops), max(bottoms), min(lefts), max(rights))


@dataclass(frozen=True)
class BlockBoxes:
    """Boxes of one up block.

    Attributes:
        inputs: what each resblock must be given.
        outputs: what each resblock is wanted for.
        upsampled: what the upsampler is wanted for, on its doubled map; None without an upsampler.
    """

    inputs: list[Box]
    outputs: list[Box]
    upsampled: Box | None


@dataclass(frozen=True)
class Plan:
    """Boxes of all layers past the middle block.

    Attributes:
        blocks: one for each up block, first to last.
        tail: what the output convolution must be given.
        pixels: the wanted part of the picture.
    """

    blocks: list[BlockBoxes]
    tail: Box
    pixels: Box


def plan_decoding(decoder: Any, height: int, width: int, pixels: Box | None = None) -> Plan:
    """The boxes needed to decode the part `pixels` of the picture of latents height x width; all of it if
    None."""
    doublings = sum(block.upsamplers is not None for block in decoder.up_blocks)
    height, width = height << doublings, width << doublings
    pixels = pixels or Box(0, height, 0, width)
    tail = wanted = pixels.grown(1, height, width)
    blocks = []
    for block in reversed(decoder.up_blocks):
        upsampled = None
        if block.upsamplers is not None:
            upsampled = wanted
            wanted = wanted.grown(1, height, width).halved()
            height, width = height // 2, width // 2
        inputs, outputs = [], []
        for _ in block.resnets:  # two 3x3 convolutions each
            outputs.insert(0, wanted)
            wanted = wanted.grown(2, height, width)
            inputs.insert(0, wanted)
        blocks.insert(0, BlockBoxes(inputs, outputs, upsampled))
    return Plan(blocks, tail, pixels)


def face_region(faces: Sequence[Sequence[Box]], height: int, width: int, margin: int) -> Tensor:
    """Which latents lie under a face, with `margin` latents around it: [f 1 h w] of 0 and 1."""
    region = torch.zeros(len(faces), 1, height, width)
    for frame, boxes in enumerate(faces):
        for box in boxes:
            latents = box.halved().halved().halved().grown(margin, height, width)  # 8 pixels a latent
            region[frame, 0, latents.top : latents.bottom, latents.left : latents.right] = 1
    return region

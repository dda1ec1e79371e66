"""How far the faces of a clip are from the reference identity, and the gradient of that, without filling the
memory.

Decode -> cut out the faces -> face network -> cosine distance, as in `step` of `euler_discrete_pro.py`,
Francis-Rings/StableAnimator @ 020e7f2. The loss is a mean over frames and chunks are decoded on their own, so
going back through each chunk by itself gives the exact gradient; only one chunk is ever held.
Axes: f frames, c channels, h w height and width of latents, H W pixels, n faces, e identity embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log2

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ..errors import InputError, NoFaceError
from ..models.vae import SCALING_FACTOR
from .crop import boxes_inside, displayed, face_crop
from .decoder import Decoding, statistics_of
from .layers import Statistics
from .options import Setting
from .regions import LATENT_PIXELS, Box, face_region, union

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Faces:
    """Where the faces of a clip are.

    Attributes:
        boxes: per frame, in pixels of the generated picture; none where no face is seen.
        num_with_face: how many frames have at least one.
    """

    boxes: list[list[Box]]

    @property
    def num_with_face(self) -> int:
        return sum(bool(boxes) for boxes in self.boxes)


def faces_of_clip(
    boxes: Sequence[Sequence[Box]], height: int, width: int, *, several: str = "union"
) -> Faces:
    """Boxes ready for pictures of height x width pixels: cut at the border, joined if `several` is "union".

    Raises:
        NoFaceError: no frame has a box within the picture.
    """
    inside = boxes_inside(boxes, height, width)
    if several == "union":
        inside = [[union(frame)] if frame else [] for frame in inside]
    faces = Faces(inside)
    if not faces.num_with_face:
        remedy = "give face boxes or masks for at least one frame, or turn the face optimisation off"
        raise NoFaceError("face boxes", f"no frame has a face within {width}x{height} pixels", remedy)
    return faces


class IdentityLoss:
    """Mean of |1 - cosine| over the frames with a face: called with latents, gives the loss and its gradient.

    Args:
        decoder: temporal decoder in the dtype of `setting`, usable for autograd.
        embedder: face network in eval mode, [n 3 112 112] in [-1, 1] RGB -> [n e].
        identity: the reference [1 e] (or [e]).
        faces: where to look.
        setting: how to compute it.
        margin: only with `setting.crop`: latents around the boxes that get a gradient.
        scaling_factor: latents given are those of the VAE times this.
        on_warning: told what went wrong on the way, in words.

    Attributes:
        cosines: of the last evaluation, [f]; NaN where there is no face.
    """

    def __init__(
        self,
        decoder: nn.Module,
        embedder: nn.Module,
        identity: Tensor,
        faces: Faces,
        setting: Setting,
        *,
        margin: int = 4,
        scaling_factor: float = SCALING_FACTOR,
        on_warning: Callable[[str], None] = logger.warning,
    ):
        self.decoder, self.embedder = decoder, embedder
        self.identity = identity.detach().clone().reshape(1, -1)
        self.faces, self.setting, self.margin = faces, setting, margin
        self.scaling_factor, self._warn = scaling_factor, on_warning
        self.cosines = torch.full((len(faces.boxes),), torch.nan)
        self._statistics: dict[int, Statistics] = {}  # first frame of a chunk -> its statistics

    def __call__(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient [f c h w] of latents [f c h w] in the model's scale.

        A chunk whose gradient is not finite gets a zero gradient and a warning.

        Raises:
            InputError: there are not as many frames as face boxes.
        """
        self._check(latents)
        gradient = torch.zeros_like(latents, dtype=torch.float32)
        loss = torch.zeros((), device=latents.device)
        for frames in self._chunks_with_faces():
            chunk_loss, chunk_gradient = self._chunk(latents[frames], frames)
            loss += chunk_loss
            if not bool(torch.isfinite(chunk_gradient).all()):
                self._warn(
                    f"frames {frames.start} to {frames.stop - 1} left out: their gradient is not finite"
                )
                continue
            gradient[frames] = chunk_gradient
        if self.setting.crop:
            region = face_region(self.faces.boxes, latents.shape[-2], latents.shape[-1], self.margin)
            gradient *= region.to(gradient)
        return loss, gradient

    @torch.no_grad()
    def measure(self, latents: Tensor) -> Tensor:
        """Cosines [f] of the faces to the reference, NaN where there is none; decodes whole frames."""
        self._check(latents)
        for frames in self._chunks_with_faces():
            decoded = Decoding(self.decoder)(self._for_decoder(latents[frames])).float()
            self._distances(decoded, frames, None)
        return self.cosines.clone()

    def forget_statistics(self) -> None:
        """Take the GroupNorm statistics that decoding in part needs anew, from the next latents."""
        self._statistics.clear()

    def _chunk(self, latents: Tensor, frames: slice) -> tuple[Tensor, Tensor]:
        statistics, pixels = None, None
        if self.setting.crop:
            statistics = self._statistics.get(frames.start)
            if statistics is None:
                statistics = statistics_of(self.decoder, self._for_decoder(latents))
                self._statistics[frames.start] = statistics
            pixels = union([box for boxes in self.faces.boxes[frames] for box in boxes])
        with torch.enable_grad():
            variable = latents.detach().float().requires_grad_()
            decoding = Decoding(self.decoder, checkpointing=self.setting.checkpointing, frozen=statistics)
            decoded = decoding(self._for_decoder(variable), pixels)
            pictures = decoded.detach().float().requires_grad_()  # the face network's graph ends here
            loss = self._distances(pictures, frames, pixels)
            (upstream,) = torch.autograd.grad(loss, pictures)
            del pictures
            scale = _loss_scale(upstream, decoded.dtype)
            (gradient,) = torch.autograd.grad(decoded, variable, (upstream * scale).to(decoded.dtype))
        return loss.detach(), gradient / scale

    def _distances(self, decoded: Tensor, frames: slice, pixels: Box | None) -> Tensor:
        """The chunk's share of the loss, from its decoded pictures (or the part `pixels` of them)."""
        shown = displayed(decoded)
        top, left = (pixels.top, pixels.left) if pixels else (0, 0)
        crops, owners, shares = [], [], []
        for index, boxes in enumerate(self.faces.boxes[frames]):
            for box in boxes:
                moved = Box(box.top - top, box.bottom - top, box.left - left, box.right - left)
                crops.append(face_crop(shown[index], moved))
                owners.append(frames.start + index)
                shares.append(1 / len(boxes))
        faces = torch.cat(crops).to(_dtype_of(self.embedder))
        identity = self.identity.to(device=faces.device, dtype=torch.float32)
        cosines = cosine_similarity(self.embedder(faces).float(), identity, dim=1)  # [n]
        weights = torch.tensor(shares, device=faces.device)
        where, values = torch.tensor(owners), (cosines.detach() * weights).cpu()
        self.cosines[where] = 0
        self.cosines.index_add_(0, where, values)
        return ((1 - cosines).abs() * weights).sum() / self.faces.num_with_face

    def _for_decoder(self, latents: Tensor) -> Tensor:
        return (latents.float() / self.scaling_factor).to(self.setting.dtype)

    def _chunks_with_faces(self) -> list[slice]:
        """Chunks in which somebody is seen; the others have a gradient of exactly zero."""
        num_frames, size = len(self.faces.boxes), self.setting.chunk
        chunks = [slice(start, min(start + size, num_frames)) for start in range(0, num_frames, size)]
        return [frames for frames in chunks if any(self.faces.boxes[frames])]

    def _check(self, latents: Tensor) -> None:
        if len(latents) != len(self.faces.boxes):
            problem = f"are for {len(self.faces.boxes)} frames, the clip has {len(latents)}"
            raise InputError("face boxes", problem, "give face boxes or masks for each frame of the clip")


def _loss_scale(gradient: Tensor, dtype: torch.dtype) -> float:
    """A power of two that lifts a gradient to about 1, so that float16 does not lose it; else 1."""
    largest = float(gradient.abs().max())
    if dtype != torch.float16 or not isfinite(largest) or not largest:
        return 1.0
    return 2.0 ** -floor(log2(largest))


def _dtype_of(module: nn.Module) -> torch.dtype:
    return next((weight.dtype for weight in module.parameters()), torch.float32)


def pixels_of(latents: Tensor) -> tuple[int, int]:
    """Height and width in pixels of the pictures of latents [... h w]."""
    return latents.shape[-2] * LATENT_PIXELS, latents.shape[-1] * LATENT_PIXELS

"""Who a frame shows, by a face recogniser: cosines between embeddings, CSIM.

Faces are cut out at the true face box, as Face Embed cuts a face given by its box; not where some detector
believes to see one. Axes: f frames, e identity embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ..face.embed import embed_face
from ..face.recognisers import WIDTH, TorchRecogniser
from ..pose.draw import Picture

Array = NDArray[np.float64]


def identity_of(network: nn.Module, picture: Picture, box: Sequence[float]) -> Tensor:
    """float32 [e], not normalised, of the face within left, top, right, bottom of uint8 [H W 3]."""
    left, top, right, bottom = (float(side) for side in box)
    face = embed_face([picture], TorchRecogniser(network), corners=(left, top, right, bottom))
    return torch.zeros(WIDTH) if face.identity is None else face.identity


def identities_of(network: nn.Module, frames: Picture, boxes: Array) -> Tensor:
    """float32 [f e]; NaN for frames whose box [4] is NaN."""
    unseen = torch.full((WIDTH,), torch.nan)
    return torch.stack(
        [
            identity_of(network, frame, box) if np.isfinite(box).all() else unseen
            for frame, box in zip(frames, boxes, strict=True)
        ]
    )


def csim(faces: Tensor, other: Tensor) -> float | None:
    """Mean cosine of faces [f e] to another face [e], or frame by frame to others [f e]; None without faces."""
    cosines = cosine_similarity(faces, other.expand_as(faces))
    seen = cosines[cosines.isfinite()]
    return float(seen.mean()) if len(seen) else None

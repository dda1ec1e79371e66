"""Condition dropout: which conditions a video is trained without, so that guidance can work at inference.

Code: `train.py`, Francis-Rings/StableAnimator @ 020e7f2. Face tokens and pose are never dropped, and
face tokens are made from the CLIP token as it was before dropout.
Axes: b videos, n tokens, d token width.

One uniform draw per video, with dropout probability q:

    draw        CLIP token  image latents
    [0, q)      zero        kept
    [q, 2q)     zero        zero
    [2q, 3q)    kept        zero
    [3q, 1)     kept        kept
"""

from __future__ import annotations

from torch import Tensor

from ..errors import InputError

DROPOUT_PROBABILITY = 0.1


def kept_conditions(draws: Tensor, probability: float = DROPOUT_PROBABILITY) -> tuple[Tensor, Tensor]:
    """Which videos keep their CLIP token, and which their image latents: two bool [b].

    Args:
        draws: uniform in [0, 1), [b].
        probability: q of the table above.

    Raises:
        InputError: the table's three rows would take more than all videos.
    """
    if not 0 <= probability <= 1 / 3:
        raise InputError("dropout probability", f"is {probability}", "give a number from 0 to 1/3")
    keep_token = draws >= 2 * probability
    keep_image = (draws < probability) | (draws >= 3 * probability)
    return keep_token, keep_image


def drop_conditions(
    image_embedding: Tensor, image_latents: Tensor, draws: Tensor, probability: float = DROPOUT_PROBABILITY
) -> tuple[Tensor, Tensor]:
    """CLIP tokens [b n d] and image latents [b ...], zero for the videos that go without; new tensors.

    Args:
        image_embedding: CLIP tokens, without the face tokens.
        image_latents: latents of the reference picture.
        draws: uniform in [0, 1), [b].
        probability: q of the table above.

    Raises:
        InputError: as `kept_conditions`.
    """
    keep_token, keep_image = kept_conditions(draws, probability)
    return _zero_unless(keep_token, image_embedding), _zero_unless(keep_image, image_latents)


def _zero_unless(keep: Tensor, x: Tensor) -> Tensor:
    return x * keep.to(x).view(-1, *[1] * (x.ndim - 1))

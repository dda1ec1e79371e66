"""Windows over a long clip: which frames are denoised together, and how their predictions are blended.

StableAnimator, `pipelines/inference_pipeline_animation.py`. Every window begins with frame 0, so each one sees the
same anchor. Different from the official code: a clip shorter than a window is one window (there it crashes), and
settings that leave frames without a window are refused (there they become NaN).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .errors import InputError

DEFAULT_WINDOW_SIZE = 16
DEFAULT_OVERLAP = 4


def check_windows(num_frames: int, window_size: int, overlap: int) -> None:
    """Refuse, by name, settings that cannot cover the clip.

    Raises:
        InputError: no frames; or more than one window is needed and the window is under two frames, or the overlap
            is not between 1 and window_size - 1.
    """
    if num_frames < 1:
        raise InputError("frames", "there are none", "give at least one frame")
    if num_frames <= window_size:
        return
    if window_size < 2:
        raise InputError(
            "window_size", f"is {window_size}", "set it to 2 frames or more; the model was trained on 16"
        )
    if not 1 <= overlap < window_size:
        raise InputError(
            "overlap",
            f"is {overlap} for windows of {window_size} frames, which leaves frames without a window",
            f"set it between 1 and {window_size - 1}; 4 is the official value",
        )


def anchored_windows(num_frames: int, window_size: int, overlap: int) -> list[list[int]]:
    """Frame numbers of each window, in order. Neighbours share frame 0 and `overlap - 1` running frames.

    >>> anchored_windows(6, window_size=4, overlap=2)
    [[0, 1, 2, 3], [0, 3, 4, 5]]

    Raises:
        InputError: see `check_windows`.
    """
    check_windows(num_frames, window_size, overlap)
    if num_frames <= window_size:
        return [list(range(num_frames))]
    starts = list(range(0, num_frames - window_size + 1, window_size - overlap))
    if starts[-1] + window_size < num_frames:
        starts.append(num_frames - window_size)
    return [[0, *range(start + 1, start + window_size)] for start in starts]


def triangular_weights(window_size: int) -> Tensor:
    """Blend weight of each position in a window: rises to the middle and falls again, float32 [window_size].

    Weights go by position, not by frame: frame 0, first in every window, always weighs least.
    """
    positions = torch.arange(window_size, dtype=torch.float64)
    weights = torch.minimum(positions + 0.5, window_size - positions - 0.5) * 2 / window_size
    return weights.float()


def predict_in_windows(
    predict: Callable[[list[int]], tuple[Tensor, ...]], windows: list[list[int]]
) -> tuple[Tensor, ...]:
    """Predictions of all frames from predictions of windows, blended by `triangular_weights`.

    Args:
        predict: frame numbers of a window -> one or more tensors, frames on their first axis.
        windows: as `anchored_windows` gives them; together they hold every frame.

    Returns:
        As many tensors as `predict` gives, for all frames.
    """
    if len(windows) == 1:
        return predict(windows[0])
    num_frames = 1 + max(max(window) for window in windows)
    weights = triangular_weights(len(windows[0]))
    total = torch.zeros(num_frames)
    sums: list[Tensor] = []
    for window in windows:
        index = torch.tensor(window)
        total.index_add_(0, index, weights)
        for position, prediction in enumerate(predict(window)):
            if position == len(sums):
                sums.append(
                    torch.zeros_like(prediction[:1]).repeat(num_frames, *[1] * (prediction.dim() - 1))
                )
            weighted = prediction * _along_frames(weights, prediction)
            sums[position].index_add_(0, index.to(prediction.device), weighted)
    return tuple(summed / _along_frames(total, summed) for summed in sums)


def repeat_noise(noise: Tensor, num_frames: int) -> Tensor:
    """Noise of one window [f ...] repeated along the frames and cut to [num_frames ...], as the official code does."""
    repeats = -(-num_frames // noise.shape[0])
    return noise.repeat(repeats, *[1] * (noise.dim() - 1))[:num_frames]


def chunks(num_frames: int, size: int, overlap: int = 0) -> Iterator[tuple[int, int]]:
    """Half-open ranges of up to `size` frames that cover the clip, each `overlap` frames into the one before.

    >>> list(chunks(10, size=4)), list(chunks(10, size=4, overlap=1))
    ([(0, 4), (4, 8), (8, 10)], [(0, 4), (3, 7), (6, 10)])
    """
    start = 0
    while True:
        stop = min(start + size, num_frames)
        yield start, stop
        if stop == num_frames:
            return
        start = stop - overlap


def _along_frames(weights: Tensor, like: Tensor) -> Tensor:
    """[f] -> [f 1 1 ...], on the device and in the dtype of `like`."""
    return weights.to(like).view(-1, *[1] * (like.dim() - 1))

"""Windows over a long clip: which frames are denoised together, and how their predictions are blended.

StableAnimator, `pipelines/inference_pipeline_animation.py`: every window begins with frame 0, so each one sees the
same anchor. Different from the official code: a clip shorter than a window is one window (there it crashes), and
settings that leave frames without a window are refused (there they become NaN).
Animate Anyone, `src/pipelines/context.py` (MooreThreads/Moore-AnimateAnyone @ a914ef3, after AnimateDiff): windows of
running frames that go on at the beginning when they come to the end, so that the clip closes to a loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .errors import InputError

DEFAULT_WINDOW_SIZE = 16
DEFAULT_OVERLAP = 4


def check_windows(num_frames: int, window_size: int, overlap: int, *, least_overlap: int = 1) -> None:
    """Refuse, by name, settings that cannot cover the clip.

    Raises:
        InputError: no frames; or more than one window is needed and the window is under two frames, or the overlap
            is not between `least_overlap` and window_size - 1.
    """
    if num_frames < 1:
        raise InputError("frames", "there are none", "give at least one frame")
    if num_frames <= window_size:
        return
    if window_size < 2:
        raise InputError(
            "window_size",
            f"is {window_size}",
            "set it to 2 frames or more; StableAnimator was trained on 16, Animate Anyone on 24",
        )
    if not least_overlap <= overlap < window_size:
        raise InputError(
            "overlap",
            f"is {overlap} for windows of {window_size} frames, which leaves frames without a window",
            f"set it between {least_overlap} and {window_size - 1}; 4 is the official value",
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


def looped_windows(
    num_frames: int,
    window_size: int,
    overlap: int,
    *,
    stride: int = 1,
    close: bool = True,
    turn: float = 0.0,
) -> list[list[int]]:
    """Frame numbers of windows on a ring: what runs over the end goes on with frame 0.

    >>> looped_windows(6, window_size=4, overlap=2)
    [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 0, 1]]

    Args:
        num_frames: of the clip.
        window_size: frames of each window.
        overlap: frames shared by neighbours.
        stride: up to this many passes over the clip, each with every 2nd, 4th, ... frame only; 1 is official.
        close: also those windows that bring no new frame and only join the end to the beginning.
        turn: where on the ring the first window begins, 0 to 1; the official code asks for 0 at every step.

    Raises:
        InputError: see `check_windows`.
    """
    check_windows(num_frames, window_size, overlap, least_overlap=0)
    if num_frames <= window_size:
        return [list(range(num_frames))]
    passes = min(stride, math.ceil(math.log2(num_frames / window_size)) + 1)
    first = round(num_frames * turn)
    last = first + num_frames - (0 if close else overlap)
    windows = []
    for step in (1 << number for number in range(passes)):
        for start in range(first + int(turn * step), last, window_size * step - overlap):
            windows.append([frame % num_frames for frame in range(start, start + window_size * step, step)])
    return windows


def running_windows(num_frames: int, window_size: int, overlap: int) -> list[list[int]]:
    """Frame numbers of windows that run from the first frame to the last; the last window is moved back to fit.

    >>> running_windows(7, window_size=4, overlap=2)
    [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]

    Raises:
        InputError: see `check_windows`.
    """
    check_windows(num_frames, window_size, overlap, least_overlap=0)
    return [list(range(*span)) for span in even_spans(num_frames, window_size, overlap)]


def triangular_weights(window_size: int) -> Tensor:
    """Blend weight of each position in a window: rises to the middle and falls again, float32 [window_size].

    Weights go by position, not by frame: frame 0, first in every window, always weighs least.
    """
    positions = torch.arange(window_size, dtype=torch.float64)
    weights = torch.minimum(positions + 0.5, window_size - positions - 0.5) * 2 / window_size
    return weights.float()


def equal_weights(window_size: int) -> Tensor:
    """Every position of a window counts alike, float32 [window_size]."""
    return torch.ones(window_size)


def predict_in_windows(
    predict: Callable[[list[int]], tuple[Tensor, ...]],
    windows: list[list[int]],
    weights_of: Callable[[int], Tensor] = triangular_weights,
) -> tuple[Tensor, ...]:
    """Predictions of all frames from predictions of windows, blended.

    Args:
        predict: frame numbers of a window -> one or more tensors, frames on their first axis.
        windows: all of one size; together they hold every frame.
        weights_of: window size -> weight of each position.

    Returns:
        As many tensors as `predict` gives, for all frames.
    """
    if len(windows) == 1:
        return predict(windows[0])
    num_frames = 1 + max(max(window) for window in windows)
    weights = weights_of(len(windows[0]))
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


def even_spans(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Spans of the same size that cover `length`; the last one is moved back rather than cut short."""
    if length <= size:
        return [(0, length)]
    spans = list(chunks(length, size, overlap))
    return [*spans[:-1], (length - size, length)]


def _along_frames(weights: Tensor, like: Tensor) -> Tensor:
    """[f] -> [f 1 1 ...], on the device and in the dtype of `like`."""
    return weights.to(like).view(-1, *[1] * (like.dim() - 1))

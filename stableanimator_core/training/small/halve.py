"""A checkpoint's networks as they are shipped: the mean weights in half precision, configurations and all.

python -m stableanimator_core.training.small.halve CHECKPOINT OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ...errors import InputError
from ...weights.files import read_weights, save_weights


def halve(checkpoint: Path, out: Path) -> list[Path]:
    """Write the `.safetensors` of a training checkpoint as float16.

    The trainer's own state (`ema.safetensors`) stays behind. Integers and the metadata are kept.

    Args:
        checkpoint: folder `checkpoint-N` of a run.
        out: folder of the files, made if need be; files of the same names are replaced.

    Returns:
        The files written.

    Raises:
        InputError: the folder holds no networks.
        WeightsError: a file is damaged, or `out` cannot be written.
    """
    sources = sorted(path for path in checkpoint.glob("*.safetensors") if path.name != "ema.safetensors")
    if not sources:
        raise InputError("checkpoint", f"{checkpoint} holds no .safetensors", "name a checkpoint-N folder")
    written = []
    for source in sources:
        weights = read_weights(source)
        state = {
            key: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
            for key, tensor in weights.state.items()
        }
        target = out / source.name
        save_weights(target, state, weights.metadata)
        written.append(target)
    return written


if __name__ == "__main__":
    halve(Path(sys.argv[1]), Path(sys.argv[2]))

"""The running mean of the trained weights (EMA), by diffusers, with names and a place in checkpoints.

Official: of the U-Net only, used to validate, never saved (`train.py`, Francis-Rings/StableAnimator @ 020e7f2).
Here it covers everything that learns, and a checkpoint's .safetensors hold it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from ..weights.files import read_weights, save_weights


class Average:
    """Mean of all parameters of `network` that learn.

    Args:
        network: the unwrapped module; its parameters stay the same objects.
        decay: upper bound; the decay of step s is (1 + s) / (10 + s) until it reaches it.
    """

    def __init__(self, network: nn.Module, decay: float):
        from diffusers.training_utils import EMAModel

        learning = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.names, self.parameters = list(learning), list(learning.values())
        self.mean = EMAModel(self.parameters, decay=decay, foreach=True)

    def step(self) -> None:
        """Take in the present weights."""
        self.mean.step(self.parameters)

    def state(self) -> dict[str, Tensor]:
        """Parameter name -> mean."""
        return dict(zip(self.names, self.mean.shadow_params, strict=True))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the network has the mean weights."""
        self.mean.store(self.parameters)
        self.mean.copy_to(self.parameters)
        try:
            yield
        finally:
            self.mean.restore(self.parameters)

    def save(self, path: Path) -> None:
        """To a safetensors file; raises WeightsError as `save_weights`."""
        save_weights(path, self.state(), {"steps": json.dumps(self.mean.optimization_step)})

    def load(self, path: Path) -> None:
        """From `save`'s file; raises WeightsError as `read_weights`."""
        weights = read_weights(path)
        for shadow, name in zip(self.mean.shadow_params, self.names, strict=True):
            shadow.copy_(weights.state[name])
        self.mean.optimization_step = json.loads(weights.metadata["steps"])

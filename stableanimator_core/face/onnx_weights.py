"""The torch weights of the face recogniser, read out of glintr100.onnx: nobody needs to fetch them twice.

An exported ArcFace network (arcface_torch, deepinsight/insightface) is a straight chain of blocks. Exporting
folds a BatchNorm that follows a convolution into it; such a convolution is given its weight back with a
BatchNorm beside it that only adds the folded bias. The numbers are then others than in glintr100_torch.pth,
the network is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import WeightsError
from ..onnx_sessions import read_onnx

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

EPS = 1e-5  # of the torch network's BatchNorms
_PASS = {"Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast"}


def torch_weights_from_onnx(path: str | Path) -> dict[str, Tensor]:
    """State dict of `models.iresnet.IResNet` from an ArcFace ONNX file, any depth and width.

    Returns:
        float32 tensors in the layout of glintr100_torch.pth (for IResNet-100: 925 keys).

    Raises:
        WeightsError: not an ONNX file, or not an IResNet.
    """
    graph = _Graph(read_onnx(path), str(path))
    state: dict[str, Tensor] = {}
    state.update(_prefixed("", _stem(graph)))
    level = block = 0
    while graph.at_block():
        parts, shrinks = _block(graph)
        level, block = (level + 1, 0) if shrinks else (level, block + 1)
        state.update(_prefixed(f"layer{level}.{block}.", parts))
    if not level:
        raise graph.foreign("has no residual block that halves the picture")
    state.update(_prefixed("", _tail(graph)))
    return state


def _stem(graph: _Graph) -> dict[str, Tensor]:
    weight, norm = graph.convolution()
    return {"conv1.weight": weight, **_named("bn1", norm), "prelu.weight": graph.prelu()}


def _block(graph: _Graph) -> tuple[dict[str, Tensor], bool]:
    """The parts of the next block, and whether it opens a level (has a projected shortcut)."""
    entry = graph.here
    parts = _named("bn1", graph.norm())
    for number in (1, 2):
        weight, norm = graph.convolution()
        parts[f"conv{number}.weight"] = weight
        parts.update(_named(f"bn{number + 1}", norm))
        if number == 1:
            parts["prelu.weight"] = graph.prelu()
    main_path = graph.here
    shrinks = graph.shortcut_is_projected(entry)
    if shrinks:
        graph.here = entry
        weight, norm = graph.convolution()
        parts["downsample.0.weight"] = weight
        parts.update(_named("downsample.1", norm))
    graph.add(main_path, graph.here if shrinks else entry)
    return parts, shrinks


def _tail(graph: _Graph) -> dict[str, Tensor]:
    parts = _named("bn2", graph.norm())
    parts["fc.weight"], parts["fc.bias"] = graph.linear()
    parts.update(_named("features", graph.norm(width=len(parts["fc.bias"]))))
    graph.end()
    return parts


class _Graph:
    """Walks an ONNX graph along its data; `here` names the tensor reached."""

    def __init__(self, model: ModelProto, source: str):
        from onnx import numpy_helper

        self.source = source
        self.values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        self.users: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            elif node.op_type == "Identity" and node.input[0] in self.values:
                self.values[node.output[0]] = self.values[node.input[0]]  # weights that occur twice
            else:
                for name in node.input:
                    self.users.setdefault(name, []).append(node)
        self.here = next(item.name for item in model.graph.input if item.name not in self.values)
        self.outputs = {item.name for item in model.graph.output}

    def foreign(self, problem: str) -> WeightsError:
        return WeightsError(
            self.source, f"{problem}, so it is no ArcFace IResNet", "use glintr100.onnx of antelopev2"
        )

    def norm(self, width: int = 0) -> dict[str, Tensor]:
        """The BatchNorm that comes next; without one, and if `width` is given, one that changes nothing."""
        if width and self._next("BatchNormalization") is None:
            return _adding(np.zeros(width, dtype=np.float32))
        node = self._step("BatchNormalization")
        gain, bias, mean, variance = (self._tensor(name) for name in node.input[1:5])
        eps = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        return _norm(gain, bias, mean, variance + (eps - EPS))

    def convolution(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The next convolution's weight and the BatchNorm after it, which may be folded into its bias."""
        node = self._step("Conv")
        weight = self._tensor(node.input[1])
        if len(node.input) > 2:
            return weight, _adding(self._tensor(node.input[2]).numpy())
        return weight, self.norm(width=len(weight))

    def prelu(self) -> Tensor:
        """Slopes [c]."""
        channels = len(self._last_weight)
        return self._tensor(self._step("PRelu").input[1]).flatten().expand(channels).clone()

    def linear(self) -> tuple[Tensor, Tensor]:
        """Weight [out in] and bias [out] of the fully connected layer."""
        node = self._step("Gemm", "MatMul")
        weight = self._tensor(node.input[1])
        if node.op_type == "MatMul":
            weight = weight.T.contiguous()
            added = self._next("Add")
            bias = self._tensor(self._step("Add").input[1]) if added is not None else torch.zeros(len(weight))
            return weight, bias
        flags = {item.name: item for item in node.attribute}
        if "transB" not in flags or not flags["transB"].i:
            weight = weight.T.contiguous()
        bias = self._tensor(node.input[2]) if len(node.input) > 2 else torch.zeros(len(weight))
        return weight, bias

    def at_block(self) -> bool:
        """Whether a residual block starts here: the tensor is used twice, once by a BatchNorm."""
        return len(self._users()) == 2 and self._next("BatchNormalization") is not None

    def shortcut_is_projected(self, entry: str) -> bool:
        """Whether the shortcut of the block that starts at `entry` goes through a convolution."""
        return any(node.op_type == "Conv" for node in self.users.get(entry, []))

    def add(self, left: str, right: str) -> None:
        """Go through the addition of two tensors."""
        self.here = left
        node = self._step("Add")
        if set(node.input) != {left, right}:
            raise self.foreign(f"adds {list(node.input)} where a shortcut should end")

    def end(self) -> None:
        """Check that nothing is left to compute."""
        while self.here not in self.outputs and self._skip():
            pass
        if self.here not in self.outputs:
            raise self.foreign("goes on after the last layer")

    def _users(self) -> list[NodeProto]:
        while len(self.users.get(self.here, [])) == 1 and self._skip():
            pass
        return self.users.get(self.here, [])

    def _skip(self) -> bool:
        users = self.users.get(self.here, [])
        if len(users) != 1 or users[0].op_type not in _PASS:
            return False
        self.here = users[0].output[0]
        return True

    def _next(self, *kinds: str) -> NodeProto | None:
        return next((node for node in self._users() if node.op_type in kinds), None)

    def _step(self, *kinds: str) -> NodeProto:
        node = self._next(*kinds)
        if node is None:
            found = ", ".join(node.op_type for node in self._users()) or "nothing"
            raise self.foreign(f"has {found} where {' or '.join(kinds)} should come")
        self.here = node.output[0]
        return node

    def _tensor(self, name: str) -> Tensor:
        if name not in self.values:
            raise self.foreign(f"computes {name}, which should be a stored weight")
        tensor = torch.from_numpy(np.array(self.values[name], dtype=np.float32))
        if tensor.ndim == 4:
            self._last_weight = tensor
        return tensor


def _norm(gain: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> dict[str, Tensor]:
    counter = torch.zeros((), dtype=torch.int64)
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return dict(zip(names, (gain, bias, mean, variance, counter), strict=True))


def _adding(bias: np.ndarray) -> dict[str, Tensor]:
    """A BatchNorm that adds `bias` and does nothing else."""
    ones = torch.ones(len(bias))
    return _norm(ones, torch.from_numpy(np.array(bias)), torch.zeros(len(bias)), ones - EPS)


def _named(name: str, norm: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in norm.items()}


def _prefixed(prefix: str, parts: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((prefix + key, value) for key, value in parts.items())

"""ArcFace networks behind one call: aligned faces in, identities out.

Source: Deng et al., ArcFace, arXiv:1801.07698, through insightface 2 (MIT) on an explicit ONNX file, or the
same network in torch. Both give the same numbers for the same weights.
Axes: n crops, e identity embedding (512).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..onnx_sessions import OnnxHeader, open_session, providers_in_use, tensor_type

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FACE_SIZE = 112
WIDTH = 512


class Recogniser(Protocol):
    """Aligned faces to identities."""

    @property
    def provider(self) -> str: ...

    def embed(self, crops: np.ndarray) -> Tensor:
        """uint8 [n 112 112 3] in insightface's channel order (see `for_insightface`) to float32 [n e]."""
        ...


class OnnxRecogniser:
    """ArcFace on an ONNX file, by insightface.

    Args:
        path: glintr100.onnx.
        providers: see `onnx_sessions.choose_providers`.

    Raises:
        WeightsError: the file is missing, damaged or another network.
    """

    def __init__(self, path: str | Path, providers: str | Sequence[str] = "auto"):
        self.session = open_session(path, providers)
        check_recogniser(self.session, str(path))
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX

        self._arcface = ArcFaceONNX(str(path), self.session)
        self._one_by_one = isinstance(self.session.get_inputs()[0].shape[0], int)

    @property
    def provider(self) -> str:
        """What the network really runs on."""
        return providers_in_use(self.session)[0]

    def embed(self, crops: np.ndarray) -> Tensor:
        """See `Recogniser`."""
        calls = [[crop] for crop in crops] if self._one_by_one else [list(crops)]
        vectors = [np.asarray(self._arcface.get_feat(call), dtype=np.float32) for call in calls]
        return torch.from_numpy(np.concatenate(vectors))


class TorchRecogniser:
    """The same network in torch (`models.iresnet.IResNet`), wherever its weights lie."""

    def __init__(self, network: nn.Module):
        self.network = network.eval()

    @property
    def provider(self) -> str:
        """The torch device."""
        return f"torch {next(self.network.parameters()).device}"

    @torch.no_grad()
    def embed(self, crops: np.ndarray) -> Tensor:
        """See `Recogniser`."""
        parameter = next(self.network.parameters())
        rgb = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1])).permute(0, 3, 1, 2)
        pixels = (rgb.to(parameter.device, torch.float32) - 127.5) / 127.5
        return self.network(pixels.to(parameter.dtype)).float().cpu()


def check_recogniser(session: InferenceSession | OnnxHeader, source: str) -> None:
    """Raise a WeightsError if the network is no ArcFace of 112x112 pixels and 512 numbers."""
    tensor_type(session, source, ("float32",))
    shape = list(session.get_inputs()[0].shape)
    outputs = [list(output.shape) for output in session.get_outputs()]
    fits = len(shape) == 4 and shape[1:] == [3, FACE_SIZE, FACE_SIZE] and len(outputs) == 1
    if not (fits and len(outputs[0]) == 2 and outputs[0][1] == WIDTH):
        raise WeightsError(
            source,
            f"takes {shape} and gives {outputs}; ArcFace takes [n, 3, 112, 112] and gives [n, 512]",
            "use glintr100.onnx of antelopev2",
        )

"""The small face recognisers: IResNet with ArcFace's additive angular margin, on the store's people.

Paper: Deng et al., ArcFace, arXiv:1801.07698. Two of them: the recogniser gives the identity and is what the face
optimisation climbs; the judge, of another width, depth and seed, is for evaluation alone.
Axes: b crops, e identity embedding (512), p people.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.iresnet import IResNet
from ...weights.files import save_weights
from .faces import faces_for_evaluation, faces_for_training
from .loop import Stage
from .store import FrameStore

RECOGNISER: dict[str, Any] = {"layers": (1, 1, 1, 1), "widths": (16, 32, 48, 20), "stem_width": 16}
JUDGE: dict[str, Any] = {"layers": (1, 1, 2, 1), "widths": (12, 24, 56, 22), "stem_width": 12}
FILES = {"recogniser": "face_recognizer.safetensors", "judge": "judge.safetensors"}
_SCALE, _MARGIN = 24.0, 0.35
_SOFT_SIDE = 20


class ArcFaceHead(nn.Module):
    """Cross-entropy on scaled cosines, where the right person's angle is made larger by a margin."""

    def __init__(self, people: int, width: int = 512):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(people, width) * 0.01)

    def forward(self, identities: Tensor, people: Tensor, margin: float) -> Tensor:
        """Identities [b e] and person numbers [b] to the loss."""
        cosines = F.linear(F.normalize(identities), F.normalize(self.weight))
        right = cosines.gather(1, people[:, None])
        sine = (1 - right**2).clamp_min(1e-6).sqrt()
        moved = right * math.cos(margin) - sine * math.sin(margin)
        # Past pi - margin the angle would come back; there a straight line goes on.
        moved = torch.where(right > -math.cos(margin), moved, right - margin * math.sin(margin))
        return F.cross_entropy(_SCALE * cosines.scatter(1, people[:, None], moved), people)


class RecogniserStage(Stage):
    """See the module.

    Args:
        store: the pictures.
        name: "recogniser" or "judge".
        seed: of the first weights.
        config: of the IResNet.
        batch: crops of a step.
    """

    peak_rate = 3e-3
    weight_decay = 5e-4

    def __init__(
        self,
        store: FrameStore,
        name: str = "recogniser",
        seed: int = 0,
        config: dict[str, Any] | None = None,
        batch: int = 64,
    ):
        self.name, self.store, self.batch = name, store, batch
        torch.manual_seed(seed + (7919 if name == "judge" else 0))
        self.numbers = store.with_face(store.training)
        self.people, self.labels = np.unique(store.people[self.numbers], return_inverse=True)
        self.face = IResNet(**(config or (JUDGE if name == "judge" else RECOGNISER)))
        _initialise(self.face)
        self.head = ArcFaceHead(len(self.people))
        self.network = nn.ModuleDict({"face": self.face, "head": self.head})

    def losses(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        chosen = random.integers(len(self.numbers), size=self.batch)
        faces = faces_for_training(self.store, self.numbers[chosen], random)
        labels = torch.from_numpy(self.labels[chosen])
        margin = _MARGIN * min(1.0, max(0.0, progress - 0.1) / 0.3)
        with torch.autocast("cpu", torch.bfloat16):
            identities = self.face(faces)
        return {"arcface": self.head(identities.float(), labels, margin)}

    def evaluate(self) -> dict[str, float]:
        numbers = self.store.with_face(self.store.held_out)
        clips = numbers // self.store.plan.num_frames
        numbers = numbers[np.unique(clips, return_index=True)[1]][:600]  # one frame of each clip
        sharp = self._embed(faces_for_evaluation(self.store, numbers))
        soft = self._embed(faces_for_evaluation(self.store, numbers, _SOFT_SIDE))
        people = torch.from_numpy(self.store.people[numbers])
        return {
            **verification(sharp, sharp, people),
            "norm": float(sharp.norm(dim=1).mean()),
            **{f"{key}_soft": value for key, value in verification(sharp, soft, people).items()},
        }

    def export(self, folder: Path, dtype: torch.dtype) -> list[Path]:
        path = folder / FILES[self.name]
        state = {
            key: value.to(dtype) if value.is_floating_point() else value
            for key, value in self.face.state_dict().items()
        }
        save_weights(path, state, {"note": f"small {self.name} for the drawn people"})
        return [path]

    def _embed(self, faces: Tensor) -> Tensor:
        return torch.cat([self.face(part) for part in faces.split(64)])


@torch.no_grad()
def verification(left: Tensor, right: Tensor, people: Tensor) -> dict[str, float]:
    """How well cosines tell same from different people.

    Args:
        left: identities [b e].
        right: identities [b e] of the same faces in another picture quality, or `left` itself.
        people: [b] who they are.

    Returns:
        accuracy at the best threshold (balanced), equal error rate, mean cosine of same and of different people;
        a face is never compared with itself.
    """
    cosines = F.normalize(left) @ F.normalize(right).T
    pairs = torch.triu_indices(len(people), len(people), 1)
    values = cosines[pairs[0], pairs[1]]
    same = people[pairs[0]] == people[pairs[1]]
    positive, negative = values[same].sort().values, values[~same].sort().values
    thresholds = torch.linspace(-1, 1, 2001)
    missed = torch.searchsorted(positive, thresholds).float() / max(1, len(positive))
    taken = 1 - torch.searchsorted(negative, thresholds).float() / max(1, len(negative))
    errors = (missed + taken) / 2
    nearest = (missed - taken).abs().argmin()
    return {
        "accuracy": 1 - float(errors.min()),
        "eer": float(errors[nearest]),
        "cosine_same": float(positive.mean()),
        "cosine_different": float(negative.mean()),
    }


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")

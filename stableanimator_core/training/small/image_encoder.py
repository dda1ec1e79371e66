"""The small CLIP image encoder, trained without captions: two frames of the same clip belong together.

Layout: CLIPVisionModelWithProjection (transformers). Losses: InfoNCE (van den Oord et al., arXiv:1807.03748) between
frames of a clip, which share person, clothes and place, each cut and mirrored by chance; and a linear head that tells
the mean colours around body joints and in the corners. Input through `preprocess.clip_pixels`.
Axes: b pictures, d projection, k coloured places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.image_encoder import build_image_encoder
from ...pose.people import JOINT, VISIBLE
from ...preprocess import clip_pixels
from ...weights.files import save_weights
from .loop import Stage
from .store import FrameStore

CONFIG: dict[str, Any] = {
    "architectures": ["CLIPVisionModelWithProjection"],
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 64,
    "hidden_act": "gelu",
}
_PLACES = (
    ("nose",),
    ("neck", "r_hip", "l_hip"),
    ("r_shoulder", "r_elbow"),
    ("l_shoulder", "l_elbow"),
    ("r_hip", "r_knee"),
    ("l_hip", "l_knee"),
)
"""Joints whose middle is looked at; the upper corners of the picture are looked at besides."""

_PATCH = 3  # pixels around a place, on each side
_TEMPERATURE = 0.1
_COLOUR_WEIGHT = 2.0
_SMALLEST_CUT = 0.7  # of the picture's side
_DROPPED = 0.5  # share of training pictures in which a rectangle is painted over


class ImageEncoderStage(Stage):
    """See the module.

    Args:
        store: the pictures.
        seed: of the first weights.
        config: of the encoder.
        batch: clips of a step, two pictures each.
    """

    name = "image-encoder"
    peak_rate = 1e-3
    weight_decay = 0.02

    def __init__(
        self, store: FrameStore, seed: int = 0, config: Mapping[str, Any] | None = None, batch: int = 48
    ):
        torch.manual_seed(seed)
        self.config, self.store, self.batch = dict(config or CONFIG), store, batch
        self.encoder = build_image_encoder(self.config)
        width = int(self.config["projection_dim"])
        self.norm = nn.BatchNorm1d(width, affine=False)  # what `export` folds in
        self.colours = nn.Linear(width, 3 * (len(_PLACES) + 2))
        self.network = nn.ModuleDict({"encoder": self.encoder, "norm": self.norm, "colours": self.colours})
        self.starts = store.clip_starts()

    def losses(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        starts = random.choice(self.starts, min(self.batch, len(self.starts)), replace=False)
        last = self.store.plan.num_frames - 1
        chosen = np.concatenate([starts, starts + last])  # as far apart as a clip allows
        vectors = self.norm(self.encoder(self._pixels(chosen, random)).image_embeds)
        colours, known = colours_of(self.store, chosen)
        wrong = (self.colours(vectors) - colours).abs() * known
        return {
            "infonce": info_nce(*vectors.chunk(2), temperature=_TEMPERATURE),
            "colours": _COLOUR_WEIGHT * wrong.sum() / known.sum().clamp_min(1),
        }

    def evaluate(self) -> dict[str, float]:
        starts = self.store.clip_starts(held_out=True)
        first = starts[:: max(1, len(starts) // 100)][:100]
        second = first + self.store.plan.num_frames - 1
        numbers = np.concatenate([first, second])
        vectors = torch.cat(
            [self.norm(self.encoder(self._pixels(part)).image_embeds) for part in np.array_split(numbers, 4)]
        )
        one, other = (F.normalize(part) for part in vectors.chunk(2))
        hits = (one @ other.T).argmax(dim=1) == torch.arange(len(one))
        colours, known = colours_of(self.store, numbers)
        wrong = ((self.colours(vectors) - colours).abs() * known).sum() / known.sum().clamp_min(1)
        return {
            "top1": float(hits.float().mean()),
            "of": len(one),
            "colour_error": float(wrong),
            "std": float(vectors.std(dim=0).mean()),
        }

    def export(self, folder: Path, dtype: torch.dtype) -> list[Path]:
        place = folder / "SVD" / "image_encoder"
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text(json.dumps(self.config, indent=1) + "\n")
        path = place / "model.safetensors"
        state = {key: value.to(dtype) for key, value in self._folded().items()}
        save_weights(path, state)
        return [path]

    @torch.no_grad()
    def _folded(self) -> dict[str, Tensor]:
        """The encoder's state with the norm moved in: the scale into the projection, the mean into the bias before
        it (`visual_projection` has none of its own)."""
        state = {key: value.clone() for key, value in self.encoder.state_dict().items()}
        mean, variance = self.norm.running_mean, self.norm.running_var
        projection = state["visual_projection.weight"]
        shift = torch.linalg.lstsq(projection, mean[:, None]).solution[:, 0]  # pyright: ignore[reportOptionalSubscript]
        state["vision_model.post_layernorm.bias"] -= shift
        state["visual_projection.weight"] = projection / (variance + self.norm.eps).sqrt()[:, None]  # pyright: ignore[reportOptionalOperand]
        return state

    def _pixels(self, numbers: np.ndarray, random: np.random.Generator | None = None) -> Tensor:
        pictures = []
        for number in numbers:
            picture = np.array(self.store.frames[number])
            if random is not None:
                picture = _varied(picture, random)
            pictures.append(clip_pixels(picture, int(self.config["image_size"])))
        return torch.cat(pictures)


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding the partner among all others, both ways; [b d] each."""
    cosines = F.normalize(first) @ F.normalize(second).T / temperature
    right = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(cosines, right) + F.cross_entropy(cosines.T, right)) / 2


def colours_of(store: FrameStore, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean colours [b 3k] in [-1, 1] at the places, and which are known [b 3k], 1 or 0."""
    size = store.plan.size
    colours = np.zeros((len(numbers), len(_PLACES) + 2, 3), dtype=np.float32)
    known = np.zeros((len(numbers), len(_PLACES) + 2, 1), dtype=np.float32)
    for row, number in enumerate(numbers):
        frame, joints, scores = store.frames[number], store.joints[number], store.joint_scores[number]
        points = [np.array([0.08, 0.08]), np.array([0.92, 0.08])]
        seen = [True, True]
        for names in _PLACES:
            members = [JOINT[name] for name in names]
            points.append(joints[members].mean(axis=0))
            seen.append(bool((scores[members] > VISIBLE).all()))
        for place, (point, visible) in enumerate(zip(points, seen, strict=True)):
            x, y = (int(value) for value in np.nan_to_num(point) * size)
            if visible and 0 <= x < size and 0 <= y < size:
                rows = slice(max(0, y - _PATCH), y + _PATCH + 1)
                columns = slice(max(0, x - _PATCH), x + _PATCH + 1)
                colours[row, place] = frame[rows, columns].reshape(-1, 3).mean(axis=0) / 127.5 - 1
                known[row, place] = 1
    flat = torch.from_numpy(colours.reshape(len(numbers), -1))
    return flat, torch.from_numpy(known.repeat(3, axis=2).reshape(len(numbers), -1))


def _varied(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A part of the picture, mirrored or not, sometimes with a rectangle of one colour painted over it, so that no
    single place gives the clip away."""
    size = picture.shape[0]
    side = int(size * random.uniform(_SMALLEST_CUT, 1))
    top, left = random.integers(size - side + 1, size=2)
    picture = picture[top : top + side, left : left + side]
    if random.random() < 0.5:
        picture = picture[:, ::-1]
    picture = np.ascontiguousarray(picture)
    if random.random() < _DROPPED:
        top, left = random.integers(side * 3 // 4, size=2)
        picture[top : top + side // 4, left : left + side // 4] = random.integers(0, 256, 3)
    return picture

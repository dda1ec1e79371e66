"""A face encoder to start from whose tokens tell faces apart.

    python -m stableanimator_core.training.small.face_start CACHE OUT --width 64

The official start sets the last projection to zero before a LayerNorm, and the ID adapter gives face features the
mean and deviation of image features however little they say. In a network trained from nothing, where the reference
latents show the face anyway, the tokens then become one constant (measured after 1500 steps: deviation 0.008 over
people, of 1.06 in all) and stay so. Here the encoder first learns to keep what goes in: linear heads, thrown away
afterwards, read the identity and the image embedding from its tokens. The U-Net then learns with the encoder still.
Axes: n frames, e identity (512), d token width.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...models.face_encoder import FaceEncoder
from ...weights.files import read_weights, save_weights

_BATCH, _RATE = 128, 1e-3


@dataclass(frozen=True)
class Faces:
    """What the encoder reads: identities [n e] and image embeddings [n d], frame by frame."""

    identities: Tensor
    embeddings: Tensor


def read_faces(cache: Path) -> Faces:
    """All frames with a face of a training cache.

    Raises:
        InputError: there are none.
        WeightsError: a file is damaged.
    """
    states = [read_weights(path).state for path in sorted(cache.glob("*.safetensors"))]
    if not states:
        raise InputError("the cache", f"{cache} holds no .safetensors", "let the trainer fill it first")
    identities = torch.cat([state["identity"] for state in states]).float()
    embeddings = torch.cat([state["image_embedding"] for state in states]).float()
    seen = identities.abs().sum(dim=1) > 0
    if not seen.any():
        raise InputError("the cache", f"{cache} holds no face", "give masks that mark faces")
    return Faces(identities[seen], embeddings[seen])


def pretrain(encoder: FaceEncoder, faces: Faces, steps: int, seed: int = 0) -> float:
    """Teach the tokens to keep identity and image embedding, in place.

    Args:
        encoder: changed in place; its last projection no longer starts from zero.
        faces: to learn from.
        steps: of 128 frames.
        seed: of their order.

    Returns:
        The last loss: 0 keeps everything, 2 is chance.
    """
    nn.init.xavier_uniform_(encoder.fusion_model.proj_out.weight)
    torch.manual_seed(seed)
    wanted = (centred(faces.identities), centred(faces.embeddings))
    width = len(encoder.state_dict()["proj.2.bias"])  # of all tokens together
    heads = nn.ModuleList(nn.Linear(width, target.shape[1]) for target in wanted)
    learning = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(learning, lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    loss = torch.tensor(2.0)
    for _ in range(steps):
        chosen = torch.randint(len(faces.identities), (_BATCH,))
        tokens = encoder(faces.identities[chosen], faces.embeddings[chosen, None]).flatten(1)
        terms = [
            1 - F.cosine_similarity(head(tokens), target[chosen]).mean()
            for head, target in zip(heads, wanted, strict=True)
        ]
        loss = torch.stack(terms).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return loss.item()


def centred(vectors: Tensor) -> Tensor:
    """Directions [n e] without what all have in common."""
    directions = F.normalize(vectors, dim=-1)
    return directions - directions.mean(dim=0)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stableanimator_core.training.small.face_start")
    parser.add_argument("cache", type=Path, help="the trainer's cache of the training set")
    parser.add_argument("out", type=Path, help="the .safetensors to write")
    parser.add_argument("--width", type=int, required=True, help="of the U-Net's cross-attention")
    parser.add_argument("--depth", type=int, default=2, help="perceiver layers")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    encoder = FaceEncoder(token_width=options.width, image_width=options.width, depth=options.depth)
    loss = pretrain(encoder, read_faces(options.cache), options.steps, options.seed)
    state = encoder.state_dict()
    metadata = {"config": json.dumps(FaceEncoder.config_from(state)), "note": f"start, loss {loss:.3f}"}
    save_weights(options.out, state, metadata)


if __name__ == "__main__":
    main()

"""python -m stableanimator_core.convert SRC [SRC ...] --out DIR: weight files as half-precision safetensors.

The result loads faster, takes half the room, cannot carry code, and says in its metadata which model it is:
its configuration ("config", JSON), its role and the source file's name and checksum. A Stable Video Diffusion
checkpoint is cut down to the two parts that are used here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError
from .weights.animate_anyone import read_image_vae
from .weights.files import Weights, read_weights, save_weights
from .weights.load import build_empty, load_exactly, model_config
from .weights.roles import kind_of
from .weights.svd import Part, open_svd, read_image_encoder, read_vae, single_file

log = logging.getLogger(__name__)

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
ROLES = (
    "unet",
    "pose_net",
    "face_encoder",
    "face_recognizer",
    "vae",
    "image_encoder",
    "svd",
    "denoising_unet",
    "reference_unet",
    "motion_module",
    "pose_guider",
    "image_vae",
)
_PARTS = {"vae": read_vae, "image_encoder": read_image_encoder, "image_vae": read_image_vae}


def convert(
    source: str | Path,
    out: str | Path,
    *,
    dtype: torch.dtype = torch.float16,
    role: str | None = None,
    config: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Convert one file.

    Args:
        source: the file, or a diffusers folder of Stable Video Diffusion.
        out: folder for the result, `<name of the source>.safetensors`.
        dtype: of all floating-point tensors; one that would overflow keeps its own, integers always do.
        role: one of `ROLES`; told from the keys if left out.
        config: the model's constructor arguments; told from the file if left out.
        force: replace an existing result.

    Returns:
        The file written.

    Raises:
        WeightsError: the source cannot be used, is not a complete model of its role, or the result exists.
    """
    source = Path(source)
    target = Path(out) / f"{source.stem if source.is_file() else source.name}.safetensors"
    if target.exists() and (not force or target.samefile(source)):
        remedy = "choose another folder" if force else "choose another folder, or add --force to replace it"
        raise WeightsError(str(target), "exists already", remedy)
    role = role or _role_of(source)
    weights = _svd_weights(source) if role == "svd" else _model_weights(role, source, config)
    state = {key: _narrowed(tensor, dtype) for key, tensor in weights.state.items()}
    metadata = weights.metadata | {"format": "pt", "stableanimator_role": role, "source_file": source.name}
    if source.is_file():
        metadata["source_sha256"] = _sha256(source)
    save_weights(target, state, metadata)
    return target


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stableanimator_core.convert", description=__doc__)
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SRC", help=".pth, .safetensors or SVD folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--dtype", choices=DTYPES, default="fp16", help="number format of the result")
    parser.add_argument("--role", choices=ROLES, help="which model it is; told from the keys if left out")
    parser.add_argument(
        "--config", type=Path, help="JSON file with the model's configuration, where shapes do not tell"
    )
    parser.add_argument("--force", action="store_true", help="replace existing results")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    config = json.loads(options.config.read_text()) if options.config else None
    settings = {
        "dtype": DTYPES[options.dtype],
        "role": options.role,
        "config": config,
        "force": options.force,
    }
    failures = 0
    for source in options.sources:
        try:
            target = convert(source, options.out, **settings)
            log.info("%s -> %s (%.1f MB)", source, target, target.stat().st_size / 1e6)
        except WeightsError as error:
            failures += 1
            log.error("%s", error)
    return 1 if failures else 0


def _role_of(source: Path) -> str:
    if source.is_dir():
        return "svd"
    keys = read_weights(source).state.keys()
    kind = kind_of(keys)
    if kind is None or not kind.role:
        looks = (
            f"looks like {kind.label}"
            if kind
            else f"has the keys of no known model ({', '.join(list(keys)[:3])})"
        )
        raise WeightsError(str(source), looks, f"name one of these models: {', '.join(ROLES)}")
    return kind.role


def _svd_weights(source: Path) -> Weights:
    svd = open_svd(source)
    for role, part in (("vae", svd.vae), ("image_encoder", svd.image_encoder)):
        load_exactly(build_empty(role, part.config), part.state, source)
    return single_file(svd)


def _model_weights(role: str, source: Path, config: Mapping[str, Any] | None) -> Weights:
    """One complete model in its own names, proven by loading it."""
    if role in _PARTS:
        part = _PARTS[role](source)
    else:
        weights = read_weights(source)
        part = Part(weights.state, model_config(role, weights, source), source)
    settings = dict(config or part.config)
    load_exactly(build_empty(role, settings), part.state, source)
    return Weights(part.state, {"config": json.dumps(settings)})


def _narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """In `dtype`, unless it holds no numbers with a fraction or some are too large for it."""
    if not tensor.is_floating_point():
        return tensor
    narrow = tensor.to(dtype)
    overflows = bool((narrow.isinf() & ~tensor.isinf()).any())
    return tensor if overflows else narrow


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 24), b""):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())

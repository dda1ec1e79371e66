"""The two parts of Stable Video Diffusion that StableAnimator uses as they are: VAE and CLIP image encoder.

They come from the single file (`svd_xt.safetensors`), from the diffusers folder (`SVD/vae`,
`SVD/image_encoder`), or from a file of their own, in either layout. All are handed out in diffusers' and
transformers' names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import WeightsError
from ..models import image_encoder as image_encoders
from ..models import vae as vaes
from .files import Weights, read_weights
from .roles import kind_of
from .svd_layout import (
    image_encoder_to_single_file,
    image_encoder_to_transformers,
    vae_to_diffusers,
    vae_to_single_file,
)

VAE_FOLDER, VAE_STEM = "vae", "diffusion_pytorch_model"
IMAGE_ENCODER_FOLDER, IMAGE_ENCODER_STEM = "image_encoder", "model"
_VARIANTS = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")

_FIRST_STAGE = "first_stage_model."
# The encoder that prepares the picture for the U-Net is stored a second time, with its quant_conv; diffusers'
# VAE was made from this one.
_PICTURE_ENCODER = "conditioner.embedders.3.encoder."
_VISUAL = ("conditioner.embedders.0.open_clip.model.visual.", "visual.")


class Part(NamedTuple):
    """One network's weights in diffusers' or transformers' names, its configuration, and where it is from."""

    state: dict[str, Tensor]
    config: dict[str, Any]
    source: Path


class Svd(NamedTuple):
    """The parts of Stable Video Diffusion used here."""

    vae: Part
    image_encoder: Part


def open_svd(path: str | Path) -> Svd:
    """Both parts from the single file or the diffusers folder.

    Raises:
        WeightsError: neither of the two, or a part is missing.
    """
    path = Path(path)
    if path.is_dir():
        return Svd(read_vae(path), read_image_encoder(path))
    weights = read_weights(path)
    return Svd(_vae_part(weights, path), _image_encoder_part(weights, path))


def read_vae(path: str | Path) -> Part:
    """The VAE from a file of its own, the single file, its diffusers folder or the folder above.

    Raises:
        WeightsError: there is none, or it has no temporal decoder.
    """
    path = _file_in(Path(path), VAE_FOLDER, VAE_STEM)
    return _vae_part(read_weights(path), path)


def read_image_encoder(path: str | Path) -> Part:
    """The CLIP image encoder from a file of its own, the single file, its folder or the folder above.

    Raises:
        WeightsError: there is none, or its configuration cannot be told.
    """
    path = _file_in(Path(path), IMAGE_ENCODER_FOLDER, IMAGE_ENCODER_STEM)
    return _image_encoder_part(read_weights(path), path)


def config_beside(path: Path, class_name: str) -> dict[str, Any] | None:
    """The `config.json` in the file's folder, if it is that of a model of this class."""
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    classes = [config.get("_class_name"), *(config.get("architectures") or [])]
    return config if class_name in classes else None


def single_file(svd: Svd) -> Weights:
    """Both parts in the single file's layout, both configurations in the metadata (`{"vae": ..., ...}`)."""
    vae = {_FIRST_STAGE + key: tensor for key, tensor in vae_to_single_file(svd.vae.state).items()}
    visual = {
        _VISUAL[0] + key: tensor
        for key, tensor in image_encoder_to_single_file(svd.image_encoder.state).items()
    }
    config = {VAE_FOLDER: dict(svd.vae.config), IMAGE_ENCODER_FOLDER: dict(svd.image_encoder.config)}
    return Weights(vae | visual, {"config": json.dumps(config)})


def configured(
    weights: Weights,
    path: Path,
    class_name: str,
    from_shapes: Callable[[Mapping[str, Tensor]], dict[str, Any]],
) -> dict[str, Any]:
    """A model's configuration: from the file's metadata, else config.json beside it, else the shapes.

    Args:
        weights: the model's state dict and its file's metadata.
        path: the file.
        class_name: class of the model, as config.json names it.
        from_shapes: reads the configuration from the state dict's shapes.

    Raises:
        WeightsError: the shapes are not those of such a model, or do not tell enough.
    """
    config = weights.config or config_beside(path, class_name)
    if config is not None:
        return {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        return from_shapes(weights.state)
    except WeightsError as error:
        raise WeightsError(str(path), error.problem, error.remedy) from error
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise not_the_model(path, class_name, weights.state) from error


def not_the_model(path: Path, wanted: str, state: Mapping[str, Tensor]) -> WeightsError:
    """The error for a file of another model, with what it looks like."""
    kind = kind_of(state.keys())
    looks = (
        f"it looks like {kind.label}"
        if kind
        else f"its keys ({', '.join(list(state)[:3])}, ...) are of no known model"
    )
    return WeightsError(str(path), f"is not a {wanted}; {looks}", "choose the right file for this input")


def _vae_part(weights: Weights, path: Path) -> Part:
    state = _without_prefix(weights.state, _FIRST_STAGE) or weights.state
    picture = _without_prefix(weights.state, _PICTURE_ENCODER)
    chosen = {key: tensor for key, tensor in picture.items() if key.startswith(("encoder.", "quant_conv."))}
    if chosen:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("encoder.")} | chosen
    if "decoder.conv_out.time_mix_conv.weight" in state:
        state = vae_to_diffusers(state)
    if "decoder.time_conv_out.weight" not in state:
        raise not_the_model(path, "VAE with temporal decoder (Stable Video Diffusion's)", weights.state)
    weights = Weights(state, _part_metadata(weights, VAE_FOLDER))
    config = configured(weights, path, "AutoencoderKLTemporalDecoder", vaes.config_from)
    return Part(state, config, path)


def _image_encoder_part(weights: Weights, path: Path) -> Part:
    found = (_without_prefix(weights.state, prefix) for prefix in _VISUAL)
    visual = next((state for state in found if state), None)
    state = image_encoder_to_transformers(visual) if visual else dict(weights.state)
    state.pop("vision_model.embeddings.position_ids", None)  # old files carry these plain numbers
    if "visual_projection.weight" not in state:
        raise not_the_model(path, "CLIP image encoder with projection", weights.state)
    weights = Weights(state, _part_metadata(weights, IMAGE_ENCODER_FOLDER))
    config = configured(weights, path, "CLIPVisionModelWithProjection", image_encoders.config_from)
    return Part(state, config, path)


def _part_metadata(weights: Weights, part: str) -> dict[str, str]:
    """A file of several models holds several configurations, by part."""
    config = weights.config or {}
    return {"config": json.dumps(config[part])} if part in config else weights.metadata


def _without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _file_in(path: Path, folder: str, stem: str) -> Path:
    """The weight file of a diffusers folder; `path` itself if it is a file."""
    if not path.is_dir():
        return path
    tried = [place / f"{stem}{variant}" for place in (path / folder, path) for variant in _VARIANTS]
    for candidate in tried:
        if candidate.is_file():
            return candidate
    listed = ", ".join(str(candidate.relative_to(path)) for candidate in tried)
    raise WeightsError(
        str(path), f"holds no {folder} weights (looked for {listed})", "name the folder with SVD's parts"
    )

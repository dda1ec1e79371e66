"""What a weight file really holds, told from its header or index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import WeightsError
from .weights.locate import KnownFile

if TYPE_CHECKING:
    from .onnx_sessions import OnnxHeader

_PUBLISHED_TENSORS = {
    "unet": 1460,
    "pose_net": 19,
    "face_encoder": 56,
    "face_recognizer": 925,
    "denoising_unet": 686,
    "reference_unet": 682,
    "motion_module": 588,
    "pose_guider": 16,
    "image_vae": 248,
}
_SD_TOKEN_WIDTH = 768  # of Stable Diffusion 1.5 and so of CLIP ViT-L's projection


def layout_of(path: Path, role: str) -> str:
    """The contents in words.

    Args:
        path: a file, or for "svd" also a folder.
        role: what it shall serve as, a key of `KNOWN_FILES`.

    Raises:
        WeightsError: damaged, or not the network of this role.
    """
    return _LAYOUTS[role](path) if role in _LAYOUTS else _weights_layout(path, role)


def _weights_layout(path: Path, role: str) -> str:
    from .weights.files import read_weights
    from .weights.roles import kind_of

    state = read_weights(path).state  # mapped, not read
    kind = kind_of(state)
    if kind is None or kind.role != role:
        found = kind.label if kind else "something this project does not know"
        raise WeightsError(str(path), f"holds {found}", "use the file this row names")
    dtypes = sorted(
        {str(tensor.dtype).removeprefix("torch.") for tensor in state.values() if tensor.is_floating_point()}
    )
    number = f"{len(state)} tensors, {', '.join(dtypes)}"
    published = _PUBLISHED_TENSORS.get(role)
    return number if published in (None, len(state)) else f"{number} (the published file has {published})"


def _svd_layout(path: Path) -> str:
    from .weights.svd import open_svd

    svd = open_svd(path)
    kind = "folder" if path.is_dir() else "single file"
    return (
        f"{kind} with VAE ({len(svd.vae.state)} tensors) and image encoder ({len(svd.image_encoder.state)})"
    )


def _clip_layout(path: Path) -> str:
    """A CLIP image encoder whose tokens are as wide as Stable Diffusion's; small models carry their configuration."""
    from .weights.svd import read_image_encoder

    part = read_image_encoder(path)
    width = part.state["visual_projection.weight"].shape[0]
    published = len(part.state["vision_model.pre_layrnorm.weight"]) >= _SD_TOKEN_WIDTH
    if published and width != _SD_TOKEN_WIDTH:
        problem = f"is a CLIP image encoder with tokens of {width} numbers, not ViT-L's {_SD_TOKEN_WIDTH}"
        raise WeightsError(str(path), problem, "use the file this row names")
    return f"{len(part.state)} tensors, tokens of {width}"


def _onnx_layout(check: Callable[[OnnxHeader, str], None]) -> Callable[[Path], str]:
    def layout(path: Path) -> str:
        from .onnx_sessions import read_header

        header = read_header(path)
        check(header, str(path))
        return f"takes {_shape(header.inputs[0].shape)}, gives {len(header.outputs)} outputs"

    return layout


def _check_person_detector(header: OnnxHeader, source: str) -> None:
    from .pose.dwpose_detector import PersonDetector

    PersonDetector(header, source)


def _check_pose_estimator(header: OnnxHeader, source: str) -> None:
    from .pose.dwpose_joints import JointEstimator

    JointEstimator(header, source)


def _check_face_detector(header: OnnxHeader, source: str) -> None:
    from .face.analysis import check_detector

    check_detector(header, source)


def _check_face_embedder(header: OnnxHeader, source: str) -> None:
    from .face.recognisers import check_recogniser

    check_recogniser(header, source)


_LAYOUTS: dict[str, Callable[[Path], str]] = {
    "svd": _svd_layout,
    "clip_vision_l": _clip_layout,
    "person_detector": _onnx_layout(_check_person_detector),
    "pose_estimator": _onnx_layout(_check_pose_estimator),
    "face_detector": _onnx_layout(_check_face_detector),
    "face_embedder": _onnx_layout(_check_face_embedder),
}


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal; reads it whole."""
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def hash_note(path: Path, known: KnownFile) -> str:
    """Whether the file is the published one; reads it whole.

    Raises:
        WeightsError: it has the published name, but another hash.
    """
    if known.sha256 is None or path.name.lower() != known.names[0]:
        return "no published hash"
    if sha256_of(path) != known.sha256:
        raise WeightsError(
            str(path), "is not the published file (its SHA-256 differs)", "fetch the file again"
        )
    return "hash as published"


def _shape(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"

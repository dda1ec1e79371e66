"""From a weight file to a ready network: built completely on the meta device, then filled strictly.

Nothing is held twice: the file's own memory becomes the network's. All networks come back in eval mode,
without gradients of their own, and usable inside a gradient even if loaded under `torch.inference_mode`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ..animate_anyone import denoising_unet, motion_file, pose_guider, reference_net
from ..errors import WeightsError
from ..models import unet
from ..models.face_encoder import FaceEncoder
from ..models.image_encoder import build_image_encoder
from ..models.iresnet import IResNet
from ..models.pose_net import PoseNet
from ..models.vae import build_image_vae, build_vae
from .files import Weights, read_weights
from .precision import FP8_DTYPES, cast_state, store_in_fp8
from .roles import kind_of
from .svd import configured, read_image_encoder, read_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionModelWithProjection

Module = TypeVar("Module", bound=nn.Module)
_FIRST = 4  # keys named in a message
_OFFICIAL = {  # role -> the model's name and its official file, for messages
    "unet": ("StableAnimator's U-Net", "unet.pth"),
    "pose_net": ("StableAnimator's PoseNet", "pose_net.pth"),
    "face_encoder": ("StableAnimator's Face Encoder", "face_encoder.pth"),
    "face_recognizer": ("the ArcFace recogniser", "glintr100_torch.pth"),
    "denoising_unet": ("Animate Anyone's denoising U-Net", "denoising_unet.pth"),
    "reference_unet": ("Animate Anyone's reference U-Net", "reference_unet.pth"),
    "motion_module": ("Animate Anyone's motion module", "motion_module.pth"),
    "pose_guider": ("Animate Anyone's pose guider", "pose_guider.pth"),
}


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Fill a complete module with a state dict: every key used, none left, every shape equal.

    The tensors become the module's own (assigned, not copied), so the module may be on the meta device.

    Args:
        module: the network.
        state: key -> tensor.
        source: the file, for the message.

    Raises:
        WeightsError: they differ; names the file, the network, the counts and the first keys of each kind.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    shapes = [key for key in wanted if key in state and wanted[key].shape != state[key].shape]
    if missing or unknown or shapes:
        raise _mismatch(module, state, str(source), missing, unknown, shapes)
    module.load_state_dict(dict(state), strict=True, assign=True)


def load_unet(path: str | Path, dtype: torch.dtype | None = None) -> UNetSpatioTemporalConditionModel:
    """StableAnimator's U-Net (`unet.pth`, 1460 keys).

    Args:
        path: the file.
        dtype: float32, float16, bfloat16; float8_e4m3fn or float8_e5m2 keep its matrices in 8 bits and the
            rest in float16; None keeps the file's own.

    Raises:
        WeightsError: no such file, damaged, unsafe, or another model.
    """
    narrow = dtype if dtype in FP8_DTYPES else None
    built = load_own("unet", path, torch.float16 if narrow else dtype)
    return store_in_fp8(built, narrow) if narrow else built


def load_pose_net(path: str | Path, dtype: torch.dtype | None = None) -> PoseNet:
    """StableAnimator's PoseNet (`pose_net.pth`, 19 keys); dtype and errors as `load_unet`, without 8 bits."""
    return load_own("pose_net", path, dtype)


def load_face_encoder(path: str | Path, dtype: torch.dtype | None = None) -> FaceEncoder:
    """StableAnimator's Face Encoder (`face_encoder.pth`, 56 keys); dtype and errors as `load_pose_net`."""
    return load_own("face_encoder", path, dtype)


def load_face_recognizer(path: str | Path, dtype: torch.dtype | None = None) -> IResNet:
    """ArcFace's IResNet-100, dtype and errors as `load_pose_net`.

    From `glintr100_torch.pth` (925 keys), or read out of `glintr100.onnx`.
    """
    if Path(path).suffix.lower() != ".onnx":
        return load_own("face_recognizer", path, dtype)
    from ..face.onnx_weights import torch_weights_from_onnx

    with torch.inference_mode(False):
        weights = Weights(torch_weights_from_onnx(path))
    config = model_config("face_recognizer", weights, Path(path))
    return filled(build_empty("face_recognizer", config), weights.state, path, dtype)


def load_vae(path: str | Path, dtype: torch.dtype | None = None) -> AutoencoderKLTemporalDecoder:
    """Stable Video Diffusion's VAE from the single file, its own file or a diffusers folder.

    Dtype and errors as `load_pose_net`.
    """
    part = read_vae(path)
    return filled(build_empty("vae", part.config), part.state, part.source, dtype)


def load_image_encoder(path: str | Path, dtype: torch.dtype | None = None) -> CLIPVisionModelWithProjection:
    """Stable Video Diffusion's CLIP image encoder; places, dtype and errors as `load_vae`."""
    part = read_image_encoder(path)
    return filled(build_empty("image_encoder", part.config), part.state, part.source, dtype)


def model_config(role: str, weights: Weights, path: Path) -> dict[str, Any]:
    """The constructor arguments for one of StableAnimator's own networks.

    They come from the file's metadata, else from a config.json beside it that is this model's, else from the
    shapes.

    Args:
        role: a key of `_OFFICIAL`.
        weights: the file's contents.
        path: the file.

    Raises:
        WeightsError: the file is another model.
    """
    kind = kind_of(weights.state.keys())
    if kind is None or kind.role != role:
        keys = ", ".join(list(weights.state)[:_FIRST])
        looks = f"looks like {kind.label}" if kind else f"has the keys of no known model ({keys}, ...)"
        model, official = _OFFICIAL[role]
        raise WeightsError(str(path), f"{looks}, not {model}", f"choose {official} for this input")
    class_name, from_shapes = {
        "unet": ("UNetSpatioTemporalConditionModel", unet.config_from),
        "pose_net": ("PoseNet", PoseNet.config_from),
        "face_encoder": ("FaceEncoder", FaceEncoder.config_from),
        "face_recognizer": ("IResNet", IResNet.config_from),
        "denoising_unet": ("UNet2DConditionModel", denoising_unet.config_from),
        "reference_unet": ("UNet2DConditionModel", reference_net.config_from),
        "motion_module": ("MotionFile", motion_file.config_from),
        "pose_guider": ("PoseGuider", pose_guider.config_from),
    }[role]
    return configured(weights, path, class_name, from_shapes)


def build_empty(role: str, config: Mapping[str, Any]) -> Any:
    """The network of a role on the meta device: complete, without numbers and without memory.

    Args:
        role: a key of `_BUILDERS`.
        config: its constructor arguments.
    """
    library, name = _LIBRARIES.get(role, ("torch", "nn"))
    getattr(import_module(library), name)  # imported now: what it makes on import must not land on "meta"
    with torch.device("meta"):
        return _BUILDERS[role](config)


_LIBRARIES = {
    "unet": ("diffusers", "UNetSpatioTemporalConditionModel"),
    "vae": ("diffusers", "AutoencoderKLTemporalDecoder"),
    "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
    "denoising_unet": ("diffusers", "UNet2DConditionModel"),
    "reference_unet": ("diffusers", "UNet2DConditionModel"),
    "motion_module": ("diffusers.models.attention", "FeedForward"),
    "image_vae": ("diffusers", "AutoencoderKL"),
}
_BUILDERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "unet": unet.build_unet,
    "pose_net": lambda config: PoseNet(**config),
    "face_encoder": lambda config: FaceEncoder(**config),
    "face_recognizer": lambda config: IResNet(**config),
    "vae": build_vae,
    "image_encoder": build_image_encoder,
    "denoising_unet": denoising_unet.build_denoising_unet,
    "reference_unet": reference_net.build_reference_net,
    "motion_module": lambda config: motion_file.MotionFile(**config),
    "pose_guider": pose_guider.build_pose_guider,
    "image_vae": build_image_vae,
}


def load_own(role: str, path: str | Path, dtype: torch.dtype | None) -> Any:
    """The network of a role from a file of its own; errors as `load_unet`."""
    weights = read_weights(path)
    config = model_config(role, weights, Path(path))
    return filled(build_empty(role, config), weights.state, path, dtype)


@torch.inference_mode(False)
def filled(
    module: Module, state: Mapping[str, Tensor], source: str | Path, dtype: torch.dtype | None
) -> Module:
    """`load_exactly` in a number format; ready to use."""
    load_exactly(module, cast_state(state, dtype), source)
    return module.eval().requires_grad_(False)


def _mismatch(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    missing: list[str],
    unknown: list[str],
    shapes: list[str],
) -> WeightsError:
    wanted = module.state_dict()
    sized = [f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}" for key in shapes]
    found = [
        f"{len(keys)} {label} (first: {', '.join(keys[:_FIRST])})"
        for label, keys in (("missing", missing), ("unknown", unknown), ("of another shape", sized))
        if keys
    ]
    taken = len(wanted) - len(missing) - len(shapes)
    problem = f"does not fit {type(module).__name__}: {taken} of {len(wanted)} keys fit, {'; '.join(found)}"
    kind = kind_of(state.keys())
    looks = f"it looks like {kind.label}; " if kind and missing else ""
    return WeightsError(source, problem, f"{looks}use the file made for this model, or download it again")

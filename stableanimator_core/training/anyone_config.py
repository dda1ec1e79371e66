"""What Animate Anyone's settings must fulfil, on top of their kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from .settings import Settings

_MOTION = {"heads", "max_frames", "num_blocks", "num_attentions", "norm_num_groups", "mid_block"}
_GUIDER = {"form", "widths"}


def check(settings: Settings) -> None:
    """Ranges and what belongs together.

    Raises:
        InputError: names the key.
    """
    _check_networks(settings)
    anyone = settings.anyone
    for key in ("noise_offset", "snr_gamma", "min_distance"):
        if getattr(anyone, key) < 0:
            raise InputError(f"anyone.{key}", f"is {getattr(anyone, key)}", "use 0 or more")
    for key in ("crop_scale", "crop_ratio"):
        if not 0 < getattr(anyone, key) <= 1:
            remedy = "use a number above 0, up to 1"
            raise InputError(f"anyone.{key}", f"is {getattr(anyone, key)}", remedy)
    if settings.data.cache is not None and anyone.crop_scale < 1:
        problem = f"is {anyone.crop_scale}, but data.cache holds whole pictures"
        raise InputError("anyone.crop_scale", problem, "set it to 1, or leave data.cache out")
    for key, known in (("motion_config", _MOTION), ("pose_guider_config", _GUIDER)):
        unknown = set(getattr(anyone, key)) - known
        if unknown:
            remedy = f"known are {', '.join(sorted(known))}"
            raise InputError(f"anyone.{key}", f"has {', '.join(sorted(unknown))}", remedy)
    most = anyone.motion_config.get("max_frames")
    if settings.stage == 2 and isinstance(most, int) and settings.data.num_frames > most:
        problem = f"is {settings.data.num_frames}, anyone.motion_config.max_frames is {most}"
        raise InputError("data.num_frames", problem, "make clips shorter, or position tables longer")


def _check_networks(settings: Settings) -> None:
    n, anyone = settings.networks, settings.anyone
    if anyone.start is None and anyone.denoising_unet is None and n.unet_config is None:
        problem = "is missing, and there is neither anyone.start nor networks.unet_config"
        raise InputError("anyone.denoising_unet", problem, "name the file to start from, or a configuration")
    needed = {"vae (or svd)": n.vae or n.svd, "image_encoder (or svd)": n.image_encoder or n.svd}
    for key, value in needed.items():
        if value is None:
            raise InputError(f"networks.{key}", "is missing", "name it in the configuration file")
    if settings.stage == 2 and anyone.start is None:
        for key in ("reference_unet", "pose_guider"):
            if anyone.denoising_unet is not None and getattr(anyone, key) is None:
                remedy = "name the files of stage 1"
                raise InputError(f"anyone.{key}", "is missing, and stage 2 does not train it", remedy)

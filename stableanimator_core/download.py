"""Fetches the official weight files for those who ask for it, and only then.

    python -m stableanimator_core.download --to DIR [--system SYSTEM | --role ROLE ...] [--accept-licences]

Without --accept-licences it lists files, sizes and licences, and stops. Downloads go through huggingface_hub:
an interrupted one is resumed, HF_ENDPOINT names a mirror. Size and SHA-256 are checked before and after.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .doctor_layouts import sha256_of
from .errors import InputError, WeightsError
from .weights.locate import ANIMATE_ANYONE, KNOWN_FILES, STABLEANIMATOR

_SPARE_BYTES = 1 << 28


class HubFile(NamedTuple):
    """Where a role's file is on the hub, and where it goes.

    Attributes:
        repo: owner and name.
        path: of the file in it.
        folder: below the target folder; the file keeps its path in the repository under it.
        note: what else must be known.
    """

    repo: str
    path: str
    folder: str = ""
    note: str = ""


_OFFICIAL = "FrancisRing/StableAnimator"
_ANTELOPE = "DIAMONIK7777/antelopev2"
_ANYONE, _ANYONE_FOLDER = "patrolli/AnimateAnyone", "AnimateAnyone"
_COPY = "a copy of InsightFace's archive by a third party; the hash says that it is the same"
HUB_FILES = {
    "unet": HubFile(_OFFICIAL, "Animation/unet.pth"),
    "pose_net": HubFile(_OFFICIAL, "Animation/pose_net.pth"),
    "face_encoder": HubFile(_OFFICIAL, "Animation/face_encoder.pth"),
    "face_recognizer": HubFile(
        _OFFICIAL, "Animation/glintr100_torch.pth", note="not needed beside glintr100.onnx"
    ),
    "face_embedder": HubFile(_ANTELOPE, "glintr100.onnx", "antelopev2", _COPY),
    "face_detector": HubFile(_ANTELOPE, "scrfd_10g_bnkps.onnx", "antelopev2", _COPY),
    "person_detector": HubFile("yzd-v/DWPose", "yolox_l.onnx", "DWPose"),
    "pose_estimator": HubFile("yzd-v/DWPose", "dw-ll_ucoco_384.onnx", "DWPose"),
    "svd": HubFile(
        "stabilityai/stable-video-diffusion-img2vid-xt",
        "svd_xt.safetensors",
        "SVD",
        "accept its licence on the model page first, then log in: hf auth login",
    ),
    "denoising_unet": HubFile(_ANYONE, "denoising_unet.pth", _ANYONE_FOLDER),
    "reference_unet": HubFile(_ANYONE, "reference_unet.pth", _ANYONE_FOLDER),
    "motion_module": HubFile(_ANYONE, "motion_module.pth", _ANYONE_FOLDER),
    "pose_guider": HubFile(_ANYONE, "pose_guider.pth", _ANYONE_FOLDER),
    "image_vae": HubFile("stabilityai/sd-vae-ft-mse", "diffusion_pytorch_model.safetensors", "sd-vae-ft-mse"),
    "clip_vision_l": HubFile("lambdalabs/sd-image-variations-diffusers", "image_encoder/pytorch_model.bin"),
}
"""role -> its file on the hub."""

SYSTEMS = {"stableanimator": STABLEANIMATOR, "animate-anyone": ANIMATE_ANYONE}


def roles_of(system: str) -> tuple[str, ...]:
    """The roles that one of `SYSTEMS` needs, those that both need included."""
    return tuple(
        role
        for role in HUB_FILES
        if KNOWN_FILES[role].system in ("", SYSTEMS[system]) and role != "face_recognizer"
    )


def licence_text(roles: Sequence[str]) -> str:
    """Files, sizes, sources and licences of the roles, for people."""
    lines = []
    for role in roles:
        known, hub = KNOWN_FILES[role], HUB_FILES[role]
        lines.append(f"{role}: {Path(hub.path).name}, {known.size / 1e6:,.1f} MB")
        lines.append(f"    from {hub.repo} on the hub" + (f" ({hub.note})" if hub.note else ""))
        lines.append(f"    licence: {known.licence}")
    lines.append(f"Together {sum(KNOWN_FILES[role].size for role in roles) / 1e9:,.2f} GB.")
    return "\n".join(lines)


def fetch(role: str, folder: str | Path, *, endpoint: str | None = None) -> Path:
    """Fetch one file, or keep what is there if it is the published one; another file is renamed to `*.old`.

    Args:
        role: a key of `HUB_FILES`.
        folder: where to; the official tree is made below it.
        endpoint: address of the hub or a mirror; the environment's HF_ENDPOINT if None.

    Returns:
        The file's path.

    Raises:
        InputError: unknown role, no room on the disk, no connection, no access, or not on the hub.
        WeightsError: another file than the published one, before or after fetching; a damaged one is removed.
    """
    hub = _hub_file(role)
    endpoint = endpoint or os.environ.get("HF_ENDPOINT") or None
    place = Path(folder) / hub.folder
    sha256, size = _announced(role, hub, endpoint)
    target = place / hub.path
    if target.is_file() and _is_whole(target, size, sha256):
        return target
    _check_room(place, size)
    if target.exists():
        target.replace(target.with_name(target.name + ".old"))
    from huggingface_hub import hf_hub_download

    with _plain_errors(hub):
        hf_hub_download(hub.repo, hub.path, local_dir=place, endpoint=endpoint)
    if not _is_whole(target, size, sha256):
        target.unlink(missing_ok=True)
        raise WeightsError(str(target), "arrived damaged and was removed", "run the same command again")
    return target


def fetch_all(
    roles: Iterable[str],
    folder: str | Path,
    *,
    endpoint: str | None = None,
    on_file: Callable[[str, Path], None],
) -> None:
    """`fetch` of several roles; `on_file` is told role and path after each."""
    for role in roles:
        on_file(role, fetch(role, folder, endpoint=endpoint))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m stableanimator_core.download", description="Fetches the official weight files."
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="for example ComfyUI/models/stableanimator"
    )
    parser.add_argument(
        "--system", choices=SYSTEMS, default="stableanimator", help="whose files, unless --role says which"
    )
    parser.add_argument("--role", nargs="+", choices=sorted(HUB_FILES))
    parser.add_argument("--accept-licences", action="store_true", help="you have read them and agree")
    options = parser.parse_args(arguments)
    roles = options.role or roles_of(options.system)
    sys.stdout.write(licence_text(roles) + "\n")
    if not options.accept_licences:
        sys.stdout.write("Nothing was fetched. Read the licences; if you agree, add --accept-licences.\n")
        return 2
    try:
        fetch_all(roles, options.to, on_file=lambda role, path: _say(f"{role}: {path}"))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _hub_file(role: str) -> HubFile:
    if role not in HUB_FILES:
        raise InputError("the role", f"{role!r} is unknown", f"choose one of {', '.join(sorted(HUB_FILES))}")
    return HUB_FILES[role]


def _announced(role: str, hub: HubFile, endpoint: str | None) -> tuple[str | None, int | None]:
    """SHA-256 and size that the hub announces; they must be the published ones where those are known."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    known = KNOWN_FILES[role]
    with _plain_errors(hub):
        announced = get_hf_file_metadata(hf_hub_url(hub.repo, hub.path, endpoint=endpoint))
    etag = announced.etag or ""
    sha256 = etag if re.fullmatch("[0-9a-f]{64}", etag) else None
    if known.sha256 and sha256 and sha256 != known.sha256:
        raise WeightsError(
            f"{hub.repo}/{hub.path}",
            f"is another file on the hub ({sha256[:12]}...) than the published one ({known.sha256[:12]}...)",
            f"fetch it by hand from {known.url} if you trust it",
        )
    return known.sha256 or sha256, announced.size


def _is_whole(path: Path, size: int | None, sha256: str | None) -> bool:
    if not path.is_file() or (size is not None and path.stat().st_size != size):
        return False
    return sha256 is None or sha256_of(path) == sha256


def _check_room(folder: Path, size: int | None) -> None:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if size is not None and free < size + _SPARE_BYTES:
        raise InputError(
            str(folder),
            f"has {free / 1e9:.1f} GB free, the file needs {size / 1e9:.1f} GB",
            "make room, or choose another folder",
        )


@contextmanager
def _plain_errors(hub: HubFile) -> Iterator[None]:
    """Turns the hub's errors into ours."""
    from huggingface_hub import errors

    what = f"{hub.repo}/{hub.path}"
    try:
        yield
    except (errors.GatedRepoError, errors.LocalTokenNotFoundError) as error:
        raise InputError(
            what, "needs your consent on its page", hub.note or "log in: hf auth login"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(what, error) from error
    except (errors.EntryNotFoundError, errors.RepositoryNotFoundError) as error:
        raise InputError(what, "is not there, or not for you", "check the page, or the mirror") from error
    except (errors.HTTPError, OSError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise _unreachable(what, error) from error


def _unreachable(what: str, error: Exception) -> InputError:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(
        what, f"could not be fetched ({first_line})", "try again: what has arrived is kept and resumed"
    )


if __name__ == "__main__":
    sys.exit(main())

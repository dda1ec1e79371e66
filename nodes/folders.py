"""Where the pack looks for its files: ComfyUI's registered folders, the user's own merged in."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

import folder_paths

from ..stableanimator_core.errors import WeightsError
from . import small

FOLDER = "stableanimator"
TORCH_ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
ONNX_ENDINGS = (".onnx",)

UNET_FOLDERS = (FOLDER, "diffusion_models")
SVD_FOLDERS = (FOLDER, "checkpoints", "diffusers")
FACE_FOLDERS = (FOLDER, "insightface")
OTHER_UNETS = ("denoising", "reference")  # in names of Animate Anyone's files
_OTHER_POSES = "stableanimator_pose"
POSE_FOLDERS = (FOLDER, _OTHER_POSES)


def register() -> None:
    """Add our folders beside whatever the user's extra_model_paths.yaml names; nothing is replaced."""
    places = [(name, os.path.join(folder_paths.models_dir, name)) for name in (FOLDER, "insightface")]
    for name, path in [*places, *((_OTHER_POSES, path) for path in _controlnet_aux())]:
        folder_paths.add_model_folder_path(name, path)
        paths, endings = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, set(endings) | {*TORCH_ENDINGS, *ONNX_ENDINGS})


def _controlnet_aux() -> list[str]:
    """Where the pack comfyui_controlnet_aux keeps its copies of the DWPose files."""
    registered = map(str, roots(["controlnet_aux"]))
    own = [
        str(path) for root in roots(["custom_nodes"]) for path in sorted(root.glob("*controlnet_aux/ckpts"))
    ]
    return list(dict.fromkeys([*registered, *own, os.path.join(folder_paths.models_dir, "controlnet_aux")]))


def roots(folders: Iterable[str] = (FOLDER, "diffusion_models", "checkpoints", "diffusers")) -> list[Path]:
    """Every registered folder of these names, in order."""
    known = folder_paths.folder_names_and_paths
    return [Path(path) for name in folders if name in known for path in folder_paths.get_folder_paths(name)]


def file_choices(
    folders: Iterable[str],
    official: str,
    *words: str,
    unlike: tuple[str, ...] = (),
    endings: tuple[str, ...] = TORCH_ENDINGS,
) -> list[str]:
    """File names for a combo: those that contain one of `words` first, all other weights after.

    Args:
        folders: registered folder names, in order.
        official: the published file name; offered alone when nothing is installed, for the frontend to say
            what is missing.
        words: what the wanted file's name usually contains, in lower case.
        unlike: what puts a likely file after the other likely ones.
        endings: file name endings to offer.
    """
    names = [name for folder in folders for name in _names(folder)]
    names = [name for name in dict.fromkeys(names) if name.lower().endswith(endings)]
    likely = [name for name in names if _has_a_word(name, words)]
    likely.sort(key=lambda name: _has_a_word(name, unlike))
    return [*likely, *(name for name in names if name not in likely)] or [official]


def unet_is_installed() -> bool:
    """True if some file is called a U-Net: the sign that menus begin with the user's files, not the small model."""
    names = _unet_files()
    return any(_has_a_word(name, ("unet",)) and not _has_a_word(name, OTHER_UNETS) for name in names)


def denoising_unet_is_installed() -> bool:
    """The same for Animate Anyone's menus."""
    return any(_has_a_word(name, OTHER_UNETS[:1]) for name in _unet_files())


def _unet_files() -> list[str]:
    names = [name for folder in UNET_FOLDERS for name in _names(folder)]
    return [name for name in names if name.lower().endswith(TORCH_ENDINGS)]


def svd_choices(official: str) -> list[str]:
    """SVD as one checkpoint file, or as a diffusers folder (vae/ beside image_encoder/)."""
    directories = [
        str(directory.relative_to(root)) + "/"
        for root in roots(SVD_FOLDERS)
        for directory in _diffusers_directories(root)
    ]
    files = [
        name for name in file_choices(SVD_FOLDERS, official, "svd") if name != official or not directories
    ]
    return [*directories, *files]


def resolve(name: str, folders: Iterable[str], what: str) -> Path:
    """The file or directory a combo entry names; a bare file name is also found deeper down.

    Args:
        name: the entry; `small.ENTRY` names the file that comes with the pack.
        folders: registered folder names, in order.
        what: the input's name.

    Raises:
        WeightsError: there is none, or the name leads out of the folders; lists every place searched.
    """
    if name == small.ENTRY:
        return small.path_of(what)
    places = roots(folders)
    for root in places:
        path = root / name
        if path.exists() and _inside(path, root):
            return path
    bare = name.rstrip("/")
    for root in places if bare and os.path.basename(bare) == bare and bare != ".." else []:
        for path in sorted(root.glob(f"**/{glob.escape(bare)}")):
            if _inside(path, root):
                return path
    searched = ", ".join(str(place) for place in places) or "no folder is registered"
    raise WeightsError(
        what,
        f"'{name}' was not found in {searched}",
        "put the file into models/stableanimator and press R, or choose another entry; the workflow dancing-puppet "
        "runs without any",
    )


def _has_a_word(name: str, words: Iterable[str]) -> bool:
    return any(word in os.path.basename(name).lower() for word in words)


def _names(folder: str) -> list[str]:
    try:
        return folder_paths.get_filename_list(folder)
    except KeyError:  # an older ComfyUI without this folder name
        return []


def _diffusers_directories(root: Path) -> list[Path]:
    found = [path.parent for path in root.glob("*/vae")] + [path.parent for path in root.glob("*/*/vae")]
    return sorted(path for path in found if (path / "image_encoder").is_dir())


def _inside(path: Path, root: Path) -> bool:
    """True if the name does not climb out of `root`; links inside it may point anywhere, as in ComfyUI."""
    return os.path.abspath(path).startswith(os.path.abspath(root) + os.sep)

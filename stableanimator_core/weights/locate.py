"""Where weight files are: the files the project knows, and the search for them in folders of models.

Searched are the folders given and all below them, so the official trees (StableAnimator's `checkpoints/Animation`,
`SVD`, `DWPose`, `models/antelopev2`, with or without the second `antelopev2` that its archive makes; Animate Anyone's
`pretrained_weights`) are found however they were unpacked. Nothing is ever downloaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_DEPTH = 5
"""Folders are searched down to this many levels below a root."""
MAX_FOLDERS = 5000
"""At most this many folders are opened per search, so that a huge disk cannot stall it."""

_STABLEANIMATOR = "https://huggingface.co/FrancisRing/StableAnimator/tree/main"
_DWPOSE = "https://huggingface.co/yzd-v/DWPose/tree/main"
_ANTELOPE = "https://github.com/deepinsight/insightface/releases/download/v0.7/antelopev2.zip"
_HUB = "Apache-2.0 on its page; made from Stable Video Diffusion, whose licence applies too"
_ANYONE = "https://huggingface.co/patrolli/AnimateAnyone/tree/main"
_ANYONE_LICENCE = "see its page; the code is Apache-2.0, and Stable Diffusion 1.5's licence applies too"
_RESEARCH = "non-commercial research only (InsightFace)"


@dataclass(frozen=True)
class KnownFile:
    """A weight file the project can use.

    Attributes:
        role: what it serves as.
        label: its name for people.
        names: official file names, the usual one first; "folder/name" counts only in a folder of that name.
        size: bytes of the usual one; of glintr100_torch.pth only "261 MB" is published, of Animate Anyone's files
            these are the bytes of their numbers.
        url: the page or archive it comes from.
        licence: one line.
        sha256: of the usual one, where it is published.
        system: which system needs it, "" for both.
    """

    role: str
    label: str
    names: tuple[str, ...]
    size: int
    url: str
    licence: str
    sha256: str | None = None
    system: str = "StableAnimator"


STABLEANIMATOR, ANIMATE_ANYONE = "StableAnimator", "Animate Anyone"
OWN_FILES = {
    STABLEANIMATOR: ("unet", "pose_net", "face_encoder"),
    ANIMATE_ANYONE: ("denoising_unet", "reference_unet", "motion_module", "pose_guider"),
}
"""system -> roles of the files that nobody has who does not use it."""


def _of_anyone(role: str, name: str, names: tuple[str, ...], size: int) -> KnownFile:
    label = f"Animate Anyone's {name}"
    return KnownFile(role, label, names, size, _ANYONE, _ANYONE_LICENCE, system=ANIMATE_ANYONE)


KNOWN_FILES = {
    known.role: known
    for known in (
        KnownFile("unet", "StableAnimator's U-Net", ("unet.pth",), 6_201_376_518, _STABLEANIMATOR, _HUB),
        KnownFile(
            "pose_net", "StableAnimator's PoseNet", ("pose_net.pth",), 829_269, _STABLEANIMATOR, "Apache-2.0"
        ),
        KnownFile(
            "face_encoder",
            "StableAnimator's Face Encoder",
            ("face_encoder.pth",),
            228_754_558,
            _STABLEANIMATOR,
            "Apache-2.0",
        ),
        KnownFile(
            "face_recognizer",
            "the ArcFace recogniser for the face optimisation",
            ("glintr100_torch.pth",),
            261_000_000,
            _STABLEANIMATOR,
            _RESEARCH,
        ),
        KnownFile(
            "face_embedder",
            "the ArcFace recogniser (antelopev2)",
            ("glintr100.onnx",),
            260_665_334,
            _ANTELOPE,
            _RESEARCH,
            "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
        ),
        KnownFile(
            "face_detector",
            "the SCRFD face detector (antelopev2)",
            ("scrfd_10g_bnkps.onnx",),
            16_923_827,
            _ANTELOPE,
            _RESEARCH,
            "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
        ),
        KnownFile(
            "person_detector",
            "the YOLOX person detector (DWPose)",
            ("yolox_l.onnx",),
            216_746_733,
            _DWPOSE,
            "Apache-2.0",
            "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
            "",
        ),
        KnownFile(
            "pose_estimator",
            "the whole-body pose network (DWPose)",
            ("dw-ll_ucoco_384.onnx",),
            134_399_116,
            _DWPOSE,
            "Apache-2.0",
            "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
            "",
        ),
        KnownFile(
            "svd",
            "Stable Video Diffusion (the single file, or a folder with vae and image_encoder)",
            ("svd_xt.safetensors", "svd_xt_1_1.safetensors", "svd.safetensors"),
            9_559_625_980,
            "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt",
            "Stability AI licence; see the model page",
            "b2652c23d64a1da5f14d55011b9b6dce55f2e72e395719f1cd1f8a079b00a451",
        ),
        _of_anyone("denoising_unet", "denoising U-Net", ("denoising_unet.pth",), 3_438_083_856),
        _of_anyone("reference_unet", "reference U-Net", ("reference_unet.pth",), 3_438_035_200),
        _of_anyone(
            "motion_module", "motion modules", ("motion_module.pth", "mm_sd_v15_v2.ckpt"), 1_817_670_400
        ),
        _of_anyone("pose_guider", "pose guider", ("pose_guider.pth",), 4_345_920),
        KnownFile(
            "image_vae",
            "Stable Diffusion's VAE (sd-vae-ft-mse)",
            (
                "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
                "sd-vae-ft-mse/diffusion_pytorch_model.bin",
                "vae-ft-mse-840000-ema-pruned.safetensors",
                "vae-ft-mse-840000-ema-pruned.ckpt",
                "sd-vae-ft-mse.safetensors",
            ),
            334_643_276,
            "https://huggingface.co/stabilityai/sd-vae-ft-mse",
            "MIT",
            system=ANIMATE_ANYONE,
        ),
        KnownFile(
            "clip_vision_l",
            "the CLIP ViT-L image encoder (sd-image-variations)",
            ("image_encoder/pytorch_model.bin", "clip-vit-large-patch14.safetensors"),
            1_215_993_967,
            "https://huggingface.co/lambdalabs/sd-image-variations-diffusers",
            "CreativeML OpenRAIL-M; see the model page",
            system=ANIMATE_ANYONE,
        ),
    )
}
"""role -> what is known of its file."""


def find_file(role: str, roots: Iterable[str | Path]) -> Path | None:
    """The best place of a role's file, or None; see `find_all`."""
    return next(iter(find_all(role, roots)), None)


def find_all(role: str, roots: Iterable[str | Path]) -> list[Path]:
    """Every place of a role's file: earlier roots first, then converted files, then the less deep.

    Args:
        role: a key of `KNOWN_FILES`.
        roots: folders to search, themselves and below; those that do not exist are passed over.
    """
    return survey(roots)[role]


def survey(roots: Iterable[str | Path]) -> dict[str, list[Path]]:
    """`find_all` of every role in one walk."""
    found: dict[str, list[tuple[tuple[int, int, int], Path]]] = {role: [] for role in KNOWN_FILES}
    for place, (root, depth, folder, files) in enumerate(_folders(roots)):
        if _is_svd_folder(folder):
            found["svd"].append(((root, 0, depth), folder))
        for name in files:
            for role, known in KNOWN_FILES.items():
                rank = _rank(folder, name, known)
                if rank is not None:
                    found[role].append(((root, rank, place), folder / name))
    return {role: [path for _, path in sorted(places)] for role, places in found.items()}


def not_found_message(role: str, roots: Iterable[str | Path]) -> str:
    """What was looked for, every place searched, and where to get the file."""
    known = KNOWN_FILES[role]
    names = " or ".join(dict.fromkeys((*known.names, _converted(known.names[0]))))
    places = [f"{root}{'' if Path(root).is_dir() else ' (no such folder)'}" for root in roots]
    searched = "\n".join(f"  {place}" for place in places) or "  nowhere: no folder is set up"
    return (
        f"{known.label} was not found: looked for {names}, down to {MAX_DEPTH} folders deep, in\n{searched}\n"
        f"Get it from {known.url} ({known.size / 1e6:,.1f} MB; licence: {known.licence}) "
        "and put it into one of these folders."
    )


def _rank(folder: Path, name: str, known: KnownFile) -> int | None:
    """0 for a converted file (safe and smaller), 1 and up for the official names, None for others."""
    name = name.lower()
    for index, official in enumerate(known.names):
        if official in (name, f"{folder.name.lower()}/{name}"):
            return index + 1
    stem, _, suffix = known.names[0].rpartition(".")
    converted = rf"(stableanimator[-_.])?{re.escape(stem)}([-_.](fp16|bf16|fp32))?\.safetensors"
    return 0 if suffix != "onnx" and re.fullmatch(converted, name) else None


def _converted(name: str) -> str:
    return name if name.endswith(".onnx") else f"{name.rpartition('.')[0]}.safetensors"


def _is_svd_folder(folder: Path) -> bool:
    """Whether a folder holds the diffusers layout's two parts."""
    parts = (folder / "vae", "diffusion_pytorch_model"), (folder / "image_encoder", "model")
    return all(
        any(part.glob(f"{stem}*.safetensors")) or any(part.glob(f"{stem}*.bin")) for part, stem in parts
    )


def _folders(roots: Iterable[str | Path]) -> Iterator[tuple[int, int, Path, list[str]]]:
    """(root number, depth, folder, its files) breadth first, in name order, each real folder once."""
    seen: set[str] = set()
    for number, root in enumerate(roots):
        level = [Path(root)]
        for depth in range(MAX_DEPTH + 1):
            below: list[Path] = []
            for folder in level:
                real = os.path.realpath(folder)
                if real in seen or len(seen) >= MAX_FOLDERS:
                    continue
                seen.add(real)
                folders, files = _entries(folder)
                below.extend(folders)
                yield number, depth, folder, files
            level = below


def _entries(folder: Path) -> tuple[list[Path], list[str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # gone, or not ours to read
        return [], []
    shown = [entry for entry in entries if not entry.name.startswith((".", "__"))]
    return [folder / entry.name for entry in shown if entry.is_dir()], [e.name for e in shown if e.is_file()]

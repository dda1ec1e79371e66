#!/usr/bin/env python3
"""Make the repository's small copies of a folder of golden files: large results sampled, the rest compressed.

python scripts/thin_goldens.py GOLDENS tests/goldens
python scripts/thin_goldens.py GOLDENS_OF_ANIMATE_ANYONE tests/goldens/animate_anyone

It runs in an environment that has stableanimator_core. The conformance command reads the full folders as well.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from torch import Tensor

from stableanimator_core.conformance.thinned import METADATA, Sampled, load_tensors, save_thinned
from stableanimator_core.errors import InputError

# Bytes a result has at least -> stride. No stride divides an axis of any tensor, so that every row, column, channel and
# frame is met; 180 to 11000 elements of each remain.
STRIDES = {8_000: 11, 140_000: 31}
COMPRESSED = 8_000  # bytes of a tensor that is stored without loss, compressed

# Case -> results that are only compared with. Not here: what a case computes with (pictures, noise, samples, the
# features that `denoising_unet` reads from `reference_unet`), and the results that everything comes down to (latents
# after each step, a network's plain output). A mistake in one of these stages moves most of its elements, and those of
# the stages after it.
SAMPLED = {
    "clip_preprocess": ("pixel_values_*",),  # resized pictures
    "dwpose_onnx": ("*.input_stride16",),  # crops, which are also stored as pictures
    "hjb_a": ("crops_iter0_first_frames", "decoded_iter0"),  # pictures on the way to the loss
    "id_attention": ("out_*",),  # nine variants of one layer
    "pipeline_[abc]": (
        "clip_pixel_values",  # resized photos, as the networks get them
        "image_noised",
        "image_preprocessed",
        "pose_latents_window0",  # PoseNet's output, which has a case of its own
        "initial_latents",  # noise, repeated and scaled
        "unet_in_step0_window0",
        "unet_out_step0",
        "model_output",  # before the latents of the same step
        "decoded_frames",
        "decoded_subset",
        "frames_uint8",
    ),
    "pipeline_pro": ("model_output", "latents_after_step_no_refine", "frames_uint8"),
    "unet": ("probe_*", "output_[!p]*"),  # inner layers, and variants of `output_pose`
    "vae": ("decoded_*",),
    "denoising_unet": ("*after.*", "*output_*"),  # inner layers, and variants of `output`
    "motion_module": (
        "max_frames.output",
        "output_other_table",
        "two_batches.output",
    ),  # variants of `output`
    "pipeline_long_?": ("clip_pixels_every_4th", "pose_feature", "pose_pixels_*", "ref_pixels", "video*"),
    "reference_unet": ("*output",),  # of layers that no run needs
}

# Name of the destination -> files that stay away: notes, and cases that others of the folder stand for.
LEFT_OUT = {
    "goldens": ("*.md",),
    "animate_anyone": ("*.md", "keys_*", "recipe_check.*", "pose_guider.*", "pipeline_long_[ab].*"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of full golden files")
    parser.add_argument(
        "destination", type=Path, help="folder of the copies; its name says which files are left out"
    )
    options = parser.parse_args()
    try:
        before, after = thin(options.source, options.destination)
    except InputError as error:
        parser.error(str(error))
    print(f"{before / 1e6:.1f} MB became {after / 1e6:.1f} MB")
    return 0


def thin(source: Path, destination: Path) -> tuple[int, int]:
    """Copy the folder.

    Returns:
        Bytes of the copied files before and after.

    Raises:
        InputError: the source is the destination or thinned itself.
    """
    if source.resolve() == destination.resolve():
        raise InputError(str(source), "is the destination too", "name the folder of the full files")
    left_out = LEFT_OUT.get(destination.name, ())
    before = after = 0
    for path in sorted(
        path for path in source.rglob("*") if path.is_file() and not matches(path.name, left_out)
    ):
        copy = destination / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            copy_tensors(path, copy)
        else:
            shutil.copyfile(path, copy)
        before, after = before + path.stat().st_size, after + copy.stat().st_size
    return before, after


def copy_tensors(path: Path, copy: Path) -> None:
    """One file, with the forms that the tables name."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_tensors(path).items():
        if isinstance(tensor, Sampled):
            raise InputError(str(path), f"holds only samples of {name} ({METADATA})", "name the full files")
        tensors[name] = tensor
    strides = strides_of(tensors, path.stem)
    large = {name for name, tensor in tensors.items() if tensor.nbytes >= COMPRESSED}
    save_thinned(copy, tensors, strides, large - set(strides))


def strides_of(tensors: dict[str, Tensor], case: str) -> dict[str, int]:
    """Name -> stride of the tensors that the tables sample."""
    patterns = [pattern for row, entries in SAMPLED.items() if fnmatch(case, row) for pattern in entries]
    strides: dict[str, int] = {}
    for size, stride in STRIDES.items():
        large = (name for name, tensor in tensors.items() if tensor.nbytes >= size)
        strides |= {name: stride for name in large if matches(name, patterns)}
    return strides


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


if __name__ == "__main__":
    sys.exit(main())

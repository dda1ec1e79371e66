"""Everything a training run is told: the tables of its TOML file, with the published values as defaults.

Values: `train.py` and `command_train.sh`, Francis-Rings/StableAnimator @ 020e7f2. Where a default differs, the
attribute says so. Paths are relative to the folder of the TOML file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..conditioning import DEFAULT_FPS, DEFAULT_MOTION_BUCKET, DEFAULT_NOISE_AUGMENTATION
from .anyone_settings import Anyone
from .dropout import DROPOUT_PROBABILITY
from .frames import CLIP_FRAMES, STRIDE

Start = Literal["svd", "stableanimator", "config"]
Trainable = Literal["official", "all"]
Provider = Literal["insightface", "mask", "zeros"]


@dataclass(frozen=True)
class Bucket:
    """Clip folders that are trained at one size.

    Attributes:
        folder: holds the clip folders; below `data.root`.
        list: text file with one clip folder a line; all of `folder` if left out.
        width, height: training size in pixels, multiples of 64; pictures are resized to it whatever their aspect.
    """

    folder: str
    width: int
    height: int
    list: str | None = None


@dataclass(frozen=True)
class Data:
    """Where the clips are and how they are read.

    Attributes:
        root: holds the buckets' folders and lists.
        buckets: the data sets; official are 512x512 and 576x1024, interleaved.
        num_frames, stride: of a clip, see `frames.draw_clip`.
        workers: processes that read pictures ahead; without effect with a cache.
        cache: folder for what the frozen networks make of every frame; empty: computed anew in each step.
        reference_noise_variants: noisy encodings of each frame as the reference that the cache keeps; 0 keeps the
            clean one only. The official code draws the noise anew each time.
        check_pixels: decode every picture at the start instead of reading its header.
    """

    root: Path
    buckets: tuple[Bucket, ...]
    num_frames: int = CLIP_FRAMES
    stride: int = STRIDE
    workers: int = 4
    cache: Path | None = None
    reference_noise_variants: int = 1
    check_pixels: bool = False


@dataclass(frozen=True)
class Networks:
    """Which weights training starts from; Animate Anyone's own are named in `anyone`.

    Attributes:
        start: "svd": U-Net of Stable Video Diffusion, the rest new; "stableanimator": all three parts from files;
            "config": all new.
        svd: `svd_xt.safetensors` or SVD's diffusers folder, for what is not named by itself.
        vae, image_encoder: files of their own.
        unet, pose_net, face_encoder: files, for start "stableanimator".
        unet_config: diffusers' configuration of the U-Net as a table or a JSON file, for start "config".
        face_encoder_config: `depth`, `heads`, `ff_mult` of a new face encoder.
    """

    start: Start = "svd"
    svd: Path | None = None
    vae: Path | None = None
    image_encoder: Path | None = None
    unet: Path | None = None
    pose_net: Path | None = None
    face_encoder: Path | None = None
    unet_config: dict[str, Any] | Path | None = None
    face_encoder_config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Identity:
    """Where a reference frame's ArcFace vector comes from.

    Attributes:
        provider: "insightface": detected, aligned; "mask": the box of the frame's own face mask, not aligned;
            "zeros": none. A frame without a face gets zeros, as in the official code.
        detector: SCRFD's ONNX file, for "insightface".
        recogniser: ArcFace, ONNX or torch.
    """

    provider: Provider = "insightface"
    detector: Path | None = None
    recogniser: Path | None = None


@dataclass(frozen=True)
class Optimizer:
    """AdamW. `warmup_steps` also acts with "constant" (the official scheduler ignores its own).

    `schedule_steps` is where the schedule ends, if not at `training.steps`: a run may be left before.
    """

    learning_rate: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    schedule_steps: int = 0
    warmup_steps: int = 0
    max_grad_norm: float = 0.0


@dataclass(frozen=True)
class Noise:
    """Noise levels; `mean` and `std` of ln sigma count for "lognormal" only."""

    distribution: Literal["cosine", "lognormal"] = "cosine"
    mean: float = 0.7
    std: float = 1.6


@dataclass(frozen=True)
class Training:
    """The run.

    Attributes:
        steps: optimiser steps.
        batch_size: clips per process and forward pass.
        gradient_accumulation: forward passes per optimiser step.
        mixed_precision: "no", "fp16" or "bf16"; empty takes what `accelerate launch` says.
        gradient_checkpointing: recompute residual and transformer blocks, spatial and temporal, in the backward pass.
        trainable: "official": transformers of the U-Net, PoseNet, face encoder; "all": everything.
        frozen: networks that stand still all the same, such as "face_encoder".
        seed: of networks, order and all draws.
        dropout: probability q of `dropout.kept_conditions`.
        fps, motion_bucket_id, noise_augmentation: what the U-Net is told; the last is also the noise put on the
            reference.
        threads: torch's threads per process; 0 leaves them.
        tf32: faster, coarser float32 matrix products on CUDA.
        device: "cuda", "cpu" or empty for accelerate's choice.
    """

    steps: int = 15_000
    batch_size: int = 1
    gradient_accumulation: int = 1
    mixed_precision: Literal["", "no", "fp16", "bf16"] = ""
    gradient_checkpointing: bool = False
    trainable: Trainable = "official"
    frozen: tuple[str, ...] = ()
    seed: int = 0
    dropout: float = DROPOUT_PROBABILITY
    fps: float = DEFAULT_FPS
    motion_bucket_id: float = DEFAULT_MOTION_BUCKET
    noise_augmentation: float = DEFAULT_NOISE_AUGMENTATION
    threads: int = 0
    tf32: bool = False
    device: Literal["", "cpu", "cuda"] = ""


@dataclass(frozen=True)
class Ema:
    """Running mean of all trained weights; its decay rises as (1 + step) / (10 + step) up to `decay`."""

    enabled: bool = False
    decay: float = 0.9999


@dataclass(frozen=True)
class Checkpoints:
    """When and what is written.

    Attributes:
        every: steps between checkpoints; one more is written at the end and on a signal.
        keep: how many of the last stay; 0 keeps all.
        pth: also write the official three `.pth` files (float32).
    """

    every: int = 2000
    keep: int = 3
    pth: bool = True


@dataclass(frozen=True)
class Validation:
    """A held-out clip animated with the present (mean) weights.

    Attributes:
        every: steps between; 0 never.
        clips: clip folders below `data.root`, each with images, poses, faces.
        width, height: of the result; 0 takes the first bucket's.
        num_frames: frames of the clip, from its start.
        num_steps, guidance: of the sampler.
    """

    every: int = 0
    clips: tuple[str, ...] = ()
    width: int = 0
    height: int = 0
    num_frames: int = CLIP_FRAMES
    num_steps: int = 25
    guidance: float = 3.0


@dataclass(frozen=True)
class Log:
    """`metrics.jsonl` always; TensorBoard's files if asked for and installed."""

    every: int = 10
    tensorboard: bool = False


@dataclass(frozen=True)
class Settings:
    """A whole configuration file.

    Attributes:
        output: the run's folder.
        system: what is trained. For Animate Anyone some defaults are others, see `anyone_settings`, and of `networks`
            only `svd`, `vae`, `image_encoder` and `unet_config` count; `vae` may be Stable Diffusion's.
        stage: of Animate Anyone: 1 trains on single pictures, 2 the motion modules on clips.
    """

    output: Path
    data: Data
    system: Literal["stableanimator", "animate-anyone"] = "stableanimator"
    stage: Literal[1, 2] = 1
    anyone: Anyone = field(default_factory=Anyone)
    networks: Networks = field(default_factory=Networks)
    identity: Identity = field(default_factory=Identity)
    optimizer: Optimizer = field(default_factory=Optimizer)
    noise: Noise = field(default_factory=Noise)
    training: Training = field(default_factory=Training)
    ema: Ema = field(default_factory=Ema)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    validation: Validation = field(default_factory=Validation)
    log: Log = field(default_factory=Log)

"""What is compared: the model as shipped, the model with a part taken out, and copying the reference.

Another model joins by a function below `@system` that builds something with `System`'s attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from .. import small_model
from ..animate_anyone.pipeline import AnyoneOptions
from ..errors import InputError
from ..hjb.options import HJBOptions
from ..models.unet import AdapterOptions
from ..pipeline import AnimationOptions
from ..pose.draw import Picture
from ..preprocess import from_uint8
from ..sigmas import StepHook, karras_sigmas
from .clips import Inputs, evaluation_clips
from .likeness import identity_of
from .networks import Networks, fingerprint

STRANGERS = 500_000
"""The other person of a clip has the first usable seed from the clip's own plus this."""


class System(Protocol):
    """Something that animates.

    Attributes:
        name: of its row and its files.
        fingerprint: changes when its results would.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def animate(self, inputs: Inputs) -> Picture:
        """Frames uint8 [f H W 3], one for each skeleton; the same for the same inputs."""
        ...


@dataclass(frozen=True)
class Settings:
    """How the model is run.

    Attributes:
        animation: steps, guidance, adapter and the rest, as shipped.
        hjb: of the face optimisation; the variants set its mode.
        anyone: how Animate Anyone is run.
    """

    animation: AnimationOptions = field(default_factory=AnimationOptions)
    hjb: HJBOptions = field(default_factory=HJBOptions)
    anyone: AnyoneOptions = field(default_factory=AnyoneOptions)


@dataclass(frozen=True, eq=False)
class CopiedReference:
    """Stands still: what any animation must beat."""

    name: str = "reference"
    fingerprint: str = "copy"

    def animate(self, inputs: Inputs) -> Picture:
        """See `System`."""
        return np.repeat(inputs.reference[None], len(inputs.poses), axis=0)


Face = tuple[Picture, tuple[float, float, float, float]]
"""A picture and the box of the face in it."""


def own_face(inputs: Inputs) -> Face:
    """The reference's."""
    return inputs.reference, inputs.reference_box


def strangers_face(inputs: Inputs) -> Face:
    """That of another held-out person, the same one for a clip every time."""
    seed, size = inputs.seed + STRANGERS, inputs.reference.shape[0]
    stranger = next(evaluation_clips(1, 2, size, first=seed)).inputs
    return stranger.reference, stranger.reference_box


@dataclass(frozen=True, eq=False)
class StableAnimator:
    """The pipeline of this project. The noise of a clip is drawn from its seed, so all variants share it."""

    name: str
    networks: Networks
    options: AnimationOptions
    hjb: HJBOptions | None = None
    face: Callable[[Inputs], Face] = own_face

    @property
    def fingerprint(self) -> str:
        """See `System`."""
        face = self.face.__name__
        return f"{self.networks.fingerprint} {asdict(self.options)} {self.hjb and asdict(self.hjb)} {face}"

    def animate(self, inputs: Inputs) -> Picture:
        """See `System`."""
        height, width = inputs.size
        identity = identity_of(self.networks.recogniser, *self.face(inputs))
        return self.networks.animator.animate(
            inputs.reference,
            inputs.poses,
            identity,
            height=height,
            width=width,
            seed=inputs.seed,
            options=self.options,
            on_x0=self._face_optimisation(inputs),
        ).frames

    def _face_optimisation(self, inputs: Inputs) -> StepHook | None:
        """As the HJB node does it: faces where the skeletons have them, the reference cut out by its box."""
        from ..face.boxes import box_of
        from ..hjb.crop import identity_of_portrait
        from ..hjb.refiner import HJBRefiner

        if self.hjb is None:
            return None
        recogniser = self.networks.recogniser
        portrait = from_uint8(inputs.reference).permute(2, 0, 1) * 2 - 1
        portrait = portrait.to(next(recogniser.parameters()).device)
        target = identity_of_portrait(recogniser, portrait, box_of(inputs.reference_box))
        decoder: torch.nn.Module = self.networks.animator.vae.decoder  # pyright: ignore[reportAssignmentType]
        refiner = HJBRefiner(decoder, recogniser, target, inputs.face_boxes(), self.hjb)
        return refiner.hook(karras_sigmas(self.options.num_steps))


Build = Callable[[Networks, Settings], System]
_SYSTEMS: dict[str, tuple[str, Build]] = {}


def system(name: str, description: str) -> Callable[[Build], Build]:
    """Make what the decorated function builds known under `name`."""

    def register(build: Build) -> Build:
        _SYSTEMS[name] = (description, build)
        return build

    return register


def known_systems() -> dict[str, str]:
    """Name and description of every system, in the order of the table."""
    return {name: description for name, (description, _) in _SYSTEMS.items()}


def available_systems(folder: Path) -> list[str]:
    """Names of the systems whose files are in the folder."""
    absent = ["animate_anyone"] if small_model.missing_anyone(folder) else []
    return [name for name in _SYSTEMS if name not in absent]


def build_systems(names: Sequence[str], networks: Networks, settings: Settings) -> list[System]:
    """The systems of these names, in this order.

    Raises:
        InputError: an unknown name.
        WeightsError: Animate Anyone is asked for and its files are not there.
    """
    unknown = [name for name in names if name not in _SYSTEMS]
    if unknown:
        raise InputError(
            "variants", f"{', '.join(unknown)} is not known", f"choose among {', '.join(_SYSTEMS)}"
        )
    return [_SYSTEMS[name][1](networks, settings) for name in names]


@system("reference", "the reference frame, copied")
def _reference(networks: Networks, settings: Settings) -> System:
    return CopiedReference()


@system("full", "the model as shipped")
def _full(networks: Networks, settings: Settings) -> System:
    return StableAnimator("full", networks, settings.animation)


@system("no_adapter", "without the face branch (adapter strength 0)")
def _no_adapter(networks: Networks, settings: Settings) -> System:
    adapter = AdapterOptions(strength=0)
    return StableAnimator("no_adapter", networks, replace(settings.animation, adapter=adapter))


@system("no_alignment", "face branch without alignment of mean and deviation")
def _no_alignment(networks: Networks, settings: Settings) -> System:
    adapter = replace(settings.animation.adapter, alignment="none")
    return StableAnimator("no_alignment", networks, replace(settings.animation, adapter=adapter))


@system("no_fusion", "face embedding that does not look at the image embedding")
def _no_fusion(networks: Networks, settings: Settings) -> System:
    return StableAnimator("no_fusion", networks, replace(settings.animation, fuse_face=False))


@system("other_face", "given the face embedding of another person: what the embedding itself decides")
def _other_face(networks: Networks, settings: Settings) -> System:
    return StableAnimator("other_face", networks, settings.animation, face=strangers_face)


@system("hjb_exact", "full, and the face optimisation as published")
def _hjb_exact(networks: Networks, settings: Settings) -> System:
    hjb = replace(settings.hjb, mode="exact")
    return StableAnimator("hjb_exact", networks, settings.animation, hjb)


@system("hjb_fast", "full, and the face optimisation in its fast mode")
def _hjb_fast(networks: Networks, settings: Settings) -> System:
    hjb = replace(settings.hjb, mode="fast")
    return StableAnimator("hjb_fast", networks, settings.animation, hjb)


@system(
    "animate_anyone", "the other system, Animate Anyone: no face branch, the photo read by a second U-Net"
)
def _animate_anyone(networks: Networks, settings: Settings) -> System:
    from . import anyone

    loaded = anyone.load(networks.folder)
    device = next(networks.recogniser.parameters()).device
    for network in vars(loaded).values():
        network.to(device)
    files = fingerprint(networks.folder, small_model.ANYONE_FILES)
    return anyone.AnyoneSystem(loaded, files, settings.anyone)

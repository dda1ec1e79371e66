"""python benchmarks/hjb_gain.py [--clips 6]: what the modes of the face optimisation gain, on the same clips.

Small networks with random weights (`stableanimator_core.demo_weights`), the whole sampling of 25 steps. The gain is the
mean cosine, over frames, between the face network's embedding of the decoded faces and of the portrait, less the same
without optimisation. The network that is climbed is also the judge and the weights are random: this compares the modes
with each other; it says nothing about likeness.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stableanimator_core import demo_weights
from stableanimator_core.hjb.crop import identity_of_portrait
from stableanimator_core.hjb.options import HJBOptions, Mode
from stableanimator_core.hjb.refiner import HJBRefiner
from stableanimator_core.hjb.regions import Box
from stableanimator_core.pipeline import Animation, AnimationOptions, Animator
from stableanimator_core.sigmas import karras_sigmas
from stableanimator_core.weights.load import load_face_recognizer

SIDE, FRAMES, STEPS = 128, 4, 25
FACE = Box(32, 80, 40, 88)
MODES: tuple[Mode, ...] = ("exact", "late", "fast")


class Setup:
    """The networks, and one portrait, motion and identity for every clip number."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            unet, pose_net, face_encoder, recogniser, svd = demo_weights.write(Path(folder))
            self.animator = Animator.load(unet, pose_net, face_encoder, svd)
            self.recogniser = load_face_recognizer(recogniser)

    def portrait(self, clip: int) -> np.ndarray:
        """Smooth random colours, so that the face network has something to tell apart."""
        draw = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(clip))
        smooth = torch.nn.functional.interpolate(draw, size=(SIDE, SIDE), mode="bicubic")[0].permute(1, 2, 0)
        return ((smooth * 0.25 + 0.5).clamp(0, 1) * 255).to(torch.uint8).numpy()

    def reference(self, clip: int) -> Tensor:
        pixels = torch.from_numpy(self.portrait(clip)).float().permute(2, 0, 1) / 127.5 - 1
        with torch.no_grad():
            return identity_of_portrait(self.recogniser, pixels, FACE)

    def animate(self, clip: int, mode: Mode | None) -> tuple[Animation, float]:
        """The clip and the seconds it took."""
        hook = None
        if mode is not None:
            boxes = [[FACE]] * FRAMES
            refiner = HJBRefiner(
                self.animator.vae.decoder, self.recogniser, self.reference(clip), boxes, HJBOptions(mode=mode)
            )
            hook = refiner.hook(karras_sigmas(STEPS))
        poses = np.random.default_rng(clip).integers(0, 255, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
        identity = torch.randn(512, generator=torch.Generator().manual_seed(clip))
        options = AnimationOptions(num_steps=STEPS)
        began = time.process_time()
        result = self.animator.animate(
            self.portrait(clip),
            poses,
            identity,
            height=SIDE,
            width=SIDE,
            seed=clip,
            options=options,
            on_x0=hook,
        )
        return result, time.process_time() - began

    def cosine(self, clip: int, animation: Animation) -> float:
        """Mean cosine of the decoded faces to the portrait's."""
        frames = torch.from_numpy(animation.frames).float().permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            faces = torch.cat([identity_of_portrait(self.recogniser, frame, FACE) for frame in frames])
        return float(torch.cosine_similarity(faces, self.reference(clip)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=6)
    clips = range(parser.parse_args().clips)
    setup = Setup()
    plain = [setup.animate(clip, None) for clip in clips]
    before = [setup.cosine(clip, animation) for clip, (animation, _) in zip(clips, plain, strict=True)]
    base = sum(seconds for _, seconds in plain)
    print(f"{len(clips)} clips of {FRAMES} frames, {SIDE} x {SIDE}, {STEPS} steps, random weights")
    print(f"{'mode':8} {'cosine before':>14} {'gain':>8} {'95 % interval':>18} {'time over plain':>16}")
    for mode in MODES:
        runs = [setup.animate(clip, mode) for clip in clips]
        gains = torch.tensor(
            [
                setup.cosine(clip, animation) - was
                for clip, (animation, _), was in zip(clips, runs, before, strict=True)
            ]
        )
        half = 1.96 * float(gains.std()) / len(gains) ** 0.5
        mean, extra = float(gains.mean()), sum(seconds for _, seconds in runs) / base - 1
        interval = f"{mean - half:+.4f} .. {mean + half:+.4f}"
        print(f"{mode:8} {sum(before) / len(before):14.4f} {mean:+8.4f} {interval:>18} {extra:15.1f}x")


if __name__ == "__main__":
    main()

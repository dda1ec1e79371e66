"""HJB and the nodes an artist knows from StableAnimator's graph, on Animate Anyone's model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from anyone import HEIGHT, NAMES, WIDTH, clip, custom, ksample, noise_of, photo, sockets, system
from hjb_inputs import SETTINGS, boxes_of_three_frames, face_in, recogniser_of

FRAMES = 3


@pytest.fixture(scope="module")
def models(pack) -> SimpleNamespace:
    return sockets(pack, system(pack))


@pytest.fixture(scope="module")
def made(pack, models) -> SimpleNamespace:
    return clip(pack, models, FRAMES)


@pytest.fixture(scope="module")
def faces(pack) -> tuple:
    """Recogniser, photo, face, face boxes: the inputs that both HJB nodes share."""
    face = face_in(pack, (10.0, 10.0, 60.0, 70.0))
    return recogniser_of(pack), photo(), face, boxes_of_three_frames(pack)


def sampler_and_run(pack, models, faces, sampler=None, **changes):
    with torch.inference_mode():
        return pack.HJBSampler.execute(models.vae, *faces, sampler, **{**SETTINGS, **changes}).args


def official_steps(pack, models, steps: int = 3):
    return pack.DDIMTrailing.execute(models.model, steps).args[0]


def test_hjb_over_the_official_sampler_brings_the_faces_nearer(pack, core_comfy, models, made, faces):
    plain = custom(pack, models.model, made, noise_of(FRAMES), 3, 3.5)
    sampler, run = sampler_and_run(pack, models, faces, official_steps(pack, models))
    refined = custom(pack, models.model, made, noise_of(FRAMES), 3, 3.5, sampler)
    step = run.refiner.report.steps[-1]
    assert step.losses[-1] < step.losses[0]
    assert step.cosines[0][1] is None  # the second frame shows no face
    assert refined.isfinite().all()
    assert not torch.equal(refined, plain)


def test_without_iterations_the_official_sampler_is_as_it_was(pack, core_comfy, models, made, faces):
    plain = custom(pack, models.model, made, noise_of(FRAMES), 3, 3.5)
    sampler, _ = sampler_and_run(pack, models, faces, official_steps(pack, models), iterations=0)
    assert torch.equal(custom(pack, models.model, made, noise_of(FRAMES), 3, 3.5, sampler), plain)


def test_the_patch_on_the_model_gives_ksampler_the_same(pack, core_comfy, models, made, faces):
    with torch.inference_mode():
        patched, run = pack.HJBModel.execute(models.model, models.vae, *faces, **SETTINGS).args
    plain = ksample(core_comfy, models.model, made, steps=3)
    refined = ksample(core_comfy, patched, made, steps=3)
    assert run.refiner.report.steps
    assert not torch.equal(refined, plain)
    assert torch.equal(ksample(core_comfy, models.model, made, steps=3), plain), (
        "the given model is unchanged"
    )


def test_windows_and_hjb_work_together(pack, core_comfy, models, made, faces):
    model = pack.LoopedWindows.execute(models.model, 2, 1, "closed").args[0]
    sampler, run = sampler_and_run(pack, models, faces, official_steps(pack, models))
    assert custom(pack, model, made, noise_of(FRAMES), 3, 3.5, sampler).isfinite().all()
    assert run.refiner.report.steps


def test_a_vae_of_a_core_loader_serves_too(pack, core_comfy, models, made, faces):
    """Core names the same weights otherwise; `decoder_of` reads them into the class that HJB optimises through."""
    layout = pack.module("stableanimator_core.weights.svd_layout")
    own = models.vae.first_stage_model.vae.state_dict()
    theirs = SimpleNamespace(first_stage_model=SimpleNamespace(state_dict=lambda: in_core_names(layout, own)))
    decoder_of = pack.module("nodes.hjb_run").decoder_of
    ours, other = (decoder_of(vae).state_dict() for vae in (models.vae, theirs))
    assert ours.keys() == other.keys()
    assert all(torch.equal(ours[key], other[key]) for key in ours)


def in_core_names(layout, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As Stable Diffusion's first code calls them, and core with it; its attention's layers are 1x1 convolutions."""
    names = layout._vae_modules(levels=4, layers=1, decoder=layout._RESNET)
    renamed = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        flat = tensor.ndim == 2 and ".attentions." in key
        renamed[f"{names.get(module, module)}.{leaf}"] = tensor[:, :, None, None] if flat else tensor
    assert "decoder.mid.block_1.norm1.weight" in renamed
    return renamed


def test_a_vae_of_another_family_is_refused(pack, models, faces):
    strange = SimpleNamespace(
        vae=SimpleNamespace(first_stage_model=SimpleNamespace(state_dict=lambda: {"a": torch.ones(1)}))
    )
    with pytest.raises(ValueError, match="is neither Stable Video Diffusion's nor Stable Diffusion's"):
        sampler_and_run(pack, strange, faces)


def test_a_picture_vae_is_refused_for_a_stableanimator_model(pack, models, faces):
    stable = pack.LoadAnimatorModels.execute(*[pack.module("nodes.small").ENTRY] * 4, "default").args[0]
    with pytest.raises(
        ValueError, match="vae: is not Stable Video Diffusion's. Connect the VAE of Load Animator"
    ):
        pack.HJBModel.execute(stable, models.vae, *faces, **SETTINGS)


def test_a_drawn_person_goes_through_the_whole_graph_that_an_artist_knows(pack, core_comfy):
    """Demo Puppet, Face Embed, Pose Align, Pose Draw, Face Masks, windows and HJB, all with the small demo model."""
    small = pack.module("nodes.small").ENTRY
    side = 128
    with torch.inference_mode():
        portrait, mask, pose, motion, frames = pack.DemoPuppet.execute(
            1_000_014, 1_000_006, "half", side, FRAMES
        ).args
        models = SimpleNamespace(
            **dict(
                zip(NAMES, pack.LoadAnimateAnyoneModels.execute(*[small] * 6, "default").args, strict=True)
            )
        )
        face = pack.FaceEmbed.execute(
            *(
                portrait,
                small,
                pack.module("nodes.face").NO_DETECTOR,
                "largest",
                0,
                "BGR (as trained)",
                "error",
            ),
            face_mask=mask,
        ).args[0]
        fitted = pack.PoseAlign.execute(motion, pose, "robust", 1.0, False, 0, -1, 1.3).args[0]
        drawn = pack.PoseDraw.execute(fitted, side, side, "contain", True, True, True).args[0]
        boxes = pack.FaceMasks.execute(
            *("skeleton", side, side, 0.2, 0, "contain", "", "BGR (as trained)"), poses=fitted
        ).args[0]
        recogniser = pack.LoadFaceRecognizer.execute(small).args[0]
        made = clip(pack, models, frames, image=portrait, poses=drawn, width=side, height=side)
        model = pack.LoopedWindows.execute(models.model, 2, 1, "open").args[0]
        model, run = pack.HJBModel.execute(
            model, models.vae, recogniser, portrait, face, boxes, **{**SETTINGS, "iterations": 1}
        ).args
    assert ksample(core_comfy, model, made).shape == (FRAMES, 4, side // 8, side // 8)
    assert run.refiner.report.steps


def test_a_skeleton_in_another_shape_than_the_video_is_refused(pack, models):
    wide = torch.zeros(FRAMES, HEIGHT, 3 * WIDTH, 3)
    with pytest.raises(ValueError, match="the skeleton would be stretched"):
        clip(pack, models, FRAMES, poses=wide)

"""HJB as a SAMPLER and as a patch on MODEL, in ComfyUI's own sampling."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hjb_inputs import SETTINGS, boxes_of_three_frames, face_in, recogniser_of

FRAMES, SIDE = 3, 64


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    return torch.rand(1, 96, 80, 3, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def face(pack: SimpleNamespace):
    return face_in(pack, (20.0, 20.0, 60.0, 70.0))


@pytest.fixture(scope="module")
def clip(pack, models, face, portrait) -> SimpleNamespace:
    with torch.inference_mode():
        positive, negative, latent = pack.ArcFaceCLIPEncode.execute(
            *(models.clip_vision, models.vae, models.face_encoder, portrait, SIDE, SIDE, FRAMES, 0),
            *(127, 7.0, 0.02, True, 16),
            face=face,
        ).args
    return SimpleNamespace(positive=positive, negative=negative, latent=latent)


@pytest.fixture(scope="module")
def recognizer(pack):
    return recogniser_of(pack)


@pytest.fixture(scope="module")
def face_boxes(pack):
    return boxes_of_three_frames(pack)


def hjb_sampler(pack, models, recognizer, portrait, face, face_boxes, **changes):
    with torch.inference_mode():
        return pack.HJBSampler.execute(
            models.vae, recognizer, portrait, face, face_boxes, **{**SETTINGS, **changes}
        ).args


def run_custom(models, clip, sampler) -> torch.Tensor:
    from comfy_extras import nodes_custom_sampler as custom

    with torch.inference_mode():
        sigmas = custom.BasicScheduler.execute(models.model, "karras", 3, 1.0)[0]
        result = custom.SamplerCustom.execute(
            models.model, True, 5, 3.0, clip.positive, clip.negative, sampler, sigmas, clip.latent
        )
    return result[0]["samples"]


@pytest.fixture(scope="module")
def refined(pack, models, clip, recognizer, portrait, face, face_boxes) -> SimpleNamespace:
    sampler, run = hjb_sampler(pack, models, recognizer, portrait, face, face_boxes)
    return SimpleNamespace(samples=run_custom(models, clip, sampler), run=run)


def test_hjb_brings_the_faces_nearer_and_reports_it(pack, refined):
    with torch.inference_mode():
        samples, plot, report, likeness = pack.HJBReport.execute(
            refined.run, {"samples": refined.samples}
        ).args
    step = refined.run.refiner.report.steps[-1]
    assert step.losses[-1] < step.losses[0]
    assert step.cosines[0][1] is None  # no face, no cosine
    assert torch.equal(samples["samples"], refined.samples)
    assert plot.shape[-1] == 3 and plot.std() > 0
    assert "Mean cosine" in report
    assert -1 <= likeness <= 1


def test_the_model_patch_gives_the_latents_of_the_sampler(
    core_comfy, pack, models, clip, recognizer, portrait, face, face_boxes, refined
):
    with torch.inference_mode():
        model, _ = pack.HJBModel.execute(
            models.model, models.vae, recognizer, portrait, face, face_boxes, **SETTINGS
        ).args
        result = core_comfy.KSampler().sample(
            model, 5, 3, 3.0, "euler", "karras", clip.positive, clip.negative, clip.latent
        )
    assert torch.equal(result[0]["samples"], refined.samples)


def test_without_iterations_hjb_changes_nothing(
    pack, models, clip, recognizer, portrait, face, face_boxes, refined
):
    import comfy.samplers

    plain = run_custom(models, clip, comfy.samplers.sampler_object("euler"))
    sampler, _ = hjb_sampler(pack, models, recognizer, portrait, face, face_boxes, iterations=0)
    assert torch.equal(run_custom(models, clip, sampler), plain)
    assert not torch.equal(refined.samples, plain)


def test_other_samplers_can_be_refined(pack, models, clip, recognizer, portrait, face, face_boxes):
    import comfy.samplers

    for name in ("dpmpp_2m", "ddim", "heun"):
        sampler = pack.HJBSampler.execute(
            models.vae,
            recognizer,
            portrait,
            face,
            face_boxes,
            comfy.samplers.sampler_object(name),
            **SETTINGS,
        ).args[0]
        assert run_custom(models, clip, sampler).isfinite().all()


def test_windows_and_hjb_work_together(pack, models, clip, recognizer, portrait, face, face_boxes):
    windowed = SimpleNamespace(model=pack.AnimationWindows.execute(models.model, 2, 1).args[0])
    sampler, run = hjb_sampler(pack, models, recognizer, portrait, face, face_boxes)
    assert run_custom(windowed, clip, sampler).isfinite().all()
    assert run.refiner.report.steps


def test_nothing_is_left_behind_and_the_vae_is_untouched(
    pack, models, clip, recognizer, portrait, face, face_boxes
):
    before = {key: weight.clone() for key, weight in models.vae.first_stage_model.state_dict().items()}
    sampler, run = hjb_sampler(pack, models, recognizer, portrait, face, face_boxes)
    run_custom(models, clip, sampler)
    assert run.refiner._loss is None
    for key, weight in models.vae.first_stage_model.state_dict().items():
        assert torch.equal(weight, before[key]), key
    assert not models.model.model_options.get("sampler_post_cfg_function")


def test_cancel_stops_between_iterations(
    pack, models, clip, recognizer, portrait, face, face_boxes, monkeypatch
):
    import comfy.model_management as mm

    sampler, run = hjb_sampler(pack, models, recognizer, portrait, face, face_boxes, iterations=50)
    iterations = []
    heard = run.refiner.on_iteration

    def cancelling(step, iteration):
        iterations.append(iteration)
        mm.interrupt_current_processing()
        heard(step, iteration)

    run.refiner.on_iteration = cancelling
    with pytest.raises(mm.InterruptProcessingException):
        run_custom(models, clip, sampler)
    assert len(iterations) == 1
    assert run.refiner._loss is None


def test_a_portrait_without_a_face_is_refused(pack, models, recognizer, portrait, face_boxes):
    nobody = pack.module("stableanimator_core.face.embed").FaceIdentity(None, None, None, ())
    error = pack.module("stableanimator_core.errors").NoFaceError
    with pytest.raises(error, match="HJB Sampler - face"):
        hjb_sampler(pack, models, recognizer, portrait, nobody, face_boxes)


def test_face_boxes_of_another_clip_are_refused(pack, models, clip, recognizer, portrait, face, face_boxes):
    sampler, _ = hjb_sampler(pack, models, recognizer, portrait, face, face_boxes[:2])
    error = pack.module("stableanimator_core.errors").InputError
    with pytest.raises(error, match="2"):
        run_custom(models, clip, sampler)


def test_on_a_card_all_but_the_unet_makes_room_and_the_budget_is_what_is_free_now(
    pack, models, recognizer, portrait, face, face_boxes, monkeypatch
):
    import comfy.model_management as mm

    _, run = hjb_sampler(pack, models, recognizer, portrait, face, face_boxes)
    unet = SimpleNamespace(model=models.model.clone())
    vae = SimpleNamespace(model=models.vae.patcher)
    kept, free = [], iter([10 * 2**30, 20 * 2**30])
    monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(mm, "current_loaded_models", [vae, unet])
    monkeypatch.setattr(mm, "free_memory", lambda size, device, keep_loaded: kept.append(keep_loaded))
    monkeypatch.setattr(mm, "get_free_memory", lambda device: next(free))
    for budget in (9.0, 18.0):
        run._make_room(SimpleNamespace(model_patcher=models.model))
        assert run.refiner.options.budget_gib == pytest.approx(budget)
    assert kept == [[unet], [unet]]

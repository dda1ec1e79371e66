"""Animate Anyone's MODEL under ComfyUI's own samplers, patches and memory manager."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from anyone import (
    HEIGHT,
    NAMES,
    WIDTH,
    clip,
    custom,
    ksample,
    largest,
    noise_of,
    photo,
    skeletons,
    sockets,
    system,
)
from watching import assert_a_third_of_the_memory_is_enough, forward_sizes

FRAMES = 3


@pytest.fixture(scope="module")
def core_system(pack):
    return system(pack)


@pytest.fixture(scope="module")
def models(pack, core_system) -> SimpleNamespace:
    return sockets(pack, core_system)


@pytest.fixture(scope="module")
def made(pack, models) -> SimpleNamespace:
    return clip(pack, models, FRAMES)


def from_core(pack, core_system, frames: int = FRAMES, steps: int = 3, **options) -> torch.Tensor:
    """The core's own pipeline on the same photo, skeletons and noise, in the scale of the VAE."""
    core = pack.module("stableanimator_core.animate_anyone.pipeline")
    picture = (photo()[0] * 255).round().byte().numpy()
    poses = (skeletons(frames) * 255).round().byte().numpy()
    animation = core.AnimateAnyone(**vars(core_system)).animate(
        picture,
        poses,
        height=HEIGHT,
        width=WIDTH,
        noise=noise_of(frames),
        options=core.AnyoneOptions(num_steps=steps, **options),
    )
    return animation.latents / 0.18215


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_sampling_gives_what_the_core_gives(guidance, pack, core_comfy, core_system, models, made):
    expected = from_core(pack, core_system, guidance=guidance)
    result = custom(pack, models.model, made, noise_of(FRAMES), 3, guidance)
    assert largest(result - expected, expected) < 1e-4


@pytest.mark.parametrize(
    "name", ["euler", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "euler_ancestral", "lcm", "uni_pc", "ddpm"]
)
def test_core_samplers_work(name, core_comfy, models, made):
    assert ksample(core_comfy, models.model, made, sampler=name).isfinite().all()


@pytest.mark.parametrize(
    "name", ["normal", "karras", "exponential", "sgm_uniform", "ddim_uniform", "beta", "kl_optimal"]
)
def test_core_schedulers_work(name, core_comfy, models, made):
    assert ksample(core_comfy, models.model, made, scheduler=name).isfinite().all()


@pytest.mark.parametrize(("steps", "near"), [(4, True), (3, False)])
def test_ksampler_with_euler_and_simple_is_nearly_official_where_the_steps_divide_1000(
    steps, near, pack, core_comfy, models, made, monkeypatch
):
    import comfy.sample

    monkeypatch.setattr(comfy.sample, "prepare_noise", lambda *args, **kwargs: noise_of(FRAMES))
    exact = custom(pack, models.model, made, noise_of(FRAMES), steps, 3.5)
    error = largest(ksample(core_comfy, models.model, made, steps=steps) - exact, exact)
    assert (error < 1e-3) is near


def test_the_official_sampler_can_be_stopped_and_taken_up_again(pack, core_comfy, models, made):
    from comfy_extras import nodes_custom_sampler as nodes

    whole = custom(pack, models.model, made, noise_of(FRAMES), 3, 3.5)
    with torch.inference_mode():
        sampler, sigmas = pack.DDIMTrailing.execute(models.model, 3).args
        guider = nodes.CFGGuider.execute(models.model, made.positive, made.negative, 3.5)[0]
        given = SimpleNamespace(seed=0, generate_noise=lambda latent: noise_of(FRAMES))
        nothing = nodes.DisableNoise.execute()[0]
        run = nodes.SamplerCustomAdvanced.execute
        half = run(given, guider, sampler, sigmas[:3], made.latent)[0]
        rest = run(nothing, guider, sampler, sigmas[2:], half)[0]["samples"]
    assert largest(rest - whole, whole) < 1e-4


def test_both_halves_run_as_one_batch_and_alone_they_give_the_same(core_comfy, models, made, monkeypatch):
    sizes = forward_sizes(models, monkeypatch)
    together = ksample(core_comfy, models.model, made)
    monkeypatch.setattr(models.model.model, "memory_required", lambda *args, **kwargs: 1e30)
    apart = ksample(core_comfy, models.model, made)
    assert sizes == [2 * FRAMES] * 2 + [FRAMES] * 4
    assert largest(apart - together, together) < 1e-3


def test_only_the_positive_half_sees_the_photo_and_both_see_the_skeletons(
    core_comfy, models, made, monkeypatch
):
    seen = []
    unet = models.model.model.diffusion_model
    forward = unet._forward

    def looking(x, timesteps, context, *args, **options):
        seen.append(
            (context[::FRAMES], options["reference_rows"], options["pose_features"].unflatten(0, (2, -1)))
        )
        return forward(x, timesteps, context, *args, **options)

    monkeypatch.setattr(unet, "_forward", looking)
    ksample(core_comfy, models.model, made, steps=1)
    ((tokens, rows, poses),) = seen
    for token, sees in zip(tokens, rows, strict=True):
        assert bool(token.any()) is sees
    assert sorted(rows) == [False, True]
    assert poses.any() and torch.equal(poses[0], poses[1])


def test_a_second_run_is_bit_equal_and_changes_no_input(core_comfy, models, made):
    name, feature = next(iter(made.positive[0][1]["animate_anyone_reference"].features.items()))
    before = feature.clone()
    first = ksample(core_comfy, models.model, made)
    assert torch.equal(ksample(core_comfy, models.model, made), first)
    assert torch.equal(made.positive[0][1]["animate_anyone_reference"].features[name], before)


def test_the_photo_is_projected_once_a_run_and_anew_in_the_next(core_comfy, models, made, monkeypatch):
    attn = next(
        module
        for name, module in models.model.model.diffusion_model.named_modules()
        if name.endswith("attn1")
    )
    calls = []
    keys = attn.to_k.forward
    monkeypatch.setattr(attn.to_k, "forward", lambda x: calls.append(x.shape[0]) or keys(x))
    for runs in (1, 2):
        ksample(core_comfy, models.model, made, steps=3)
        assert calls.count(1) == runs
        assert calls.count(2 * FRAMES) == 3 * runs


def test_two_photos_in_one_run_are_each_seen_by_their_own_half(pack, core_comfy, models, made):
    other = clip(pack, models, FRAMES, image=1 - photo())
    pair = SimpleNamespace(**{**vars(made), "positive": made.positive + other.positive})
    one, two = (ksample(core_comfy, models.model, part, steps=1) for part in (made, other))
    both = ksample(core_comfy, models.model, pair, steps=1)
    assert largest(both - (one + two) / 2, one) < 1e-3  # core takes the mean of their predictions
    assert largest(one - two, one) > 1e-2


def test_lora_reaches_the_network_and_leaves_it_again(core_comfy, models, made):
    import comfy.sd

    plain = ksample(core_comfy, models.model, made)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
    width = models.model.model.diffusion_model.get_submodule(name).weight.shape[0]
    key = "lora_unet_" + name.replace(".", "_")  # as files for Stable Diffusion 1.5 name it
    lora = {
        f"{key}.lora_up.weight": torch.ones(width, 1),
        f"{key}.lora_down.weight": torch.full((1, width), 0.1),
    }
    patched, _ = comfy.sd.load_lora_for_models(models.model, None, lora, 1.0, 0)
    assert len(patched.patches) == 1
    assert not torch.equal(ksample(core_comfy, patched, made), plain)
    assert torch.equal(ksample(core_comfy, models.model, made), plain)


def test_a_third_of_the_memory_is_enough_and_changes_nothing(core_comfy, models, made):
    assert_a_third_of_the_memory_is_enough(models.model, lambda model: ksample(core_comfy, model, made))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_weight_dtype_only_rounds_the_weights(dtype, pack, core_comfy, made):
    """On the CPU core computes in float32, so storage in `dtype` must equal a float32 model with rounded weights."""
    narrow, rounded = system(pack), system(pack)
    for network in (narrow.denoising_unet, rounded.denoising_unet):
        torch.nn.Module.to(network, dtype)
    torch.nn.Module.float(rounded.denoising_unet)
    patcher = pack.module("nodes.anyone_model").anyone_patcher
    stored = ksample(core_comfy, patcher(narrow.denoising_unet, dtype, torch.float32), made)
    exact = ksample(core_comfy, patcher(rounded.denoising_unet, torch.float32, None), made)
    assert largest(stored - exact, exact) < 1e-4


def test_torch_compile_model_gives_the_same_latents(core_comfy, models, made, monkeypatch):
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda backend, **options: real(backend="eager", **options))
    compiled = TorchCompileModel.execute(models.model, "inductor")[0]
    expected = ksample(core_comfy, models.model, made)
    assert largest(ksample(core_comfy, compiled, made) - expected, expected) < 5e-3


def test_easycache_skips_steps(core_comfy, models, made, monkeypatch):
    from comfy_extras.nodes_easycache import EasyCacheNode

    sizes = forward_sizes(models, monkeypatch)
    cached = EasyCacheNode.execute(models.model, 2.0, 0.0, 1.0, False)[0]
    assert ksample(core_comfy, cached, made, steps=8).isfinite().all()
    assert len(sizes) < 8


def test_model_sampling_patches_keep_the_betas_and_change_what_they_say(core_comfy, models, made):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, RescaleCFG

    own = models.model.get_model_object("model_sampling").sigmas
    same, other = (
        ModelSamplingDiscrete().patch(models.model, "v_prediction", zsnr)[0] for zsnr in (True, False)
    )
    assert torch.equal(same.get_model_object("model_sampling").sigmas, own)
    assert other.get_model_object("model_sampling").sigmas[-1] < 100
    for model in (other, RescaleCFG().patch(models.model, 0.7)[0]):
        assert ksample(core_comfy, model, made).isfinite().all()


def test_a_live_preview_can_be_made(core_comfy, models, made):
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod, args

    method, args.preview_method = args.preview_method, LatentPreviewMethod.Latent2RGB
    try:
        previewer = latent_preview.get_previewer("cpu", models.model.model.latent_format)
        image = previewer.decode_latent_to_preview_image("JPEG", noise_of(FRAMES))[1]
    finally:
        args.preview_method = method
    assert image.size == (WIDTH // 8, HEIGHT // 8)


def test_more_frames_than_positions_are_refused_before_anything_runs(pack, core_comfy, models, monkeypatch):
    sizes = forward_sizes(models, monkeypatch)
    long = clip(pack, models, 9)
    with pytest.raises(
        ValueError, match="has 9 frames, the motion modules know 8 positions. Put Looped Windows"
    ):
        ksample(core_comfy, models.model, long)
    assert not sizes


def test_conditioning_of_another_model_is_refused(core_comfy, models, made):
    foreign = SimpleNamespace(**{**vars(made), "positive": [[torch.zeros(1, 77, 768), {}]]})
    with pytest.raises(ValueError, match="positive conditioning: was not made for this Animate Anyone model"):
        ksample(core_comfy, models.model, foreign)


def test_a_latent_of_another_size_is_refused(core_comfy, models, made):
    other = SimpleNamespace(**{**vars(made), "latent": {"samples": torch.zeros(FRAMES, 4, 8, 8)}})
    with pytest.raises(ValueError, match="latent: is 64 x 64, the conditioning was made for 72 x 80"):
        ksample(core_comfy, models.model, other)


def test_another_number_of_skeletons_is_refused(pack, core_comfy, models, made):
    other = clip(pack, models, FRAMES, poses=skeletons(2))
    with pytest.raises(ValueError, match="pose images: are 2 frames"):
        ksample(core_comfy, models.model, other)


def test_the_sockets_are_of_comfyuis_own_kinds(models, core_comfy):
    import comfy.clip_vision
    import comfy.sd
    from comfy.model_patcher import ModelPatcher

    assert set(vars(models)) == set(NAMES)
    assert isinstance(models.model, ModelPatcher)
    assert isinstance(models.clip_vision, comfy.clip_vision.ClipVisionModel)
    assert isinstance(models.vae, comfy.sd.VAE)

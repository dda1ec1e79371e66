"""Our MODEL under ComfyUI's own samplers, guiders, patches and memory manager."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from watching import assert_a_third_of_the_memory_is_enough, forward_sizes

FRAMES, SIDE = 3, 64


@pytest.fixture(scope="module")
def clip(pack: SimpleNamespace, models: SimpleNamespace) -> SimpleNamespace:
    """Conditioning and latent of a three-frame clip with a face and skeletons."""
    return make_clip(pack, models, FRAMES)


def make_clip(pack: SimpleNamespace, models: SimpleNamespace, num_frames: int) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(1)
    identity = torch.randn(512, generator=generator)
    face = pack.module("stableanimator_core.face.embed").FaceIdentity(identity, None, None, ())
    with torch.inference_mode():
        positive, negative, latent = pack.ArcFaceCLIPEncode.execute(
            models.clip_vision,
            models.vae,
            models.face_encoder,
            torch.rand(1, 80, 70, 3, generator=generator),
            SIDE,
            SIDE,
            num_frames,
            0,
            127,
            7.0,
            0.02,
            True,
            16,
            face=face,
        ).args
        poses = torch.rand(num_frames, SIDE, SIDE, 3, generator=generator)
        positive, negative = pack.ApplyPoseNet.execute(
            positive, negative, models.pose_net, poses, 1.0, 0.0, 1.0
        ).args
    return SimpleNamespace(positive=positive, negative=negative, latent=latent)


def sample(
    core_comfy, model, clip, *, steps=2, sampler="euler", scheduler="karras", seed=5, cfg=3.0
) -> torch.Tensor:
    with torch.inference_mode():
        result = core_comfy.KSampler().sample(
            model, seed, steps, cfg, sampler, scheduler, clip.positive, clip.negative, clip.latent
        )
    return result[0]["samples"]


def sampler_names() -> list[str]:
    """Core's samplers; dpm_adaptive chooses its own number of steps, hundreds on random weights."""
    return [
        *("euler", "euler_cfg_pp", "euler_ancestral", "heun", "heunpp2", "dpm_2", "lms", "dpm_fast"),
        *(
            "dpmpp_2s_ancestral",
            "dpmpp_sde",
            "dpmpp_2m",
            "dpmpp_2m_sde",
            "dpmpp_3m_sde",
            "ddpm",
            "lcm",
            "ipndm",
        ),
        *("deis", "res_multistep", "gradient_estimation", "er_sde", "ddim", "uni_pc"),
    ]


@pytest.mark.parametrize("name", sampler_names())
def test_core_samplers_work(name: str, core_comfy, models, clip):
    assert sample(core_comfy, models.model, clip, sampler=name).isfinite().all()


@pytest.mark.parametrize(
    "name", ["normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"]
)
def test_core_schedulers_work(name: str, core_comfy, models, clip):
    assert sample(core_comfy, models.model, clip, scheduler=name).isfinite().all()


def test_a_second_run_is_bit_equal_and_changes_no_input(core_comfy, models, clip):
    tokens = clip.positive[0][0].clone()
    first = sample(core_comfy, models.model, clip)
    assert torch.equal(sample(core_comfy, models.model, clip), first)
    assert torch.equal(clip.positive[0][0], tokens)
    assert not clip.latent["samples"].any()


def test_sampler_custom_advanced_gives_what_ksampler_gives(core_comfy, models, clip):
    from comfy_extras import nodes_custom_sampler as custom

    with torch.inference_mode():
        sigmas = custom.BasicScheduler.execute(models.model, "karras", 2, 1.0)[0]
        guider = custom.CFGGuider.execute(models.model, clip.positive, clip.negative, 3.0)[0]
        noise = custom.RandomNoise.execute(5)[0]
        euler = custom.KSamplerSelect.execute("euler")[0]
        result = custom.SamplerCustomAdvanced.execute(noise, guider, euler, sigmas, clip.latent)[0]
    assert torch.equal(result["samples"], sample(core_comfy, models.model, clip))


def test_both_guidance_halves_run_as_one_batch(core_comfy, models, clip, monkeypatch):
    sizes = forward_sizes(models, monkeypatch)
    sample(core_comfy, models.model, clip)
    assert sizes == [2 * FRAMES] * 2


def test_easycache_skips_steps(core_comfy, models, clip, monkeypatch):
    from comfy_extras.nodes_easycache import EasyCacheNode

    sizes = forward_sizes(models, monkeypatch)
    cached = EasyCacheNode.execute(models.model, 2.0, 0.0, 1.0, False)[0]
    assert sample(core_comfy, cached, clip, steps=8).isfinite().all()
    assert len(sizes) < 8


def test_lora_patches_reach_the_network_and_leave_it_again(core_comfy, models, clip):
    import comfy.sd

    plain = sample(core_comfy, models.model, clip)
    name = "down_blocks.0.attentions.0.proj_in"
    width = models.model.model.diffusion_model.get_submodule(name).weight.shape[0]
    lora = {
        f"diffusion_model.{name}.lora_up.weight": torch.ones(width, 1),
        f"diffusion_model.{name}.lora_down.weight": torch.full((1, width), 0.1),
    }
    patched, _ = comfy.sd.load_lora_for_models(models.model, None, lora, 1.0, 0)
    assert len(patched.patches) == 1
    assert not torch.equal(sample(core_comfy, patched, clip), plain)
    assert torch.equal(sample(core_comfy, models.model, clip), plain)


def test_a_third_of_the_memory_is_enough_and_changes_nothing(core_comfy, models, clip):
    assert_a_third_of_the_memory_is_enough(models.model, lambda model: sample(core_comfy, model, clip))


def test_torch_compile_model_gives_the_same_latents(core_comfy, models, clip, monkeypatch):
    """Core's node, with dynamo's own backend: inductor takes minutes on two cores (benchmarks/denoise.py runs it)."""
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda backend, **options: real(backend="eager", **options))
    compiled = TorchCompileModel.execute(models.model, "inductor")[0]
    expected = sample(core_comfy, models.model, clip)
    result = sample(core_comfy, compiled, clip)
    assert (result - expected).norm() / expected.norm() < 5e-3


def test_a_live_preview_can_be_made_of_every_step(core_comfy, models, clip):
    import latent_preview
    from comfy.cli_args import LatentPreviewMethod, args

    method, args.preview_method = args.preview_method, LatentPreviewMethod.Latent2RGB
    try:
        previewer = latent_preview.get_previewer("cpu", models.model.model.latent_format)
        image = previewer.decode_latent_to_preview_image("JPEG", sample(core_comfy, models.model, clip))[1]
    finally:
        args.preview_method = method
    assert image.size == (SIDE // 8, SIDE // 8)


def test_cancel_stops_within_one_window(core_comfy, pack, models, monkeypatch):
    import comfy.model_management as mm

    clip = make_clip(pack, models, 12)
    model = pack.AnimationWindows.execute(models.model, 4, 2).args[0]
    calls = []
    unet = models.model.model.diffusion_model
    forward = unet._forward

    def cancelling(x, *args, **options):
        calls.append(1)
        mm.interrupt_current_processing()
        return forward(x, *args, **options)

    monkeypatch.setattr(unet, "_forward", cancelling)
    with pytest.raises(mm.InterruptProcessingException):
        sample(core_comfy, model, clip)
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2", "bf16", "fp16"])
def test_a_weight_dtype_only_rounds_the_weights(dtype: str, core_comfy, pack, models, clip):
    """On the CPU core computes in float32, so storage in `dtype` must equal a float32 model with rounded weights."""
    names = ("unet.safetensors", "pose_net.safetensors", "face_encoder.safetensors", "SVD/")
    stored = pack.LoadAnimatorModels.execute(*names, dtype).args[0]
    rounded = pack.LoadAnimatorModels.execute(*names, "fp32").args[0]
    for name, parameter in stored.model.diffusion_model.named_parameters():
        rounded.model.diffusion_model.get_parameter(name).data.copy_(parameter.float())
    exact = sample(core_comfy, rounded, clip)
    assert (sample(core_comfy, stored, clip) - exact).norm() / exact.norm() < 5e-3
    assert not torch.equal(exact, sample(core_comfy, models.model, clip))


def test_comfyuis_own_attention_gives_the_same_latents(core_comfy, pack, models, clip, monkeypatch):
    """On a GPU the network uses the attention ComfyUI was started with; here it is forced on the CPU."""
    module = pack.module("nodes.model")
    expected = sample(core_comfy, models.model, clip)
    calls = []

    def counted(unet, *args, attention, **options):
        calls.append(attention)
        return denoise(unet, *args, attention=module.core_attention, **options)

    denoise = module.denoise
    monkeypatch.setattr(module, "denoise", counted)
    result = sample(core_comfy, models.model, clip)
    assert (
        result - expected
    ).norm() / expected.norm() < 5e-3  # random weights make much of float32's rounding
    assert calls == [None] * 2

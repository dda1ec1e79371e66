"""The official pipeline's goldens through the nodes: KSampler gives the same latents, our decode the same frames."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stableanimator_core.conformance.cases.pipeline import animator_of
from stableanimator_core.conformance.checks import differences
from stableanimator_core.conformance.golden import Golden, open_golden
from stableanimator_core.weights.files import save_weights

GOLDENS = Path(__file__).parents[1] / "goldens"
CLASS_NAMES = {
    "vae": {"_class_name": "AutoencoderKLTemporalDecoder"},
    "image_encoder": {"architectures": ["CLIPVisionModelWithProjection"]},
}


@pytest.fixture(scope="module", params=["pipeline_a", "pipeline_b", "pipeline_c"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return open_golden(GOLDENS, request.param)


@pytest.fixture(scope="module")
def loaded(golden: Golden, pack: SimpleNamespace) -> SimpleNamespace:
    """The golden's networks, written to files in the official layouts and read back by the loader node."""
    folder = pack.base / "models" / "stableanimator" / golden.name
    animator, side = animator_of(golden), golden.sidecar
    save_weights(
        folder_file(folder, "unet"), animator.unet.state_dict(), {"config": json.dumps(side["unet_config"])}
    )
    torch.save(animator.pose_net.state_dict(), folder_file(folder, "pose_net", ".pth"))
    torch.save(animator.face_encoder.state_dict(), folder_file(folder, "face_encoder", ".pth"))
    for name, network in (("vae", animator.vae), ("image_encoder", animator.image_encoder)):
        file = "diffusion_pytorch_model" if name == "vae" else "model"
        save_weights(folder_file(folder / "SVD" / name, file), network.state_dict())
        config = {**CLASS_NAMES[name], **side[f"{name}_config"]}
        (folder / "SVD" / name / "config.json").write_text(json.dumps(config))
    names = [
        f"{golden.name}/{name}" for name in ("unet.safetensors", "pose_net.pth", "face_encoder.pth", "SVD/")
    ]
    from comfy.cli_args import args

    args.fp32_text_enc = True  # core stores image encoders in float16, which alone costs 4e-4 here
    try:
        outputs = pack.LoadAnimatorModels.execute(*names, "default").args
    finally:
        args.fp32_text_enc = False
    return SimpleNamespace(
        **dict(zip(("model", "clip_vision", "vae", "pose_net", "face_encoder"), outputs, strict=True))
    )


def folder_file(folder: Path, name: str, ending: str = ".safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (name + ending)


@pytest.fixture(scope="module")
def sampled(golden: Golden, loaded: SimpleNamespace, pack: SimpleNamespace, core_comfy) -> torch.Tensor:
    """Latents from core's KSampler (euler, karras), with the golden's noise in place of the seed's."""
    import comfy.sample

    run = golden.sidecar["run"]
    face_module = pack.module("stableanimator_core.face.embed")
    face = face_module.FaceIdentity(golden["id_embedding"], None, None, ())
    with torch.inference_mode():
        positive, negative, latent = pack.ArcFaceCLIPEncode.execute(
            loaded.clip_vision,
            loaded.vae,
            loaded.face_encoder,
            golden["input_image"][None].float() / 255,
            run["width"],
            run["height"],
            run["num_frames"],
            run["generator_seed_cpu"],  # the golden's image noise is the first draw of this seed
            int(run["motion_bucket_id"]),
            float(run["fps_argument"]),
            run["noise_aug_strength"],
            True,
            run["tile_size"],
            face=face,
        ).args
        positive, negative = pack.ApplyPoseNet.execute(
            positive, negative, loaded.pose_net, golden["pose_images"].float() / 255, 1.0, 0.0, 1.0
        ).args
        model = pack.AnimationWindows.execute(loaded.model, run["tile_size"], run["tile_overlap"]).args[0]
        guidance = (run["min_guidance_scale"], run["max_guidance_scale"])
        if guidance[0] != guidance[1]:
            from comfy_extras.nodes_video_model import VideoLinearCFGGuidance

            model = VideoLinearCFGGuidance().patch(model, guidance[0])[0]
        noise = golden["latent_noise"][0][latent["batch_index"]]
        patch = pytest.MonkeyPatch()
        patch.setattr(comfy.sample, "prepare_noise", lambda *args, **kwargs: noise)
        try:
            steps = run["num_inference_steps"]
            result = core_comfy.KSampler().sample(
                model, 0, steps, guidance[1], "euler", "karras", positive, negative, latent
            )
        finally:
            patch.undo()
    return result[0]["samples"]


def test_ksampler_gives_the_official_latents(golden: Golden, sampled: torch.Tensor):
    expected = golden["latents_after_step"][-1][0] / 0.18215
    error = (sampled - expected).abs().max() / expected.abs().max()
    assert error < 1e-4


def test_our_decode_gives_the_official_frames(golden: Golden, sampled: torch.Tensor, loaded, pack):
    chunk = golden.sidecar["run"]["decode_chunk_size"]
    with torch.inference_mode():
        images = pack.VAEDecodeTiled.execute({"samples": sampled}, loaded.vae, chunk, 0, 0, 64).args[0]
    difference = differences((images * 255).round(), golden.expected("frames_uint8")).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 0.01

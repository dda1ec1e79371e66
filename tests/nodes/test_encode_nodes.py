"""ArcFace + CLIP Encode and Apply PoseNet: what they make of photo, face and skeletons, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from encoded import SIDE, adapted, encode, face_of, photo, posed, skeletons
from test_model import make_clip, sample


def test_the_negative_half_knows_neither_photo_nor_face_nor_skeleton(pack, models):
    clip = posed(pack, models, encode(pack, models))
    tokens, rest = clip.negative[0]
    assert not tokens.any()
    assert not rest["concat_latent_image"].any()
    assert "stableanimator_pose" not in rest
    assert clip.positive[0][0].any()
    assert "stableanimator_pose" in clip.positive[0][1]


def test_the_latent_is_empty_and_has_a_row_for_every_frame(pack, models):
    clip = encode(pack, models, num_frames=5, width=128)
    assert clip.latent["samples"].shape == (5, 4, 8, 16)
    assert not clip.latent["samples"].any()


@pytest.mark.parametrize(("window", "index"), [(2, [0, 1, 0, 1, 0]), (16, [0, 1, 2, 3, 4]), (0, None)])
def test_noise_window_sets_after_how_many_frames_the_samplers_noise_repeats(window, index, pack, models):
    assert encode(pack, models, num_frames=5, noise_window=window).latent.get("batch_index") == index


@pytest.mark.parametrize(
    "changes",
    [{"image": photo(9)}, {"seed": 1}, {"noise_augmentation": 0.5}, {"motion_bucket": 5}, {"fps": 24.0}]
    + [{"content_fusion": False}, {"face": None}],
    ids=lambda changes: next(iter(changes)),
)
def test_every_input_reaches_the_conditioning(changes, pack, models):
    def numbers(clip):
        tokens, rest = clip.positive[0]
        return torch.cat([tokens.flatten(), *(value.flatten() for value in rest.values())])

    assert not torch.equal(numbers(encode(pack, models)), numbers(encode(pack, models, **changes)))


def test_a_second_run_gives_the_same_bits_and_inputs_stay(pack, models):
    image = photo()
    first, second = encode(pack, models, image=image), encode(pack, models, image=image)
    assert torch.equal(image, photo())
    assert torch.equal(first.positive[0][0], second.positive[0][0])
    one, two = (clip.positive[0][1]["concat_latent_image"] for clip in (first, second))
    assert torch.equal(one, two)


def test_the_conditioning_is_that_of_the_core(pack, models):
    """The node and the façade of the core make the same tokens and image latents."""
    from stableanimator_core.demo_weights import UNET
    from stableanimator_core.pipeline import AnimationOptions, Animator, Draws
    from stableanimator_core.preprocess import to_uint8

    folder = pack.base / "models" / "stableanimator"
    files = (folder / f"{name}.safetensors" for name in ("unet", "pose_net", "face_encoder"))
    animator = Animator.load(*files, folder / "SVD")
    assert animator.unet.config.cross_attention_dim == UNET["cross_attention_dim"]
    draws = Draws.from_seed(0, SIDE, SIDE, 3)  # image noise is the first draw of a seed, in both
    with torch.no_grad():
        face = face_of(pack).identity
        core = animator.condition(to_uint8(photo())[0], face, draws.image_noise, AnimationOptions())
    tokens, rest = encode(pack, models).positive[0]
    torch.testing.assert_close(rest["concat_latent_image"], core.image_latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens, core.tokens, rtol=1e-2, atol=1e-2)  # core keeps CLIP in half precision


def test_pose_features_are_made_once_and_wait_on_the_cpu(core_comfy, pack, models, monkeypatch):
    calls = []
    forward = models.pose_net.module.forward
    monkeypatch.setattr(models.pose_net.module, "forward", lambda x: calls.append(len(x)) or forward(x))
    clip = posed(pack, models, encode(pack, models, num_frames=20))
    sample(core_comfy, pack.AnimationWindows.execute(models.model, 8, 2).args[0], clip)
    assert calls == [16, 4]
    assert clip.positive[0][1]["stableanimator_pose"].features.device.type == "cpu"


# What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"width": 100},
            "size: 100 x 64 is not a multiple of 64 on both sides. Use 128 x 64, the nearest that is",
        ),
        ({"height": 0}, "Use 64 x 64"),
        ({"num_frames": 0}, "num_frames: is 0"),
        ({"image": torch.rand(2, 64, 64, 3)}, "image: is a batch of 2 pictures. Give one reference photo"),
        ({"image": torch.full((1, 64, 64, 3), float("nan"))}, "image: has NaN or infinite pixels in frame 0"),
        ({"image": torch.rand(0, 64, 64, 3)}, "image: has the shape"),
        ({"image": torch.rand(1, 1, 64, 3)}, "image: is 64 x 1 pixels"),
        ({"face": "someone"}, "face: is a str. Connect the output of Face Embed"),
        ({"face_encoder": object()}, "face_encoder: is a object. Connect the output of Load Animator Models"),
    ],
)
def test_encode_names_what_cannot_be_used_and_what_to_do(changes, words, pack, models):
    with pytest.raises(ValueError) as caught:
        encode(pack, models, **changes)
    assert str(caught.value).startswith("ArcFace + CLIP Encode - ")
    assert words in str(caught.value)


def test_encode_refuses_the_vae_of_another_family(pack, models):
    import comfy.sd

    other = comfy.sd.VAE(sd={"pixel_space_vae": torch.zeros(1)})
    with pytest.raises(ValueError, match="ArcFace . CLIP Encode - vae: is another family's"):
        encode(pack, models, vae=other)


def test_encode_refuses_an_image_encoder_of_another_width(pack, models):
    from stableanimator_core.demo_weights import IMAGE_ENCODER
    from stableanimator_core.models.image_encoder import build_image_encoder

    encoder = build_image_encoder({**IMAGE_ENCODER, "projection_dim": 96})
    other = pack.module("nodes.managed").clip_vision_of(encoder)
    with pytest.raises(ValueError, match="clip_vision: gives 96 numbers, the model reads 128"):
        encode(pack, models, clip_vision=other)


@pytest.mark.parametrize(
    ("poses", "words"),
    [
        (skeletons(0), "poses: has the shape"),
        (skeletons(3, 128), "pose images: are 128 x 64, the output is 64 x 64"),
        (torch.full((3, SIDE, SIDE, 3), float("inf")), "poses: has NaN or infinite pixels in frame 0"),
        (torch.rand(3, SIDE, SIDE), "poses: has the shape"),
    ],
)
def test_apply_pose_net_names_what_cannot_be_used(poses, words, pack, models):
    with pytest.raises(ValueError) as caught:
        posed(pack, models, encode(pack, models), poses=poses)
    assert str(caught.value).startswith("Apply PoseNet - ")
    assert words in str(caught.value)


@pytest.mark.parametrize("conditioning", [[], [[torch.zeros(1, 77, 768), {}]]], ids=["empty", "text"])
def test_apply_pose_net_refuses_conditioning_of_other_models(conditioning, pack, models):
    clip = encode(pack, models)
    clip.positive = conditioning
    with pytest.raises(ValueError, match="Apply PoseNet - positive: was not made for StableAnimator"):
        posed(pack, models, clip)


TEXT = [[torch.zeros(1, 77, 768), {}]]


@pytest.mark.parametrize("half", ["positive", "negative"])
def test_the_model_refuses_text_conditioning_by_the_name_of_the_half(half, core_comfy, pack, models):
    clip = make_clip(pack, models, 2)
    setattr(clip, half, TEXT)
    with pytest.raises(ValueError, match=f"{half} conditioning: was not made for StableAnimator. Connect"):
        sample(core_comfy, models.model, clip)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_frame_counts_that_disagree_are_refused_with_both_numbers(frames, core_comfy, pack, models):
    clip = posed(pack, models, encode(pack, models), poses=skeletons(frames))
    with pytest.raises(ValueError, match=f"pose images: are {frames} frames .*the latent has 3 frames"):
        sample(core_comfy, models.model, clip)


def test_frame_counts_that_disagree_are_refused_under_windows_too(core_comfy, pack, models):
    clip = posed(pack, models, encode(pack, models, num_frames=9), poses=skeletons(4))
    with pytest.raises(ValueError, match="are 4 frames .*the latent has 9 frames"):
        sample(core_comfy, pack.AnimationWindows.execute(models.model, 4, 2).args[0], clip)


def test_conditioning_made_for_another_size_is_refused_with_both(core_comfy, pack, models):
    clip = encode(pack, models)
    clip.latent = encode(pack, models, width=128).latent
    with pytest.raises(ValueError, match="latent: is 128 x 64, the conditioning was made for 64 x 64"):
        sample(core_comfy, models.model, clip)


def test_latents_of_another_family_are_refused(core_comfy, pack, models):
    clip = encode(pack, models)
    clip.latent = {"samples": torch.ones(3, 16, 8, 8)}
    with pytest.raises(ValueError, match="latent: has the shape"):
        sample(core_comfy, models.model, clip)


def test_an_unknown_alignment_is_refused(pack, models):
    with pytest.raises(
        ValueError, match="ID Adapter U-Net - alignment: is 'wild'. Choose one of full, mean, none"
    ):
        adapted(pack, models.model, 1.0, "wild", 0.0, 1.0)


def test_a_refused_run_leaves_the_model_usable(core_comfy, pack, models):
    clip = make_clip(pack, models, 2)
    before = sample(core_comfy, models.model, clip)
    with pytest.raises(ValueError):
        sample(
            core_comfy,
            models.model,
            SimpleNamespace(positive=TEXT, negative=clip.negative, latent=clip.latent),
        )
    assert torch.equal(sample(core_comfy, models.model, clip), before)

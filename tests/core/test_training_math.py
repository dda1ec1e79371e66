"""Noise levels, masked loss, condition dropout, frame sampling, and which parameters train."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stableanimator_core.conformance.run import run_case
from stableanimator_core.errors import InputError
from stableanimator_core.models.face_encoder import FaceEncoder
from stableanimator_core.models.id_adapter import IDAdapter
from stableanimator_core.models.pose_net import PoseNet
from stableanimator_core.models.unet import build_unet, config_from
from stableanimator_core.training.dropout import drop_conditions, kept_conditions
from stableanimator_core.training.frames import clip_frames, clip_length, draw_clip
from stableanimator_core.training.loss import masked_loss, masks_on_latents, noised
from stableanimator_core.training.noise_levels import sigma_of, stratified
from stableanimator_core.training.trainable import choose_trainable, start_adapter_from_image_attention

TESTS = Path(__file__).parents[1]
TINY_UNET = {
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "num_attention_heads": (2, 4),
}


@pytest.fixture
def tiny_unet():
    torch.manual_seed(0)
    return build_unet(TINY_UNET)


@pytest.fixture
def step():
    """One step's tensors: videos of 3 frames, one face in a corner of each."""
    generator = torch.Generator().manual_seed(0)
    latents, noise, v = torch.randn(3, 2, 3, 4, 8, 6, generator=generator)
    masks = torch.zeros(2, 3, 1, 64, 48)
    masks[..., :24, :16] = 1
    sigma = torch.tensor([0.3, 20.0])
    return {
        "v_prediction": v,
        "noisy_latents": noised(latents, noise, sigma),
        "latents": latents,
        "sigma": sigma,
        "face_masks": masks,
    }, noise


@pytest.mark.parametrize("name", ["train_loss", "train_frame_sampling"])
def test_the_official_numbers_are_met(name):
    rows = run_case(TESTS / "goldens", name)
    assert len(rows) >= 14
    assert [row for row in rows if not row.ok] == []


def test_noise_levels_fall_from_700_to_a_five_hundredth():
    sigmas = sigma_of(torch.linspace(0, 1, 1001))
    assert sigmas[[0, -1]].tolist() == pytest.approx([700, 0.002], rel=1e-6)
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize(
    ("u", "sigma"), [(0.1, 5.85), (0.25, 2.03), (0.5, 0.708), (0.75, 0.248), (0.9, 0.087)]
)
def test_noise_levels_are_where_the_published_schedule_has_them(u, sigma):
    assert sigma_of(torch.tensor(u)).item() == pytest.approx(sigma, rel=0.006)


def test_each_video_of_a_batch_draws_from_its_own_stratum():
    draws = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    strata = (stratified(draws) * 4).floor()
    assert torch.equal(strata, torch.arange(4.0).expand(50, 4))


def test_loss_is_the_v_error_with_face_pixels_counted_twice(step):
    tensors, noise = step
    arrays = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    sigma = arrays["sigma"][:, None, None, None, None]
    v = (noise.double().numpy() - sigma * arrays["latents"]) / np.sqrt(sigma**2 + 1)
    error = (arrays["v_prediction"] - v) ** 2
    faces = np.zeros_like(error)
    faces[..., :3, :2] = 1
    assert masked_loss(**tensors).item() == pytest.approx((error * (1 + faces)).mean(), rel=1e-5)


def test_the_loss_of_the_true_v_is_nothing(step):
    tensors, noise = step
    sigma = tensors["sigma"].view(-1, 1, 1, 1, 1)
    tensors["v_prediction"] = (noise - sigma * tensors["latents"]) / (sigma**2 + 1) ** 0.5
    assert masked_loss(**tensors).item() < 1e-9


def test_half_precision_predictions_are_scored_in_float32(step):
    tensors, _ = step
    tensors["v_prediction"] = tensors["v_prediction"].bfloat16()
    loss = masked_loss(**tensors)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, masked_loss(**{**tensors, "v_prediction": tensors["v_prediction"].float()}))


def test_masks_keep_their_values_when_made_small():
    masks = torch.rand(2, 3, 1, 64, 48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(masks_on_latents(masks, 8, 6), masks[..., ::8, ::8])


def test_a_tenth_of_the_videos_loses_only_the_token_a_tenth_both_a_tenth_only_the_image():
    draws = (torch.arange(1000) + 0.5) / 1000
    keep_token, keep_image = kept_conditions(draws)
    counts = [
        (keep_token == token) & (keep_image == image) for token, image in ((0, 1), (0, 0), (1, 0), (1, 1))
    ]
    assert [int(count.sum()) for count in counts] == [100, 100, 100, 700]


def test_dropout_zeroes_whole_conditions_and_leaves_its_inputs_alone():
    tokens, latents = torch.ones(4, 1, 32), torch.ones(4, 4, 8, 6)
    draws = torch.tensor([0.05, 0.15, 0.25, 0.35])
    dropped_tokens, dropped_latents = drop_conditions(tokens, latents, draws)
    assert (
        dropped_tokens.amax(dim=(1, 2)).tolist() == dropped_tokens.amin(dim=(1, 2)).tolist() == [0, 0, 1, 1]
    )
    assert dropped_latents.amax(dim=(1, 2, 3)).tolist() == [1, 0, 0, 1]
    assert tokens.min() == latents.min() == 1


def test_nothing_is_dropped_at_probability_zero():
    keep_token, keep_image = kept_conditions(torch.tensor([0.0, 0.5]), 0.0)
    assert keep_token.all() and keep_image.all()


@pytest.mark.parametrize("probability", [-0.1, 0.4])
def test_an_impossible_dropout_probability_is_refused(probability):
    with pytest.raises(InputError, match="dropout probability"):
        kept_conditions(torch.zeros(1), probability)


@pytest.mark.parametrize("length", [17, 18, 31, 61, 62, 300])
def test_the_reference_is_a_frame_of_the_video_outside_the_clip(length):
    generator = torch.Generator().manual_seed(length)
    for _ in range(50):
        clip = draw_clip(length, generator)
        assert len(set(clip.frames)) == 16
        assert max(clip.frames) < length and 0 <= clip.reference < length
        assert clip.reference not in clip.frames


def test_every_start_and_every_free_frame_is_drawn():
    generator = torch.Generator().manual_seed(0)
    clips = [draw_clip(12, generator, num_frames=4, stride=3) for _ in range(400)]
    assert {clip.frames for clip in clips} == {(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)}
    first = {clip.reference for clip in clips if clip.frames[0] == 0}
    assert first == {1, 2, 4, 5, 7, 8, 10, 11}


def test_equal_generators_draw_equal_clips():
    one, other = (
        [draw_clip(200, g) for _ in range(5)] for g in (torch.Generator().manual_seed(3) for _ in "ab")
    )
    assert one == other and len(set(one)) == 5


@pytest.mark.parametrize("length", [0, 1, 16])
def test_a_video_without_a_frame_to_spare_is_refused(length):
    with pytest.raises(InputError, match=f"has {length} frames"):
        draw_clip(length, torch.Generator())


def test_a_second_clip_would_never_free_a_frame():
    """Why the official fallback is left out: it looks for a reference outside a clip of stride 2."""
    for length in range(1, 17):
        assert clip_length(length, stride=2) == length
        assert set(clip_frames(length, 0, stride=2)) == set(range(length))


def test_the_published_networks_train_the_counted_parameters():
    keys = json.loads(gzip.decompress((TESTS / "keys" / "unet.json.gz").read_bytes()))
    with torch.device("meta"):
        unet = build_unet(config_from({key: torch.empty(shape) for key, (shape, _) in keys.items()}))
        others = PoseNet(), FaceEncoder()
    choose_trainable(unet, *others)
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in unet.parameters()) == 1_550_182_122
    assert (len(trained), sum(parameter.numel() for parameter in trained)) == (944, 795_994_256)
    counts = [sum(p.numel() for p in other.parameters() if p.requires_grad) for other in others]
    assert counts == [205_557, 57_183_232]


def test_residual_blocks_first_and_last_convolutions_and_embeddings_stay(tiny_unet):
    choose_trainable(tiny_unet.requires_grad_(False), PoseNet(32), torch.nn.Linear(1, 1))
    trained = {name for name, parameter in tiny_unet.named_parameters() if parameter.requires_grad}
    frozen = dict(tiny_unet.named_parameters()).keys() - trained
    kinds = {name.split(".")[2] if "_blocks." in name else name.split(".")[0] for name in frozen}
    assert kinds == {
        *("resnets", "downsamplers", "upsamplers", "mid_block"),
        *("conv_in", "conv_out", "conv_norm_out", "time_embedding", "add_embedding"),
    }
    assert all(".attentions." in name for name in trained)
    assert any("temporal_transformer_blocks" in name for name in trained)
    assert any("id_to_k" in name for name in trained)


def test_the_adapter_starts_as_a_copy_of_the_image_attention(tiny_unet):
    start_adapter_from_image_attention(tiny_unet)
    layers = [m for m in tiny_unet.modules() if isinstance(getattr(m, "processor", None), IDAdapter)]
    assert len(layers) == 4  # one in the down block, one in the middle, two in the up block
    for layer in layers:
        assert torch.equal(layer.processor.id_to_k.weight, layer.to_k.weight)
        assert torch.equal(layer.processor.id_to_v.weight, layer.to_v.weight)
        layer.processor.id_to_k.weight.data.zero_()
        assert layer.to_k.weight.any()
        assert layer.processor.id_to_k.weight.requires_grad


def test_a_network_without_the_adapter_is_refused():
    with pytest.raises(ValueError, match="no ID adapter"):
        start_adapter_from_image_attention(torch.nn.Linear(1, 1))

"""One training step: the official recipe around the network, and gradients through our own blocks."""

import pytest
import torch
from network_models import TINY, tiny_unet

from stableanimator_core.models.face_encoder import FaceEncoder
from stableanimator_core.models.pose_net import PoseNet
from stableanimator_core.models.unet import set_plain
from stableanimator_core.training import step as steps
from stableanimator_core.training.loss import masked_loss, noised
from stableanimator_core.training.settings import Training
from stableanimator_core.training.step import TrainedNetworks, conditions_of
from stableanimator_core.training.trainable import start_adapter_from_image_attention

WIDTH = 64
B, F, SIDE = 4, 3, 8


@pytest.fixture
def networks():
    torch.manual_seed(0)
    unet = tiny_unet()
    face_encoder = FaceEncoder(
        TINY["cross_attention_dim"], 512, TINY["cross_attention_dim"], depth=1, heads=1
    )
    pose_net = PoseNet(32)
    torch.nn.init.normal_(pose_net.final_proj.weight, std=0.1)
    torch.nn.init.normal_(face_encoder.fusion_model.proj_out.weight, std=0.1)
    return TrainedNetworks(unet, pose_net, face_encoder, Training()).train()


def batch(seed=0, count=B):
    g = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(count, F, 4, SIDE, SIDE, generator=g),
        "image_latents": torch.randn(count, 4, SIDE, SIDE, generator=g),
        "image_embedding": torch.randn(count, 1, TINY["cross_attention_dim"], generator=g),
        "identity": torch.randn(count, 512, generator=g),
        "poses": torch.rand(count, F, 3, SIDE * 8, SIDE * 8, generator=g) * 2 - 1,
        "face_masks": (torch.rand(count, F, 1, SIDE * 8, SIDE * 8, generator=g) > 0.5).float(),
        "noise": torch.randn(count, F, 4, SIDE, SIDE, generator=g),
        "sigma": torch.tensor([0.05, 0.7, 3.0, 80.0])[:count],
        "drop": torch.tensor([0.05, 0.15, 0.25, 0.5])[:count],
    }


def test_the_network_is_given_what_the_official_step_gives_it(networks, monkeypatch):
    given = {}

    def spy(unet, sample, timestep, tokens, added_time_ids, *, pose_features):
        given.update(locals())
        return torch.full_like(sample[:, :, :4], 0.3)

    monkeypatch.setattr(steps, "denoise", spy)
    b = batch()
    loss = networks(b)
    noisy = noised(b["latents"], b["noise"], b["sigma"])
    scaled = noisy / (b["sigma"].view(-1, 1, 1, 1, 1) ** 2 + 1).sqrt()
    torch.testing.assert_close(given["sample"][:, :, :4], scaled)
    torch.testing.assert_close(given["timestep"], b["sigma"].log() / 4)
    assert given["added_time_ids"].tolist() == [pytest.approx([6, 127, 0.02])] * B
    image_latents = given["sample"][:, :, 4:]
    assert torch.equal(image_latents[:, 0], image_latents[:, -1])
    kept = [bool(image_latents[i].any()) for i in range(B)]
    tokens_kept = [bool(given["tokens"][i, :1].any()) for i in range(B)]
    assert kept == [True, False, False, True]  # draws below q, 2q, 3q, above
    assert tokens_kept == [False, False, True, True]
    faces = networks.face_encoder(b["identity"], b["image_embedding"])  # of the token as it was
    torch.testing.assert_close(given["tokens"][:, 1:], faces)
    torch.testing.assert_close(given["pose_features"], networks.pose_net(b["poses"]))
    prediction = torch.full_like(noisy, 0.3)
    torch.testing.assert_close(
        loss, masked_loss(prediction, noisy, b["latents"], b["sigma"], b["face_masks"])
    )


def test_face_pixels_count_twice(networks):
    b = batch(count=1)
    without = networks({**b, "face_masks": torch.zeros_like(b["face_masks"])})
    everywhere = networks({**b, "face_masks": torch.ones_like(b["face_masks"])})
    torch.testing.assert_close(everywhere, 2 * without)


def test_cached_posteriors_are_sampled_and_only_the_target_is_scaled():
    sample = {
        "target_mean": torch.full((1, 2, 4, 1, 1), 2.0),
        "target_std": torch.full((1, 2, 4, 1, 1), 3.0),
        "reference_mean": torch.full((1, 4, 1, 1), 5.0),
        "reference_std": torch.full((1, 4, 1, 1), 7.0),
        "posterior_noise": torch.full((1, 2, 4, 1, 1), 0.5),
        "reference_posterior_noise": torch.full((1, 4, 1, 1), -1.0),
        "image_embedding": torch.ones(1, 6),
        "identity": torch.ones(1, 512),
        "poses": torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1, 1).expand(1, 2, 1, 1, 3),
        "face_masks": torch.ones(1, 2, 1, 1, 1, dtype=torch.float16),
        "noise": torch.zeros(1, 2, 4, 1, 1),
        "sigma": torch.tensor([0.7071]),
        "drop": torch.tensor([0.5]),
    }
    got = conditions_of(sample, None, torch.bfloat16)
    assert got["latents"].unique().tolist() == [pytest.approx(3.5 * 0.18215)]
    assert got["image_latents"].unique().tolist() == [-2.0]
    assert got["poses"][0, :, 0, 0, 0].tolist() == [-1, 1]
    assert got["sigma"].tolist() == [float(torch.tensor(0.7071).bfloat16())]


def gradients(networks, b):
    networks.zero_grad()
    networks(b).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in networks.named_parameters()
    }


def assert_same(got, expected, rtol):
    assert got.keys() == expected.keys()
    for name in expected:
        largest = expected[name].abs().max().clamp_min(1e-6)
        assert (got[name] - expected[name]).abs().max() <= rtol * largest, name


@pytest.mark.parametrize("fresh", [False, True])
def test_our_blocks_have_the_gradients_of_diffusers_blocks(networks, fresh):
    """Also at the start of training, where face tokens are zeros and the face branch has no spread."""
    if fresh:
        start_adapter_from_image_attention(networks.unet)
        torch.nn.init.zeros_(networks.face_encoder.fusion_model.proj_out.weight)
        networks.pose_net.reset_parameters()
    networks.double()
    b = {name: t.double() for name, t in batch().items()}
    ours = gradients(networks, b)
    set_plain(networks.unet, True)
    plain = gradients(networks, b)
    assert_same(ours, plain, 1e-4)  # blends and the adapter's statistics are float32 whatever the rest is
    assert sum(bool(g.any()) for g in plain.values()) > 100


def test_checkpointing_changes_no_gradient_and_recomputes_spatial_and_temporal_blocks(networks):
    b = batch(count=2)
    expected = gradients(networks, b)
    calls = []
    for name, module in networks.unet.named_modules():
        if name.endswith(("transformer_blocks.0", "resnets.0")):
            module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    gradients(networks, b)
    once = len(calls)
    calls.clear()
    networks.unet.enable_gradient_checkpointing()
    got = gradients(networks, b)
    assert_same(got, expected, 1e-6)
    temporal = [name for name in calls if ".temporal_transformer_blocks." in name]
    spatial = [name for name in calls if ".transformer_blocks." in name]
    resnets = [name for name in calls if name.endswith("resnets.0")]
    assert len(calls) == 2 * once and temporal and spatial and resnets


def test_a_step_in_bfloat16_comes_near_the_float32_one(networks):
    b = batch(count=2)
    exact = networks(b).detach()
    with torch.autocast("cpu", torch.bfloat16):
        loss = networks(b)
        loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), exact, rtol=0.05, atol=0)
    assert all(torch.isfinite(p.grad).all() for p in networks.parameters() if p.grad is not None)

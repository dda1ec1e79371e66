"""Animate Anyone's training, from its loss to whole runs of both stages."""

import json

import numpy as np
import pytest
import torch
import training_anyone
import training_data
from PIL import Image
from safetensors.torch import load_file

from stableanimator_core.animate_anyone.pipeline import AnyoneOptions
from stableanimator_core.demo_weights import VAE
from stableanimator_core.models.vae import build_image_vae
from stableanimator_core.training import anyone_step as steps
from stableanimator_core.training.anyone_loss import (
    loss_weight,
    noised,
    offset_noise,
    velocity,
    weighted_loss,
)
from stableanimator_core.training.anyone_networks import build_networks
from stableanimator_core.training.trainer import Trainer, train
from stableanimator_core.weights.animate_anyone import load_animate_anyone, load_denoising_unet
from stableanimator_core.weights.files import save_weights

STAGE_1 = ("denoising_unet", "reference_unet", "pose_guider")
STAGE_2 = (*STAGE_1, "motion_module")


@pytest.fixture(autouse=True)
def accelerate_as_it_was():
    yield
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return training_data.write_networks(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training_data.write_data(tmp_path_factory.mktemp("data"), (6, 7, 5))


@pytest.fixture(scope="module")
def first(root, weights, tmp_path_factory):
    """Both stages, run once: the checkpoint of stage 1 and the settings it was made with."""
    output = tmp_path_factory.mktemp("runs") / "one"
    settings = training_anyone.settings(root, weights, output, optimizer={"learning_rate": 1e-2})
    return train(settings).checkpoint, settings


@pytest.fixture(scope="module")
def second(root, weights, first, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "two"
    start = {"start": str(first[0].parent)}
    settings = training_anyone.settings(root, weights, output, stage=2, anyone=start)
    return train(settings).checkpoint, settings


# loss


def schedule():
    """Cumulative alphas of the training schedule without signal at the end, in float64."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    roots = np.sqrt(np.cumprod(1 - betas))
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    return roots**2


def test_the_loss_is_the_min_snr_weighted_error_of_v(root, weights, tmp_path):
    random = np.random.RandomState(3)
    latents, noise, prediction = random.randn(3, 4, 2, 4, 3, 5)
    times, draws = np.array([0, 250, 730, 999]), random.randn(4, 4)
    alpha = schedule()[times]
    offset = noise + 0.05 * draws[:, None, :, None, None]
    a, s = (np.sqrt(x).reshape(4, 1, 1, 1, 1) for x in (alpha, 1 - alpha))
    with np.errstate(divide="ignore"):
        snr = alpha / (1 - alpha)
    weight = np.minimum(snr + 1, 5.0) / (snr + 1)
    error = ((prediction - (a * offset - s * latents)) ** 2).mean(axis=(1, 2, 3, 4))
    expected = (weight * error).mean()

    settings = training_anyone.settings(root, weights, tmp_path)
    alphas = build_networks(settings).alphas[torch.from_numpy(times)]
    assert np.allclose(alphas, alpha, atol=1e-6)
    tensors = [torch.from_numpy(x).float() for x in (latents, noise, prediction, draws)]
    z, n, v, d = tensors
    n = offset_noise(n, d, 0.05)
    assert np.allclose(noised(z, n, alphas), a * latents + s * offset, atol=1e-5)
    assert np.allclose(loss_weight(alphas, 5.0), weight, atol=1e-6)
    loss = weighted_loss(v, velocity(z, n, alphas), alphas, 5.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert weighted_loss(v, z, alphas, 0.0).item() == pytest.approx(
        ((prediction - latents) ** 2).mean(), rel=1e-5
    )


def batch_of(dropped):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    return {
        "latents": draw(2, 3, 4, 8, 8),
        "reference_latents": draw(2, 4, 8, 8),
        "image_embedding": draw(2, 1, training_anyone.UNET["cross_attention_dim"]),
        "poses": draw(2, 3, 3, 64, 64).clamp(0, 1),
        "noise": draw(2, 3, 4, 8, 8),
        "noise_offset": draw(2, 4),
        "timestep": torch.tensor([10, 999]),
        "dropped": torch.tensor([dropped, dropped]),
    }


def test_a_step_puts_these_together(root, weights, tmp_path, monkeypatch):
    networks = build_networks(training_anyone.settings(root, weights, tmp_path))
    seen = {}

    def denoise(unet, sample, timestep, tokens, *, pose_features, reference):
        seen.update(sample=sample, timestep=timestep, tokens=tokens, reference=reference, poses=pose_features)
        return torch.zeros_like(sample)

    monkeypatch.setattr(steps, "denoise", denoise)
    batch = batch_of(dropped=False)
    loss = networks(batch)
    alpha = schedule()[[10, 999]].reshape(2, 1, 1, 1, 1)
    noise = (batch["noise"] + 0.05 * batch["noise_offset"][:, None, :, None, None]).numpy()
    latents = batch["latents"].numpy()
    assert np.allclose(seen["sample"], np.sqrt(alpha) * latents + np.sqrt(1 - alpha) * noise, atol=1e-4)
    target = np.sqrt(alpha) * noise - np.sqrt(1 - alpha) * latents
    weight = np.minimum(1, 5 * (1 - alpha[:, 0, 0, 0, 0]))
    assert loss.item() == pytest.approx(((target**2).mean((1, 2, 3, 4)) * weight).mean(), rel=1e-4)
    assert torch.equal(seen["tokens"], batch["image_embedding"])
    assert torch.equal(seen["poses"], networks.pose_guider(batch["poses"]))
    assert len(seen["reference"].features) == 4

    networks(batch_of(dropped=True))
    assert seen["reference"] is None
    assert torch.equal(seen["tokens"], networks.empty_token.expand_as(seen["tokens"]))
    assert networks.empty_token.abs().max() > 0  # CLIP of an empty picture


def test_dropped_conditions_may_be_the_zeros_of_sampling(root, weights, tmp_path):
    settings = training_anyone.settings(root, weights, tmp_path, anyone={"dropped_token": "zeros"})
    networks = build_networks(settings)
    batch = batch_of(dropped=True)
    before = networks(batch)
    batch["image_embedding"] = batch["image_embedding"] + 1
    batch["reference_latents"] = batch["reference_latents"] + 1
    assert networks(batch).item() == before.item()
    assert not networks.empty_token.any()


# runs


def moved(before, after):
    """Names of the tensors that differ."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def start_of(settings):
    networks = build_networks(settings)
    return {name: p.detach().clone() for name, p in networks.named_parameters()}, networks


def state_of(checkpoint, files):
    """The parameters of a checkpoint by their names in `AnyoneNetworks`."""
    state = {}
    for name in files:
        part = "denoising_unet" if name == "motion_module" else name
        loaded = load_file(checkpoint / f"{name}.safetensors")
        state |= {f"{part}.{key}": tensor for key, tensor in loaded.items()}
    return state


def takes_part(name):
    """Not so: what asks for the one image token, and what follows the reference's last stored tensor."""
    for_one_token = any(part in name for part in (".attn2.to_q.", ".attn2.to_k.", ".norm2."))
    return not for_one_token or "resnets" in name


def test_stage_1_moves_all_but_the_references_last_level(first):
    checkpoint, settings = first
    before, _ = start_of(settings)
    frozen = {name for name in before if name.startswith("reference_unet.up_blocks.1.")}
    assert len(frozen) > 10
    differ = moved(before, state_of(checkpoint, STAGE_1))
    assert not differ & frozen
    still = {name for name in before if name not in differ and name not in frozen}
    assert not {name for name in still if takes_part(name)}


def test_stage_1_can_train_the_references_last_level_too(root, weights, tmp_path):
    settings = training_anyone.settings(root, weights, tmp_path, training={"trainable": "all"})
    assert all(p.requires_grad for p in build_networks(settings).parameters())


def test_stage_2_moves_the_motion_modules_and_nothing_else(second):
    checkpoint, settings = second
    before, networks = start_of(settings)
    learning = {name for name, p in networks.named_parameters() if p.requires_grad}
    assert learning == {name for name in before if ".motion_modules." in name}
    assert moved(before, state_of(checkpoint, STAGE_2)) == learning


def test_stage_2_starts_where_stage_1_ended(first, second):
    one, two = state_of(first[0], STAGE_1), state_of(second[0], STAGE_1)
    assert one.keys() == two.keys() and not moved(one, two)


def test_a_checkpoint_animates(first, second, weights, tmp_path):
    checkpoint, _ = second
    vae = image_vae_file(tmp_path)
    system = load_animate_anyone(
        checkpoint / "denoising_unet.safetensors",
        checkpoint / "reference_unet.safetensors",
        checkpoint / "pose_guider.safetensors",
        vae,
        weights / "SVD",
        motion_module=checkpoint / "motion_module.safetensors",
    )
    image = np.zeros((64, 64, 3), np.uint8)
    poses = np.zeros((3, 64, 64, 3), np.uint8)
    result = system.animate(
        image, poses, height=64, width=64, options=AnyoneOptions(num_steps=2, window_size=3)
    )
    assert result.frames.shape == (3, 64, 64, 3)
    groups = {m.num_groups for m in system.denoising_unet.modules() if isinstance(m, torch.nn.GroupNorm)}
    assert groups == {8}


def image_vae_file(folder):
    """Stable Diffusion's VAE, small and random."""
    config = {**VAE, "up_block_types": ["UpDecoderBlock2D"] * len(VAE["block_out_channels"])}
    config.pop("_class_name", None)
    path = folder / "vae.safetensors"
    save_weights(path, build_image_vae(config).state_dict(), {"config": json.dumps(config)})
    return path


def test_the_official_files_load_with_their_groups(root, weights, tmp_path):
    changes = {"checkpoints": {"pth": True}, "training": {"steps": 1}}
    checkpoint = train(training_anyone.settings(root, weights, tmp_path / "run", **changes)).checkpoint
    unet = load_denoising_unet(checkpoint / "denoising_unet.pth")
    assert {m.num_groups for m in unet.modules() if isinstance(m, torch.nn.GroupNorm)} == {8}
    assert unet.config.attention_head_dim == 2
    named = {f"{part}.pth" for part in STAGE_1}
    assert named == {path.name for path in checkpoint.glob("*.pth")}


@pytest.mark.parametrize("stage", [1, 2])
def test_validation_draws_held_out_clips(root, weights, tmp_path, stage):
    validation = {"every": 1, "clips": ["rec/00002"], "num_frames": 3, "num_steps": 2}
    training = {"steps": 1}
    train(training_anyone.settings(root, weights, tmp_path, stage, validation=validation, training=training))
    with Image.open(tmp_path / "validation" / "rec-00002-000001.gif") as film:
        assert film.size == (3 * 64, 64) and film.n_frames == 3


def test_a_run_cut_short_goes_on_bit_for_bit(root, weights, tmp_path, monkeypatch):
    def configured(output):
        options = {"ema": {"enabled": True}, "training": {"steps": 4}, "optimizer": {"learning_rate": 1e-2}}
        return training_anyone.settings(root, weights, output, stage=2, **options)

    whole = train(configured(tmp_path / "whole")).checkpoint
    real = Trainer._train_step

    def step(self, batches):
        loss = real(self, batches)
        self.stopping = self.step == 1
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", step)
        assert train(configured(tmp_path / "cut")).step == 2
    again = train(configured(tmp_path / "cut"), "latest")
    assert again.step == 4
    assert not moved(state_of(whole, STAGE_2), state_of(again.checkpoint, STAGE_2))
    assert not moved(load_file(whole / "ema.safetensors"), load_file(again.checkpoint / "ema.safetensors"))

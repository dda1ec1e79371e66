"""What Animate Anyone's training starts from and sees: settings, networks from files, samples."""

import json
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
import training_anyone
import training_data
from PIL import Image

from stableanimator_core.animate_anyone.denoising_unet import build_denoising_unet, longest_window
from stableanimator_core.animate_anyone.pose_guider import PoseGuider, build_pose_guider
from stableanimator_core.animate_anyone.reference_net import build_reference_net
from stableanimator_core.errors import InputError
from stableanimator_core.training import cache as caches
from stableanimator_core.training.anyone_networks import build_networks, configs_of, split
from stableanimator_core.training.anyone_samples import (
    AnyoneFromCache,
    AnyoneFromFiles,
    AnyoneSamples,
    draw_cut,
    draw_pictures,
    draw_video,
    times_of,
)
from stableanimator_core.training.anyone_step import conditions_of
from stableanimator_core.training.config import parse_settings, read_settings
from stableanimator_core.training.frozen import Frozen
from stableanimator_core.training.order import Order, Request
from stableanimator_core.training.pictures import read_rgb
from stableanimator_core.training.videos import Report, find_videos
from stableanimator_core.weights.files import save_weights

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return training_data.write_networks(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training_data.write_data(tmp_path_factory.mktemp("data"), (6, 7))


# settings


def least(**more):
    data = {"root": ".", "buckets": [{"folder": "rec", "width": 64, "height": 64}]}
    networks = {"vae": "vae", "image_encoder": "clip", "unet_config": {}}
    return {"output": "o", "system": "animate-anyone", "data": data, "networks": networks, **more}


def test_what_the_file_leaves_out_has_the_published_value_of_its_stage(tmp_path):
    one, two = (parse_settings(least(stage=stage), tmp_path) for stage in (1, 2))
    assert (one.data.num_frames, two.data.num_frames, two.data.stride) == (1, 24, 4)
    assert (one.training.steps, two.training.steps) == (30_000, 10_000)
    assert (one.anyone.crop_scale, two.anyone.crop_scale) == (0.9, 1.0)
    for settings in (one, two):
        assert settings.optimizer.learning_rate == 1e-5 and settings.optimizer.weight_decay == 0.01
        assert settings.optimizer.max_grad_norm == 1.0 and settings.training.dropout == 0.1
        assert (settings.anyone.noise_offset, settings.anyone.snr_gamma) == (0.05, 5.0)
        assert settings.anyone.betas == "scaled_linear" and settings.identity.provider == "zeros"
    given = parse_settings(least(stage=2, training={"steps": 7}), tmp_path)
    assert given.training.steps == 7 and given.training.batch_size == 1


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"stage": 3}, "stage"),
        ({"system": "animate anyone"}, "system"),
        ({"networks": {"vae": "v", "image_encoder": "c"}}, "anyone.denoising_unet"),
        ({"networks": {"vae": "v", "unet_config": {}}}, r"networks.image_encoder \(or svd\)"),
        ({"anyone": {"snr_gamma": -1}}, "anyone.snr_gamma"),
        ({"anyone": {"crop_scale": 0.0}}, "anyone.crop_scale"),
        ({"anyone": {"motion_config": {"head": 2}}}, "anyone.motion_config"),
        ({"anyone": {"pose_guider_config": {"width": [8]}}}, "anyone.pose_guider_config"),
        ({"stage": 2, "anyone": {"motion_config": {"max_frames": 16}}}, "data.num_frames"),
        ({"stage": 2, "anyone": {"denoising_unet": "d"}}, "anyone.reference_unet"),
    ],
)
def test_impossible_settings_are_named(tmp_path, changes, key):
    with pytest.raises(InputError, match=key):
        parse_settings(least(**changes), tmp_path)


def test_cuts_and_a_cache_exclude_each_other(root, weights, tmp_path):
    with pytest.raises(InputError, match=r"anyone.crop_scale.*whole pictures"):
        training_anyone.settings(root, weights, tmp_path, data={"cache": "cache"}, anyone={"crop_scale": 0.9})


# networks


def saved(path, network, config):
    save_weights(path, network.state_dict(), {"config": json.dumps(config)})
    return str(path)


def test_both_networks_start_from_an_image_model(root, weights, tmp_path):
    path = saved(
        tmp_path / "unet.safetensors", build_denoising_unet(training_anyone.UNET), training_anyone.UNET
    )
    for start in ({"denoising_unet": path}, {"denoising_unet": path, "reference_unet": path}):
        networks = build_networks(training_anyone.settings(root, weights, tmp_path, anyone=start))
        unet, reference = networks.denoising_unet.state_dict(), networks.reference_unet.state_dict()
        assert unet.keys() - reference.keys() == {
            f"{name}.{kind}" for name in ("conv_norm_out", "conv_out") for kind in ("weight", "bias")
        }
        assert all(torch.equal(tensor, unet[name]) for name, tensor in reference.items())


def test_the_pose_guider_starts_from_a_controlnet_but_for_its_last_convolution(root, weights, tmp_path):
    pretrained = PoseGuider(64, (4, 8, 8, 12))
    state = {f"controlnet_cond_embedding.{key}": t for key, t in pretrained.state_dict().items()}
    path = tmp_path / "controlnet.safetensors"
    save_weights(path, state | {"controlnet_cond_embedding.conv_out.weight": torch.ones(64, 12, 3, 3)})

    settings = training_anyone.settings(root, weights, tmp_path, anyone={"pose_guider": str(path)})
    guider = build_networks(settings).pose_guider

    assert guider.conv_out.weight.shape[0] == training_anyone.UNET["block_out_channels"][0]
    assert not guider.conv_out.weight.any()
    assert torch.equal(guider.blocks[5].weight, pretrained.blocks[5].weight)


def test_stage_2_takes_motion_modules_from_a_file_and_stage_1_none(root, weights, tmp_path):
    made = build_networks(training_anyone.settings(root, weights, tmp_path, stage=2))
    for module in made.modules():
        if hasattr(module, "temporal_transformer"):
            torch.nn.init.normal_(module.temporal_transformer.proj_out.weight)
    files, configs = split(made.state_dict()), configs_of(made)
    start = {}
    for name, state in files.items():
        save_weights(tmp_path / f"{name}.safetensors", state, {"config": json.dumps(configs[name])})
        start[name] = str(tmp_path / f"{name}.safetensors")

    again = build_networks(training_anyone.settings(root, weights, tmp_path, stage=2, anyone=start))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in made.state_dict().items())
    assert configs_of(again) == configs
    first = build_networks(training_anyone.settings(root, weights, tmp_path, stage=1, anyone=start))
    assert longest_window(first.denoising_unet) is None


def test_a_folder_to_start_from_must_hold_networks(root, weights, tmp_path):
    start = {"start": str(tmp_path)}
    with pytest.raises(InputError, match=r"anyone.start.*denoising_unet"):
        build_networks(training_anyone.settings(root, weights, tmp_path, anyone=start))


def test_networks_of_two_families_are_refused(root, weights, tmp_path):
    other = {**training_anyone.UNET, "block_out_channels": [24, 24]}
    path = saved(tmp_path / "other.safetensors", build_denoising_unet(other), other)
    with pytest.raises(InputError, match=r"anyone.reference_unet.*\[24, 24\].*\[16, 16\]"):
        build_networks(training_anyone.settings(root, weights, tmp_path, anyone={"reference_unet": path}))


# samples


def draws(count, draw):
    return [draw(torch.Generator().manual_seed(seed)) for seed in range(count)]


def test_a_target_is_far_from_its_reference_where_the_video_allows():
    for clip in draws(200, lambda g: draw_pictures(100, g)):
        assert abs(clip.frames[0] - clip.reference) >= 30
    near = draws(200, lambda g: draw_pictures(12, g))
    assert all(clip.frames[0] != clip.reference for clip in near)
    assert {clip.reference for clip in near} == {clip.frames[0] for clip in near} == set(range(12))
    several = draw_pictures(12, torch.Generator(), num_frames=4, min_distance=3)
    assert len(set(several.frames)) == 4


def test_a_video_clip_may_hold_its_reference():
    clips = draws(200, lambda g: draw_video(18, g, 8, 2))
    assert {clip.frames[0] for clip in clips} == {0, 1, 2, 3}
    assert all(clip.frames == tuple(range(clip.frames[0], clip.frames[0] + 15, 2)) for clip in clips)
    assert {clip.reference for clip in clips} == set(range(18))


def test_all_times_are_equally_likely_and_spread_over_a_pass():
    draws = torch.rand(1000, 10, generator=torch.Generator().manual_seed(0))
    times = torch.stack([times_of(row) for row in draws])
    assert times.min() == 0 and times.max() == 999
    assert all(sorted(row // 100) == list(range(10)) for row in times)
    assert times.float().mean().item() == pytest.approx(499.5, abs=1)


def test_cuts_have_the_area_and_aspect_asked_for():
    cuts = np.array(draws(300, lambda g: draw_cut(g, 0.9, 0.9)))
    width, height = cuts[:, 2] - cuts[:, 0], cuts[:, 3] - cuts[:, 1]
    assert cuts.min() >= 0 and cuts.max() <= 1
    assert (width * height).min() >= 0.9 - 1e-9 and (width / height).min() >= 0.9 - 1e-9
    assert (width / height).max() <= 1 + 1e-9 and cuts[:, 0].std() > 0.005
    assert draw_cut(torch.Generator(), 1.0, 1.0) == (0, 0, 1, 1)


def test_a_cut_is_taken_before_resizing(tmp_path):
    picture = np.random.RandomState(0).randint(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "p.png")
    assert np.array_equal(read_rgb(tmp_path / "p.png", (4, 4), (0.25, 0.5, 0.75, 1)), picture[4:, 2:6])


def opened(settings):
    buckets = find_videos(settings.data, Report())
    frozen = Frozen.load(settings.networks, "cpu", torch.float32)
    files = AnyoneFromFiles(settings, buckets, frozen.picture_size)
    caches.fill_cache(settings, buckets)
    cache = caches.load_cache(settings, buckets)
    return files, AnyoneFromCache(cache.sizes, cache.videos), frozen


def collated(samples, request):
    return {name: t[None] for name, t in samples[request].items()}


def test_the_cache_holds_what_the_frozen_networks_make(root, weights, tmp_path):
    data = {"cache": str(tmp_path / "cache"), "num_frames": 3}
    settings = training_anyone.settings(
        root, weights, tmp_path, stage=2, data=data, anyone={"crop_ratio": 1.0}
    )
    files, cache, frozen = opened(settings)
    order, request = Order((2,), 1, 1, 0), Request(0, 1, 4, 0)
    fresh = conditions_of(collated(AnyoneSamples(files, settings, order), request), frozen)
    cached = conditions_of(collated(AnyoneSamples(cache, settings, order), request), None)
    assert fresh.keys() == cached.keys()
    for name in ("poses", "noise", "noise_offset", "timestep", "dropped"):
        assert torch.equal(fresh[name], cached[name]), name
    for name, tolerance in (("latents", 2e-3), ("reference_latents", 2e-3), ("image_embedding", 0.1)):
        assert torch.allclose(fresh[name], cached[name], atol=tolerance), (
            name
        )  # float16; CLIP's other resizing
    assert fresh["poses"].min() == 0 and fresh["poses"].max() == 1


def test_both_systems_share_a_cache(root, weights, tmp_path):
    data = {"cache": str(tmp_path / "cache")}
    other = training_data.settings(root, weights, tmp_path, data=data)
    identity = training_data.tables(root, weights, tmp_path)["identity"]
    mine = training_anyone.settings(root, weights, tmp_path, data=data, identity=identity)
    buckets = find_videos(other.data, Report())
    assert caches.fill_cache(other, buckets) == 2
    assert caches.fill_cache(mine, buckets) == 0


def test_a_batch_drops_its_conditions_as_a_whole(root, weights, tmp_path):
    data, training = {"cache": str(tmp_path / "cache")}, {"dropout": 0.3, "batch_size": 4}
    settings = training_anyone.settings(root, weights, tmp_path, data=data, training=training)
    _, cache, _ = opened(settings)
    samples = AnyoneSamples(cache, settings, Order((2,), 4, 1, 0))
    dropped = torch.tensor(
        [[samples[Request(0, 0, step, place)]["dropped"] for place in range(4)] for step in range(300)]
    )
    assert (dropped.all(dim=1) == dropped.any(dim=1)).all()
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.08)


# the small model's configurations


def test_the_small_models_stages_fit_together_and_its_files_stay_small():
    one, two = (read_settings(CONFIGS / "small" / f"anyone-{stage}.toml") for stage in (1, 2))
    assert (one.stage, two.stage, two.training.trainable) == (1, 2, "official")
    assert two.anyone.start == one.output
    for shared in (
        "identity",
        "networks.svd",
        "data.root",
        "data.cache",
        "anyone.betas",
        "anyone.dropped_token",
    ):
        assert attrgetter(shared)(one) == attrgetter(shared)(two), shared
    assert (two.data.num_frames, two.data.stride) == (8, 2)

    with torch.device("meta"):
        unet = build_denoising_unet({**one.networks.unet_config, "motion": two.anyone.motion_config})
        reference = build_reference_net(one.networks.unet_config)
        guider = build_pose_guider({"widths": (8, 16, 24, 48), "out_channels": 48})
    assert guider(torch.zeros(1, 3, 128, 128, device="meta")).shape == (1, 48, 16, 16)
    values = sum(t.numel() for network in (unet, reference, guider) for t in network.state_dict().values())
    assert 2 * values < 5.7e6  # bytes in half precision; the files' headers are another 0.3 MB

"""What the trainer reads: clip folders with faults, the order of samples, and the cache beside the files."""

import json
import os

import numpy as np
import pytest
import torch
import training_data
from PIL import Image

from stableanimator_core.errors import InputError
from stableanimator_core.training import cache as caches
from stableanimator_core.training.frozen import Frozen
from stableanimator_core.training.identities import FromMasks
from stableanimator_core.training.noise_levels import lognormal_sigma_of, sigma_of, stratified
from stableanimator_core.training.order import FromPass, Order, Request
from stableanimator_core.training.samples import FromFiles, Samples
from stableanimator_core.training.settings import Bucket
from stableanimator_core.training.step import conditions_of
from stableanimator_core.training.videos import Report, clip_folders, find_videos, read_video


@pytest.fixture
def clip(tmp_path):
    return training_data.write_clip(tmp_path / "clip", 8, side=32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return training_data.write_networks(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training_data.write_data(tmp_path_factory.mktemp("data"), (6, 5))


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    training_data.write_clip(tmp_path, 12, side=16)
    names = [path.stem for path in read_video(tmp_path, Report()).images]
    assert names == [f"frame_{number}" for number in range(12)]


def test_images_may_be_jpg_and_plain_numbers(tmp_path):
    training_data.write_clip(tmp_path, 3, side=16)
    for folder in ("images", "poses", "faces"):
        for path in (tmp_path / folder).iterdir():
            name = path.stem.removeprefix("frame_")
            Image.open(path).save(path.with_name(name + (".jpg" if folder == "images" else ".png")))
            path.unlink()
    video = read_video(tmp_path, Report())
    assert [path.name for path in video.images] == ["0.jpg", "1.jpg", "2.jpg"]
    assert video.pose(2) == tmp_path / "poses" / "2.png"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda clip: (clip / "faces/frame_2.png").unlink(), "frame_2: face mask missing"),
        (lambda clip: (clip / "poses/frame_2.png").write_bytes(b"no picture"), "frame_2: pose unreadable"),
        (lambda clip: (clip / "images/frame_2.png").write_bytes(b""), "frame_2: image unreadable"),
    ],
)
def test_a_bad_frame_is_listed_and_the_longest_complete_run_is_used(clip, spoil, reason):
    spoil(clip)
    report = Report()
    video = read_video(clip, report)
    assert [path.stem for path in video.images] == [f"frame_{number}" for number in range(3, 8)]
    assert any(line.startswith(reason) for line in report.dropped[str(clip)])
    assert "frame_0: not in the longest run" in report.dropped[str(clip)]


def test_a_cut_picture_is_found_by_decoding_everything(clip):
    path = clip / "poses" / "frame_4.png"
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (32, 32, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-400])
    assert len(read_video(clip, Report())) == 8
    assert len(read_video(clip, Report(), check_pixels=True)) == 4


def test_folders_that_cannot_be_used_are_listed_with_their_reason(tmp_path, weights):
    training_data.write_data(tmp_path, (6, 1, 3))
    (tmp_path / "rec" / "00009" / "images").mkdir(parents=True)
    (tmp_path / "list.txt").write_text("00001\nrec/00002\n00003\n\n00009\n00077\n")
    settings = training_data.settings(tmp_path, weights, tmp_path / "run")
    bucket = Bucket("rec", 64, 64, "list.txt")
    assert [path.name for path in clip_folders(tmp_path, bucket)] == [f"{n:05}" for n in (1, 2, 3, 9, 77)]
    report = Report()
    found = find_videos(type(settings.data)(tmp_path, (bucket,), 3, 1), report)
    assert [[video.folder.name for video in row] for row in found] == [["00001"]]
    reasons = {folder[-5:]: reason for folder, reason in report.skipped.items()}
    assert set(reasons) == {"00002", "00003", "00009", "00077"}
    assert "1 frames in a row" in reasons["00002"] and "no pictures" in reasons["00009"]
    assert reasons["00077"] == "no such folder"
    report.write(tmp_path / "report.json")
    assert len(json.loads((tmp_path / "report.json").read_text())["skipped"]) == 4
    assert len(report.lines()) == 5


def test_a_bucket_without_usable_clips_stops_the_run(tmp_path, weights):
    training_data.write_data(tmp_path, (2,))
    settings = training_data.settings(tmp_path, weights, tmp_path / "run")
    with pytest.raises(InputError, match="no usable clip folder"):
        find_videos(settings.data, Report())


def test_an_epoch_shows_every_clip_once_and_mixes_the_buckets():
    order = Order((8, 4), batch=2, processes=1, seed=3)
    assert order.passes_per_epoch == 6
    first = [order.requests(index, 0) for index in range(6)]
    assert sorted((r.bucket, r.video) for row in first for r in row) == [
        *((0, video) for video in range(8)),
        *((1, video) for video in range(4)),
    ]
    assert all(len({request.bucket for request in row}) == 1 for row in first)
    second = [order.requests(index, 0) for index in range(6, 12)]
    assert [[r[:2] for r in row] for row in first] != [[r[:2] for r in row] for row in second]


def test_processes_share_a_pass_as_one_process_would_take_it():
    alone, shared = Order((7, 5), 4, 1, 0), Order((7, 5), 2, 2, 0)
    for index in range(9):
        assert alone.requests(index, 0) == shared.requests(index, 0) + shared.requests(index, 1)


def test_a_bucket_smaller_than_a_pass_is_repeated_in_it():
    (requests,) = list(FromPass(Order((2,), 5, 1, 0), 0, 0, 1))
    assert sorted({request.video for request in requests}) == [0, 1] and len(requests) == 5


def test_the_order_can_be_entered_anywhere():
    order = Order((5, 3), 1, 1, 7)
    everything = list(FromPass(order, 0, 0, 20))
    assert list(FromPass(order, 0, 13, 20)) == everything[13:]


def samples(settings, source):
    return Samples(source, settings, Order((2,), 4, 1, settings.training.seed))


def from_files(settings, weights):
    buckets = find_videos(settings.data, Report())
    frozen = Frozen.load(settings.networks, "cpu", torch.float32)
    return FromFiles(settings, buckets, frozen.picture_size), frozen, buckets


def test_a_sample_depends_on_its_request_alone(root, weights, tmp_path):
    settings = training_data.settings(root, weights, tmp_path)
    source, _, _ = from_files(settings, weights)
    again = from_files(settings, weights)[0]
    request = Request(0, 1, 5, 2)
    one, other = samples(settings, source)[request], samples(settings, again)[request]
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    third = samples(settings, source)[Request(0, 1, 6, 2)]
    assert not torch.equal(one["noise"], third["noise"])


def test_noise_levels_are_spread_over_the_pass(root, weights, tmp_path):
    settings = training_data.settings(root, weights, tmp_path)
    made = samples(settings, from_files(settings, weights)[0])
    levels = [float(made[Request(0, 0, 9, place)]["sigma"]) for place in range(4)]
    edges = sigma_of(torch.arange(5) / 4)
    for place, level in enumerate(levels):
        assert edges[place + 1] <= level <= edges[place]


def test_the_lognormal_levels_have_their_mean_and_deviation():
    uniform = stratified(torch.full((20_001,), 0.5))
    logarithm = lognormal_sigma_of(uniform, -0.5, 1.2).log()
    assert abs(logarithm.mean() + 0.5) < 1e-3 and abs(logarithm.std() - 1.2) < 2e-3
    levels = lognormal_sigma_of(uniform, 0.7, 1.6)
    assert (levels.diff() <= 0).all() and levels.max() == 700  # as far as the sampler goes
    assert torch.isfinite(lognormal_sigma_of(torch.tensor([0.0, 1.0]), 0, 1)).all()


def cached(settings, buckets):
    caches.fill_cache(settings, buckets)
    return caches.load_cache(settings, buckets)


def test_the_cache_gives_what_the_files_give(root, weights, tmp_path):
    """Without augmentation noise both are the same numbers, but for the float16 of the stored posteriors."""
    settings = training_data.settings(
        *(root, weights, tmp_path),
        data={"cache": str(tmp_path / "cache"), "reference_noise_variants": 0},
        training={"noise_augmentation": 0.0},
    )
    source, frozen, buckets = from_files(settings, weights)
    stored = cached(settings, buckets)
    for video in (0, 1):
        request = Request(0, video, 4, 1)
        clip_draws = torch.Generator().manual_seed(0)
        clip = training_data_clip(source.length(0, video), clip_draws)
        noise = samples(settings, source)[request]
        parts = (
            source.parts(0, video, clip, torch.Generator()),
            stored.parts(0, video, clip, torch.Generator()),
        )
        draws = {name: noise[name] for name in ("posterior_noise", "reference_posterior_noise", "noise")}
        draws |= {"sigma": noise["sigma"], "drop": noise["drop"]}
        batches = [{name: t[None] for name, t in {**part, **draws}.items()} for part in parts]
        by_files = conditions_of(batches[0], frozen)
        by_cache = conditions_of(batches[1], None)
        assert by_files.keys() == by_cache.keys()
        for name in ("latents", "image_latents", "image_embedding", "identity", "poses"):
            torch.testing.assert_close(by_cache[name], by_files[name], rtol=2e-3, atol=2e-3)
        assert by_cache["face_masks"].shape[-2:] == (8, 8)
        assert by_cache["identity"].any()


def training_data_clip(length, generator):
    from stableanimator_core.training.frames import draw_clip

    return draw_clip(length, generator, 3, 1)


def test_noisy_variants_of_the_reference_differ(root, weights, tmp_path):
    settings = training_data.settings(
        *(root, weights, tmp_path), data={"cache": str(tmp_path / "cache"), "reference_noise_variants": 2}
    )
    buckets = find_videos(settings.data, Report())
    tensors = cached(settings, buckets).videos[0][0]
    assert tensors["reference_mean"].shape[:2] == (6, 2)
    assert not torch.equal(tensors["reference_mean"][:, 0], tensors["reference_mean"][:, 1])
    assert tensors["mean"].dtype == torch.float16 and tensors["poses"].dtype == torch.uint8


def test_only_what_changed_is_encoded_anew(root, weights, tmp_path):
    settings = training_data.settings(
        *(root, weights, tmp_path),
        data={
            "root": str(training_data.write_data(tmp_path / "data", (6, 5))),
            "cache": str(tmp_path / "cache"),
        },
    )
    buckets = find_videos(settings.data, Report())
    assert caches.fill_cache(settings, buckets) == 2
    assert caches.fill_cache(settings, buckets) == 0
    os.utime(buckets[0][1].pose(3), (1, 1))
    assert caches.fill_cache(settings, buckets) == 1


def test_processes_fill_the_cache_in_parts(root, weights, tmp_path):
    settings = training_data.settings(root, weights, tmp_path, data={"cache": str(tmp_path / "cache")})
    buckets = find_videos(settings.data, Report())
    missing = list(caches._missing(settings, buckets))
    assert [len(missing[share::2]) for share in (0, 1)] == [1, 1]
    assert caches.fill_cache(settings, buckets, share=(1, 2)) == 1
    assert caches.fill_cache(settings, buckets, share=(0, 1)) == 1


class Means:
    """A recogniser that gives the crop's mean colour."""

    provider = "test"

    def embed(self, crops):
        result = torch.zeros(len(crops), 512)
        result[:, :3] = torch.from_numpy(crops.reshape(len(crops), -1, 3).mean(1).astype("f"))
        return result


def test_the_identity_is_that_of_the_masked_face_in_trained_colour_order():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[16:48, 16:48] = (200, 100, 50)
    face = np.zeros((64, 64), np.float32)
    face[20:44, 20:44] = 1
    got = FromMasks(Means()).embed([picture, picture, picture], [face, face * 0, face * 0 + 1])
    assert torch.allclose(got[0, :3], torch.tensor([50.0, 100.0, 200.0]))  # insightface is given BGR
    assert not got[1:].any()


def test_a_damaged_picture_met_later_is_an_error_and_never_a_black_one(tmp_path, weights):
    training_data.write_data(tmp_path / "data", (6,))
    path = tmp_path / "data" / "rec" / "00001" / "poses" / "frame_1.png"
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    settings = training_data.settings(
        tmp_path / "data", weights, tmp_path, data={"cache": str(tmp_path / "cache")}
    )
    buckets = find_videos(settings.data, Report())
    with pytest.raises(InputError, match=r"frame_1\.png.*cannot be read"):
        caches.fill_cache(settings, buckets)
    assert not list((tmp_path / "cache").glob("*.safetensors"))

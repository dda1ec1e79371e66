"""The trainer's TOML files: what is taken, what is refused and in which words."""

from pathlib import Path

import pytest
import tomllib

from stableanimator_core.errors import InputError
from stableanimator_core.training.config import check_files, parse_settings, read_settings, unet_config
from stableanimator_core.training.schedule import learning_rate
from stableanimator_core.training.settings import Optimizer

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALLEST = """
output = "run"
[data]
root = "data"
buckets = [{ folder = "rec", width = 64, height = 128 }]
[networks]
svd = "SVD"
[identity]
provider = "zeros"
"""


def parsed(text, folder="/base"):
    return parse_settings(tomllib.loads(text), folder)


def refused(text):
    with pytest.raises(InputError) as caught:
        parsed(text)
    return str(caught.value)


def test_left_out_keys_have_the_published_values():
    settings = parsed(SMALLEST)
    o, t = settings.optimizer, settings.training
    assert (o.learning_rate, o.betas, o.eps, o.weight_decay) == (1e-5, (0.9, 0.999), 1e-8, 0.01)
    assert (o.schedule, o.max_grad_norm) == ("constant", 0)
    assert (t.dropout, t.fps, t.motion_bucket_id, t.noise_augmentation) == (0.1, 7, 127, 0.02)
    assert (settings.data.num_frames, settings.data.stride, t.trainable) == (16, 4, "official")
    assert (settings.noise.distribution, settings.ema.enabled) == ("cosine", False)


def test_paths_start_at_the_file_and_may_be_absolute(tmp_path):
    (tmp_path / "run.toml").write_text(SMALLEST.replace('"SVD"', '"/models/SVD"'))
    settings = read_settings(tmp_path / "run.toml")
    assert settings.data.root == tmp_path / "data"
    assert settings.networks.svd == Path("/models/SVD")


@pytest.mark.parametrize("name", ["train-official", "finetune", "animate-anyone-1", "animate-anyone-2"])
def test_the_shipped_configurations_are_valid(name):
    settings = read_settings(CONFIGS / f"{name}.toml")
    assert settings.training.gradient_checkpointing
    assert settings.optimizer.learning_rate == 1e-5


def test_the_official_configuration_is_the_published_training():
    settings = read_settings(CONFIGS / "train-official.toml")
    sizes = [(bucket.folder, bucket.width, bucket.height) for bucket in settings.data.buckets]
    assert sizes == [("rec", 512, 512), ("vec", 576, 1024)]
    assert (settings.data.num_frames, settings.training.batch_size, settings.training.mixed_precision) == (
        *(16, 1),
        "fp16",
    )
    assert (settings.networks.start, settings.ema.enabled, settings.optimizer.max_grad_norm) == (
        "svd",
        False,
        0,
    )


def test_the_configurations_of_animate_anyone_are_its_published_training():
    first, second = (read_settings(CONFIGS / f"animate-anyone-{stage}.toml") for stage in (1, 2))
    assert [(s.system, s.stage) for s in (first, second)] == [("animate-anyone", 1), ("animate-anyone", 2)]
    assert [(b.width, b.height) for b in first.data.buckets + second.data.buckets] == [(768, 768), (512, 512)]
    assert (first.training.steps, first.training.batch_size, first.data.num_frames) == (30_000, 4, 1)
    assert (second.training.steps, second.training.batch_size) == (10_000, 1)
    assert (second.data.num_frames, second.data.stride) == (24, 4)
    assert (first.anyone.crop_scale, second.anyone.crop_scale) == (0.9, 1.0)
    for settings in (first, second):
        a = settings.anyone
        assert (a.noise_offset, a.snr_gamma, a.min_distance, a.betas) == (0.05, 5.0, 30, "scaled_linear")
        assert (settings.optimizer.max_grad_norm, settings.training.mixed_precision) == (1.0, "fp16")
    assert second.anyone.start == first.output


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("[training]\nstep = 3", ("training.step", "Use steps")),
        ("[trainer]\nsteps = 3", ("trainer", "Use training")),
        ("[training]\nsteps = 0", ("training.steps", "is 0", "1 or more")),
        ("[training]\nsteps = '3'", ("training.steps", "whole number")),
        ("[training]\nsteps = true", ("training.steps", "whole number")),
        ("[training]\ntrainable = 'some'", ("training.trainable", "'official', 'all'")),
        ("[training]\ndropout = 0.5", ("dropout", "0.5")),
        ("[optimizer]\nlearning_rate = 0", ("optimizer.learning_rate", "above 0")),
        ("[optimizer]\nbetas = [0.9]", ("optimizer.betas", "list of 2")),
        ("[optimizer]\nbetas = [0.9, 1.0]", ("optimizer.betas", "below 1")),
        ("[validation]\nevery = 10", ("validation.clips", "is empty")),
        ("[ema]\ndecay = 1.0", ("ema.decay", "below 1")),
    ],
)
def test_a_wrong_value_is_named_with_what_to_do(added, told):
    message = refused(SMALLEST + added)
    assert all(part in message for part in told), message


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('output = "run"', "", ("output", "missing")),
        ("width = 64", "width = 100", ("100 x 128", "multiple of 64")),
        ("buckets = [{ folder", "buckets = [] # { folder", ("data.buckets", "is empty")),
        ("width = 64, ", "", ("data.buckets[0].width", "missing")),
        ('svd = "SVD"', "", ("networks.svd", "'svd'")),
        ('svd = "SVD"', 'start = "config"\nsvd = "SVD"', ("networks.unet_config", "missing")),
        ('svd = "SVD"', 'start = "stableanimator"\nsvd = "SVD"', ("networks.unet", "missing")),
        ('provider = "zeros"', 'provider = "mask"', ("identity.recogniser", "'mask'")),
        ('provider = "zeros"', 'provider = "insightface"', ("identity.detector", "'insightface'")),
    ],
)
def test_what_does_not_fit_together_is_refused(old, new, told):
    assert old in SMALLEST
    message = refused(SMALLEST.replace(old, new))
    assert all(part in message for part in told), message


def test_text_that_is_no_toml_is_refused_with_its_line(tmp_path):
    (tmp_path / "run.toml").write_text("output = \n")
    with pytest.raises(InputError, match="line 1"):
        read_settings(tmp_path / "run.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_settings(tmp_path / "other.toml")


def test_paths_that_lead_nowhere_are_named_before_anything_is_loaded(tmp_path):
    with pytest.raises(InputError, match="networks.svd"):
        check_files(parsed(SMALLEST, tmp_path))
    (tmp_path / "SVD").mkdir()
    with pytest.raises(InputError, match="data.root"):
        check_files(parsed(SMALLEST, tmp_path))
    validated = SMALLEST + "[validation]\nevery = 9\nclips = ['held_out/00001']"
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="validation.clips: names held_out/00001"):
        check_files(parsed(validated, tmp_path))
    (tmp_path / "data" / "held_out" / "00001" / "images").mkdir(parents=True)
    check_files(parsed(validated, tmp_path))


def test_the_unet_may_be_a_table_or_a_json_file(tmp_path):
    start = SMALLEST.replace('svd = "SVD"', 'start = "config"\nsvd = "SVD"\nunet_config = %s')
    assert unet_config(parsed(start % "{ in_channels = 8 }")) == {"in_channels": 8}
    (tmp_path / "unet.json").write_text('{"_class_name": "x", "in_channels": 8}')
    assert unet_config(parsed(start % '"unet.json"', tmp_path)) == {"in_channels": 8}
    with pytest.raises(InputError, match=r"none\.json"):
        unet_config(parsed(start % '"none.json"', tmp_path))


def test_the_learning_rate_rises_then_follows_its_schedule():
    rates = [learning_rate(step, 12, Optimizer(learning_rate=1.0, warmup_steps=3)) for step in range(12)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and set(rates[3:]) == {1.0}
    linear = Optimizer(learning_rate=1.0, schedule="linear", warmup_steps=2)
    assert [learning_rate(step, 10, linear) for step in (2, 6, 10)] == [1.0, 0.5, 0.0]
    cosine = Optimizer(learning_rate=1.0, schedule="cosine")
    assert [round(learning_rate(step, 8, cosine), 6) for step in (0, 4, 8)] == [1.0, 0.5, 0.0]
    assert learning_rate(1, 8, cosine) > learning_rate(1, 8, Optimizer(learning_rate=1.0, schedule="linear"))
    early = Optimizer(learning_rate=1.0, schedule="cosine", schedule_steps=16)  # a run that is left half way
    assert learning_rate(4, 8, early) == learning_rate(4, 16, cosine) > learning_rate(4, 8, cosine)

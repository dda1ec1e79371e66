"""Whole runs of the trainer on tiny networks: that they end, go on, agree over processes, and load back."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import training_data

from stableanimator_core.errors import InputError
from stableanimator_core.pipeline import AnimationOptions, Animator
from stableanimator_core.training import __main__ as command
from stableanimator_core.training import runtime, trainer
from stableanimator_core.training.average import Average
from stableanimator_core.training.checkpoints import checkpoints_in
from stableanimator_core.training.trainer import Trainer, train
from stableanimator_core.weights import load

pytest.importorskip("accelerate")
PARTS = ("unet", "pose_net", "face_encoder")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return training_data.write_networks(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return training_data.write_data(tmp_path_factory.mktemp("data"), (6, 5, 7, 6))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture
def configured(root, weights, cache, tmp_path):
    """Settings of a run into `tmp_path/NAME`, from the cache unless told otherwise."""

    def make(name="run", **changes):
        data = {"cache": str(cache), **changes.pop("data", {})}
        return training_data.settings(root, weights, tmp_path / name, data=data, **changes)

    return make


def assert_equal_states(one, other, parts=PARTS):
    for part in parts:
        left, right = training_data.state_of(one, part), training_data.state_of(other, part)
        assert left.keys() == right.keys()
        assert [key for key in left if not torch.equal(left[key], right[key])] == []


def stop_after(monkeypatch, count):
    """Send this process SIGTERM in its `count`-th step, as a scheduler would."""
    real, seen = Trainer._train_step, []

    def step(self, batches):
        seen.append(1)
        if len(seen) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batches)

    monkeypatch.setattr(Trainer, "_train_step", step)


@pytest.mark.parametrize("source", ["cache", "files"])
def test_a_run_that_a_signal_ends_goes_on_bit_for_bit(configured, monkeypatch, source):
    data = {} if source == "cache" else {"cache": ""}
    options = {"training": {"steps": 4, "gradient_accumulation": 2}, "ema": {"enabled": True}, "data": data}
    whole = train(configured("whole", **options))
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        first = train(configured("parts", **options))
    assert (first.step, first.interrupted) == (2, True)
    second = train(configured("parts", **options), "latest")
    assert (whole.step, second.step, second.interrupted) == (4, 4, False)
    assert_equal_states(whole.checkpoint, second.checkpoint)
    for name in ("ema.safetensors", "state/optimizer.bin"):
        left, right = (loaded(result.checkpoint / name) for result in (whole, second))
        assert flat(left) == pytest.approx(flat(right), abs=0, rel=0)
    lines = [
        json.loads(line) for line in (second.checkpoint.parent / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def loaded(path):
    if path.suffix == ".bin":
        return torch.load(path, weights_only=True)["state"]
    from safetensors.torch import load_file

    return load_file(path)


def flat(tree):
    """Every number of nested dictionaries of tensors, as sums that differ if anything does."""
    if isinstance(tree, dict):
        return [number for key in sorted(tree, key=str) for number in flat(tree[key])]
    return [float(tree.double().sum()), float((tree.double() ** 2).sum())]


def test_two_processes_learn_what_one_learns_from_twice_the_clips(configured, root, weights, cache, tmp_path):
    """On gloo. A large eps keeps rounding from being blown up by Adam."""
    optimizer = {"learning_rate": 1e-2, "eps": 1e-2, "max_grad_norm": 1.0}
    one = train(configured("one", training={"steps": 3, "batch_size": 2}, optimizer=optimizer))
    tables = training_data.tables(
        *(root, weights, tmp_path / "two"),
        data={"cache": str(cache)},
        training={"steps": 3, "batch_size": 1},
        optimizer=optimizer,
    )
    (tmp_path / "two.toml").write_text(as_toml(tables))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch += ["-m", "stableanimator_core.training", str(tmp_path / "two.toml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        launch, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=1500
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    two = tmp_path / "two" / "checkpoint-000003"
    assert (two / "state" / "random_states_1.pkl").is_file()
    start = start_of(configured("start", training={"steps": 3, "batch_size": 2}))
    for part in PARTS:
        ours, theirs = training_data.state_of(one.checkpoint, part), training_data.state_of(two, part)
        for key, tensor in ours.items():
            torch.testing.assert_close(theirs[key], tensor, rtol=1e-4, atol=2e-6, msg=key)
        moved = [float((ours[key] - start[f"{part}.{key}"]).abs().max()) for key in ours]
        assert max(moved) > 1e-3, part
    losses = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (one.checkpoint.parent, two.parent)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def start_of(settings):
    from stableanimator_core.training.networks import build_networks

    return build_networks(settings).state_dict()


def as_toml(tables, name=""):
    """The few kinds of values that the tests use."""
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    text = f"[{name}]\n" if name else ""
    text += "".join(f"{key} = {toml_value(value)}\n" for key, value in plain.items())
    for key, value in tables.items():
        if isinstance(value, dict):
            text += as_toml(value, f"{name}.{key}" if name else key)
    return text


def toml_value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)


def test_checkpoints_load_into_the_animator_with_the_mean_weights(configured, weights):
    result = train(configured(training={"steps": 3}, ema={"enabled": True}))
    folder = result.checkpoint
    mean, last = load.load_unet(folder / "unet.safetensors"), load.load_unet(folder / "unet.pth")
    heads = [tuple(unet.config.num_attention_heads) for unet in (mean, last)]
    assert heads == [(2, 2), (2, 2)]
    assert not torch.equal(mean.conv_out.weight, last.conv_out.weight)
    trained = loaded(folder / "ema.safetensors")
    assert torch.equal(mean.conv_out.weight, trained["unet.conv_out.weight"])
    for part, loader in (("pose_net", load.load_pose_net), ("face_encoder", load.load_face_encoder)):
        states = [loader(folder / f"{part}.{end}").state_dict() for end in ("safetensors", "pth")]
        assert states[0].keys() == states[1].keys()
    animator = Animator.load(*(folder / f"{part}.safetensors" for part in PARTS), weights / "SVD")
    photo = np.full((64, 64, 3), 128, np.uint8)
    poses = np.zeros((2, 64, 64, 3), np.uint8)
    options = AnimationOptions(num_steps=1, window_size=2, overlap=1)
    made = animator.animate(photo, poses, np.ones(512, "f"), height=64, width=64, options=options)
    assert made.frames.shape == (2, 64, 64, 3)


def test_training_goes_on_from_official_files(configured):
    first = train(configured("first", training={"steps": 1})).checkpoint
    files = {part: str(first / f"{part}.pth") for part in PARTS}
    settings = configured("second", networks={"start": "stableanimator", **files}, training={"steps": 1})
    start = start_of(settings)
    for part in PARTS:
        for key, tensor in training_data.state_of(first, part).items():
            assert torch.equal(start[f"{part}.{key}"], tensor)
    assert train(settings).step == 1


def test_the_official_choice_leaves_residual_blocks_as_they_were(configured):
    settings = configured(training={"steps": 1, "trainable": "official"})
    start = start_of(settings)
    end = training_data.state_of(train(settings).checkpoint)
    changed = {key for key, tensor in end.items() if not torch.equal(tensor, start[f"unet.{key}"])}
    assert changed and all("attentions" in key for key in changed)
    # weight decay reaches what one image token makes idle, as in the official optimiser
    assert any("attn2.to_q" in key and "temporal" in key for key in changed)


def test_the_mean_follows_the_weights():
    network = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    average = Average(network, decay=0.5)
    for value in (2.0, 3.0, 4.0):
        network.weight.data.fill_(value)
        average.step()
    # decays: 0 in the first step, then (1 + s) / (10 + s): 2/11, 3/12
    expected = (2.0 * 2 / 11 + 3.0 * 9 / 11) * 0.25 + 4.0 * 0.75
    assert average.state()["weight"].flatten().tolist() == pytest.approx([expected] * 2)
    with average.applied():
        assert network.weight.flatten().tolist() == pytest.approx([expected] * 2)
    assert network.weight.flatten().tolist() == [4.0, 4.0]


def test_the_last_checkpoints_are_kept(configured):
    settings = configured(training={"steps": 5}, checkpoints={"every": 1, "keep": 2})
    train(settings)
    assert [path.name for path in checkpoints_in(settings.output)] == [
        "checkpoint-000004",
        "checkpoint-000005",
    ]


def test_a_run_killed_while_writing_leaves_the_checkpoint_before(configured, monkeypatch):
    settings = configured(training={"steps": 2}, checkpoints={"every": 1})
    real = trainer.publish

    def dies(temporary, final):
        if final.name.endswith("2"):
            raise KeyboardInterrupt
        real(temporary, final)

    monkeypatch.setattr(trainer, "publish", dies)
    with pytest.raises(KeyboardInterrupt):
        train(settings)
    assert [path.name for path in checkpoints_in(settings.output)] == ["checkpoint-000001"]
    monkeypatch.setattr(trainer, "publish", real)
    runtime_result = train(settings, "latest")
    assert runtime_result.step == 2
    assert not list(settings.output.glob(".checkpoint*"))


def test_a_run_is_not_written_over_another(configured):
    settings = configured(training={"steps": 2}, checkpoints={"every": 1})
    with pytest.raises(InputError, match="no checkpoint"):
        train(settings, "latest")
    train(settings)
    with pytest.raises(InputError, match="--resume"):
        train(settings)
    with pytest.raises(InputError, match="not the last"):
        train(settings, "checkpoint-000001")
    with pytest.raises(InputError, match="there are: checkpoint-000001, checkpoint-000002"):
        train(settings, "checkpoint-7")


def test_validation_shows_truth_poses_and_result(configured):
    settings = configured(
        training={"steps": 2},
        ema={"enabled": True},
        validation={"every": 2, "clips": ["rec/00001"], "num_steps": 1, "num_frames": 3},
    )
    result = train(settings)
    from PIL import Image

    with Image.open(settings.output / "validation" / "rec-00001-000002.png") as picture:
        assert picture.size == (3 * 64, 3 * 64)
    with Image.open(settings.output / "validation" / "rec-00001-000002.gif") as film:
        assert film.size == (3 * 64, 64) and film.n_frames == 3
    quiet = configured("quiet", training={"steps": 2}, ema={"enabled": True})
    assert_equal_states(result.checkpoint, train(quiet).checkpoint)  # looking changes nothing


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(configured, monkeypatch):
    settings = configured(training={"steps": 2})
    monkeypatch.setattr(Trainer, "_train_step", lambda self, batches: torch.tensor(float("nan")))
    with pytest.raises(InputError, match="the loss: is nan at step 1"):
        train(settings)
    assert not checkpoints_in(settings.output)


def test_the_command_says_what_is_wrong_and_how_to_install_accelerate(
    tmp_path, monkeypatch, capsys, configured
):
    (tmp_path / "bad.toml").write_text("outputs = 1\n")
    assert command.main([str(tmp_path / "bad.toml")]) == 2
    assert "Use output" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match="pip install"):
        runtime.make_accelerator(configured())

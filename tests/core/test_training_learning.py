"""What the trainer learns: its optimiser step by step, the weights it starts from, and those it writes."""

import json

import numpy as np
import pytest
import torch
import training_data

from stableanimator_core.errors import InputError
from stableanimator_core.models.id_adapter import IDAdapter
from stableanimator_core.models.unet import build_unet
from stableanimator_core.pipeline import AnimationOptions, Animator
from stableanimator_core.training.average import Average
from stableanimator_core.training.cache import load_cache
from stableanimator_core.training.checkpoints import PARTS
from stableanimator_core.training.networks import build_networks
from stableanimator_core.training.order import Order
from stableanimator_core.training.samples import Samples
from stableanimator_core.training.step import conditions_of
from stableanimator_core.training.trainer import train
from stableanimator_core.training.videos import Report, find_videos
from stableanimator_core.weights import load
from stableanimator_core.weights.files import save_weights


@pytest.mark.parametrize("largest", [0.0, 0.01])
def test_steps_are_adamws_of_the_mean_gradient_clipped_if_wanted(configured, largest):
    """Three forward passes a step; PyTorch's AdamW with the published numbers, driven by hand."""
    settings = configured(
        training={"steps": 2, "gradient_accumulation": 3, "trainable": "official"},
        optimizer={"learning_rate": 1e-5, "max_grad_norm": largest},
    )
    result = train(settings)
    networks, norms = by_hand(settings, passes=3, largest=largest)
    assert all(norm > 0.02 for norm in norms)  # so 0.01 clips
    for part in PARTS:
        got = training_data.state_of(result.checkpoint, part)
        for key, tensor in getattr(networks, part).state_dict().items():
            torch.testing.assert_close(got[key], tensor, rtol=0, atol=1e-9, msg=key)


def by_hand(settings, passes, largest):
    networks = build_networks(settings)
    buckets = find_videos(settings.data, Report())
    order = Order((len(buckets[0]),), 1, 1, settings.training.seed)
    samples = Samples(load_cache(settings, buckets), settings, order)
    learning = [p for p in networks.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    norms = []
    for step in range(settings.training.steps):
        optimizer.zero_grad(set_to_none=False)
        for forward in range(step * passes, (step + 1) * passes):
            sample = samples[order.requests(forward, 0)[0]]
            batch = conditions_of({name: t[None] for name, t in sample.items()}, None)
            (networks(batch) / passes).backward()
        for parameter in learning:  # what takes no part decays too
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        bound = largest or float("inf")
        norms.append(float(torch.nn.utils.clip_grad_norm_(learning, bound)))
        optimizer.step()
    return networks, norms


@pytest.mark.parametrize("single_file", [False, True])
def test_training_starts_from_stable_video_diffusions_unet(
    configured, training_weights, tmp_path, single_file
):
    """The adapter begins as a copy of the image attention; PoseNet and face encoder are new."""
    torch.manual_seed(5)
    unet = build_unet(training_data.UNET)
    state = {key: tensor for key, tensor in unet.state_dict().items() if ".processor." not in key}
    folder = tmp_path / "SVD" / "unet"
    name = "unet" if single_file else "diffusion_pytorch_model"
    file = folder / f"{name}.safetensors"
    save_weights(file, state, {"config": json.dumps(training_data.UNET)})
    svd = {"svd": str(file if single_file else tmp_path / "SVD")}
    others = {
        "vae": str(training_weights / "SVD" / "vae"),
        "image_encoder": str(training_weights / "SVD" / "image_encoder"),
    }
    settings = configured(networks={"start": "svd", **svd, **others}, training={"trainable": "official"})
    networks = build_networks(settings)
    got = networks.unet.state_dict()
    assert [key for key in state if not torch.equal(got[key], state[key])] == []
    adapted = [m for m in networks.unet.modules() if isinstance(getattr(m, "processor", None), IDAdapter)]
    assert adapted
    for layer in adapted:
        assert torch.equal(layer.processor.id_to_k.weight, layer.to_k.weight)
        assert torch.equal(layer.processor.id_to_v.weight, layer.to_v.weight)
    assert not networks.pose_net.final_proj.weight.any()
    assert train(settings).step == 2


def test_the_official_choice_leaves_residual_blocks_as_they_were(configured):
    settings = configured(training={"steps": 1, "trainable": "official"})
    start = training_data.start_of(settings)
    end = training_data.state_of(train(settings).checkpoint)
    changed = {key for key, tensor in end.items() if not torch.equal(tensor, start[f"unet.{key}"])}
    assert changed and all("attentions" in key for key in changed)
    # weight decay reaches what one image token makes idle, as in the official optimiser
    assert any("attn2.to_q" in key and "temporal" in key for key in changed)


def test_a_frozen_network_stands_still_while_the_others_learn(configured):
    run = configured("still", training={"frozen": ["face_encoder"], "steps": 2, "trainable": "all"})
    start, checkpoint = build_networks(run), train(run).checkpoint
    for part in PARTS:
        after = training_data.state_of(checkpoint, part)
        before = start.get_submodule(part).state_dict()
        still = all(torch.equal(after[key], before[key].float()) for key in before)
        assert still == (part == "face_encoder"), part
    with pytest.raises(InputError, match="unet, pose_net, face_encoder"):
        train(configured("wrong", training={"frozen": ["vae"], "steps": 1}))


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


def test_training_goes_on_from_official_files(configured):
    first = train(configured("first", training={"steps": 1})).checkpoint
    files = {part: str(first / f"{part}.pth") for part in PARTS}
    settings = configured("second", networks={"start": "stableanimator", **files}, training={"steps": 1})
    start = training_data.start_of(settings)
    for part in PARTS:
        for key, tensor in training_data.state_of(first, part).items():
            assert torch.equal(start[f"{part}.{key}"], tensor)
    assert train(settings).step == 1


def test_checkpoints_load_into_the_animator_with_the_mean_weights(configured, training_weights):
    result = train(configured(training={"steps": 3}, ema={"enabled": True}))
    folder = result.checkpoint
    mean, last = load.load_unet(folder / "unet.safetensors"), load.load_unet(folder / "unet.pth")
    heads = [tuple(unet.config.num_attention_heads) for unet in (mean, last)]
    assert heads == [(2, 2), (2, 2)]
    assert not torch.equal(mean.conv_out.weight, last.conv_out.weight)
    trained = training_data.loaded(folder / "ema.safetensors")
    assert torch.equal(mean.conv_out.weight, trained["unet.conv_out.weight"])
    for part, loader in (("pose_net", load.load_pose_net), ("face_encoder", load.load_face_encoder)):
        states = [loader(folder / f"{part}.{end}").state_dict() for end in ("safetensors", "pth")]
        assert states[0].keys() == states[1].keys()
    animator = Animator.load(*(folder / f"{part}.safetensors" for part in PARTS), training_weights / "SVD")
    photo = np.full((64, 64, 3), 128, np.uint8)
    poses = np.zeros((2, 64, 64, 3), np.uint8)
    options = AnimationOptions(num_steps=1, window_size=2, overlap=1)
    made = animator.animate(photo, poses, np.ones(512, "f"), height=64, width=64, options=options)
    assert made.frames.shape == (2, 64, 64, 3)

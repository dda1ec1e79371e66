"""Animate Anyone's networks: official results, and every shortcut against the full computation written out."""

import copy
from pathlib import Path

import pytest
import torch
from network_models import largest_error

from stableanimator_core.animate_anyone import attention as aa_attention
from stableanimator_core.animate_anyone.attention import Reference
from stableanimator_core.animate_anyone.denoising_unet import (
    MOTION,
    build_denoising_unet,
    config_from,
    denoise,
    longest_window,
)
from stableanimator_core.animate_anyone.literal import denoise_literally
from stableanimator_core.animate_anyone.motion_module import MotionModule
from stableanimator_core.animate_anyone.pose_guider import PaperPoseGuider, PoseGuider, build_pose_guider
from stableanimator_core.animate_anyone.pose_guider import config_from as guider_config_from
from stableanimator_core.animate_anyone.reference_net import build_reference_net, write_reference
from stableanimator_core.animate_anyone.walk import transformer_block_names
from stableanimator_core.conformance.run import run_case
from stableanimator_core.errors import InputError

GOLDENS = Path(__file__).parents[1] / "goldens" / "animate_anyone"
TINY = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}
PAIR = (False, True)


def shaken(network, seed=0):
    """Random everywhere, also where training starts with ones and zeros."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = parameter.data + torch.randn_like(parameter) * (
            0.2 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        )
    return network.eval()


@pytest.fixture(scope="module")
def unet():
    return shaken(build_denoising_unet({**TINY, MOTION: {"max_frames": 8}}))


@pytest.fixture(scope="module")
def net():
    return shaken(build_reference_net(TINY), 1)


def inputs(batch=2, frames=3, size=(10, 6), tokens=1):
    generator = torch.Generator().manual_seed(3)
    sample = torch.randn(1, frames, 4, *size, generator=generator).repeat(batch, 1, 1, 1, 1)
    token = torch.randn(batch, tokens, 24, generator=generator)
    if batch == 2:
        token[0] = 0
    pose = torch.randn(frames, 32, *size, generator=generator)
    latents = torch.randn(1, 4, *size, generator=generator)
    return sample, token, pose, latents


def predict(unet, net, *, half=False, **options):
    sample, token, pose, latents = inputs()
    with torch.no_grad():
        reference = Reference(write_reference(net, latents, token[1:]), round_to_half=half)
        settings = {"pose_features": pose, "reference": reference, "reference_rows": PAIR} | options
        return denoise(unet, sample, torch.tensor(399), token, **settings)


@pytest.mark.parametrize("case", ["motion_module", "reference_unet", "denoising_unet"])
def test_official_results_come_out(case):
    rows = run_case(GOLDENS, case)
    assert rows and all(row.ok for row in rows), [row for row in rows if not row.ok]


@torch.no_grad()
def test_joining_the_maps_and_keeping_one_half_is_what_we_compute(unet, net):
    """The paper's words, and the official order: both halves in full, the unconditional one written over."""
    sample, token, pose, latents = inputs()
    features = write_reference(net, latents, token[1:])
    literal = denoise_literally(unet, sample, torch.tensor(399), token, pose, features)
    ours = predict(unet, net)
    assert largest_error(ours, literal) < 1e-5
    without = predict(unet, net, reference_rows=(False, False))
    assert largest_error(without[1], literal[1]) > 1e-2


def test_the_unconditional_half_never_sees_the_reference(unet, net):
    with_reference, without = predict(unet, net), predict(unet, net, reference=None)
    assert torch.equal(with_reference[0], without[0])
    assert largest_error(with_reference[1], without[1]) > 1e-2


@pytest.mark.parametrize("rows", [(True, False, True), (False, True, True), (True, True, True)])
@torch.no_grad()
def test_rows_in_any_order_get_what_they_get_alone(unet, net, rows):
    sample, token, pose, _ = inputs(batch=3)
    latents = torch.randn(sum(rows), 4, 10, 6, generator=torch.Generator().manual_seed(5))
    features = write_reference(net, latents, token[[row for row in range(3) if rows[row]]])
    together = denoise(
        unet,
        sample,
        torch.tensor(100),
        token,
        pose_features=pose,
        reference=Reference(features),
        reference_rows=rows,
    )
    seen = 0
    for row, sees in enumerate(rows):
        own = Reference({name: x[seen : seen + 1] for name, x in features.items()}) if sees else None
        seen += sees
        one = slice(row, row + 1)
        alone = denoise(unet, sample[one], torch.tensor(100), token[one], pose_features=pose, reference=own)
        assert largest_error(together[one], alone) < 1e-5


def test_keys_and_values_of_the_reference_are_made_once_and_give_the_same_again(unet, net, monkeypatch):
    sample, token, pose, latents = inputs()
    with torch.no_grad():
        features = write_reference(net, latents, token[1:])
        reference = Reference(features)
        settings = {"pose_features": pose, "reference_rows": PAIR}
        first = denoise(unet, sample, torch.tensor(399), token, reference=reference, **settings)
        kept = dict(reference._projected)
        again = denoise(unet, sample, torch.tensor(399), token, reference=reference, **settings)
        fresh = denoise(unet, sample, torch.tensor(399), token, reference=Reference(features), **settings)
    assert len(kept) == len(transformer_block_names(unet)) == len(features)
    assert all(reference._projected[name][0] is kept[name][0] for name in kept)
    assert torch.equal(first, again) and torch.equal(first, fresh)


def test_where_gradients_are_wanted_nothing_is_kept(unet, net):
    sample, token, pose, latents = inputs()
    features = write_reference(net, latents, token[1:])
    reference = Reference(features)
    denoise(unet, sample, torch.tensor(9), token, reference=reference, reference_rows=PAIR)
    assert reference._projected == {}


@torch.no_grad()
def test_one_token_answers_alike_whatever_is_asked(unet):
    """The shortcut against attention with all its queries."""
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    x, tokens = torch.randn(2, 3, 20, 32), torch.randn(2, 1, 24)
    tokens[0] = 0
    short = aa_attention.cross_attention(
        block.attn2,
        lambda: pytest.fail("not needed"),
        tokens,
        torch.nn.functional.scaled_dot_product_attention,
    )
    for row in range(2):
        full = block.attn2(
            block.norm2(x[row]).flatten(0, 1)[None], encoder_hidden_states=tokens[row : row + 1]
        )
        assert largest_error(short[row].expand(3, 20, 32).flatten(0, 1), full[0]) < 1e-5
    assert torch.allclose(short[0, 0, 0], block.attn2.to_out[0].bias)


@torch.no_grad()
def test_several_tokens_are_all_attended_to(unet, net):
    sample, token, pose, latents = inputs(tokens=3)
    features = write_reference(net, latents, token[1:])
    literal = denoise_literally(unet, sample, torch.tensor(50), token, pose, features)
    ours = denoise(
        unet,
        sample,
        torch.tensor(50),
        token,
        pose_features=pose,
        reference=Reference(features),
        reference_rows=PAIR,
    )
    assert largest_error(ours, literal) < 1e-5


def test_the_reference_network_stops_at_the_last_tensor_stored(net):
    _, token, _, latents = inputs()
    last = net.up_blocks[-1].attentions[-1].transformer_blocks[0]
    ran = []
    hooks = [last.norm1.register_forward_hook(lambda *_: ran.append("norm1"))]
    hooks += [last.attn1.to_q.register_forward_hook(lambda *_: ran.append("attention"))]
    try:
        with torch.no_grad():
            features = write_reference(net, latents, token[1:])
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == ["norm1"]
    assert list(features) == transformer_block_names(net)


def test_rounding_to_half_is_a_switch_and_off_by_default(unet, net):
    plain, rounded = predict(unet, net), predict(unet, net, half=True)
    assert torch.equal(plain[0], rounded[0])
    assert 1e-7 < largest_error(rounded[1], plain[1]) < 1e-2


def test_a_window_longer_than_the_position_table_is_refused(unet):
    sample, token, _, _ = inputs(frames=9)
    assert longest_window(unet) == 8
    with pytest.raises(InputError, match="9 frames, the motion modules know 8"):
        denoise(unet, sample, torch.tensor(1), token)


def test_without_motion_modules_frames_are_single_pictures(net):
    still = shaken(build_denoising_unet(TINY))
    sample, token, _, _ = inputs(batch=1, frames=3)
    sample[:, 1] = 7.0
    assert longest_window(still) is None
    with torch.no_grad():
        together = denoise(still, sample, torch.tensor(9), token)
        alone = denoise(still, sample[:, 2:], torch.tensor(9), token)
    assert largest_error(together[:, 2:], alone) < 1e-5


def test_fresh_motion_modules_change_nothing():
    x = torch.randn(6, 32, 4, 4)
    assert torch.equal(MotionModule(32)(x, 3), x)


def test_gradients_reach_both_networks_and_checkpointing_leaves_them_as_they_are(unet, net):
    sample, token, pose, latents = inputs()
    found = []
    for checkpointing in (False, True):
        pair = copy.deepcopy(unet), copy.deepcopy(net)
        for network in pair:
            network.requires_grad_(True).train()
            if checkpointing:
                network.enable_gradient_checkpointing()
        features = write_reference(pair[1], latents, token[1:])
        output = denoise(
            pair[0],
            sample,
            torch.tensor(99),
            token,
            pose_features=pose,
            reference=Reference(features),
            reference_rows=PAIR,
        )
        output.square().mean().backward()
        found.append({n: p.grad for network in pair for n, p in network.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert (gradient is None) == (found[1][name] is None), name
        if gradient is not None and gradient.abs().max() > 1e-8:
            assert largest_error(found[1][name], gradient) < 1e-4, name
    untouched = {name for name, gradient in found[0].items() if gradient is None}
    assert all(
        ".attn2.to_q" in n or ".attn2.to_k" in n or ".norm2" in n
        for n in untouched
        if "resnets" not in n and not n.startswith("up_blocks.1.")
    ), untouched


def test_configuration_is_read_from_the_shapes(unet):
    config = config_from(unet.state_dict())
    assert config[MOTION]["max_frames"] == 8
    rebuilt = build_denoising_unet({**config, "attention_head_dim": 4})
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in unet.state_dict().items()
    }


@pytest.mark.parametrize(
    ("guider", "widths"), [(PoseGuider, (16, 32, 96, 256)), (PaperPoseGuider, (16, 32, 64, 128))]
)
def test_both_pose_guiders_start_silent_give_eighths_and_are_told_from_their_files(guider, widths):
    network = guider(24)
    pictures = torch.rand(2, 3, 64, 44)
    assert network(pictures).shape == (2, 24, 8, 6)
    assert not network(pictures).any()
    state = network.state_dict()
    assert type(build_pose_guider(guider_config_from(state))) is guider
    assert guider.config_from(state) == {"out_channels": 24, "widths": widths}
    assert torch.equal(shaken(network)(pictures), network(pictures[None]))

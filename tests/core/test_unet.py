import copy

import pytest
import torch
from network_models import GOLDENS, largest_error, official_keys, on_meta, shapes, tiny_unet, unet_inputs
from torch import nn

from stableanimator_core.conformance.run import run_case
from stableanimator_core.models import fast_blocks
from stableanimator_core.models.unet import AdapterOptions, build_unet, config_from, denoise, set_plain


def plain_twin(unet):
    twin = copy.deepcopy(unet)
    set_plain(twin, True)
    return twin


def test_the_unet_gives_the_official_output_and_every_probe():
    rows = run_case(GOLDENS, "unet")
    assert rows and all(row.ok for row in rows), [row for row in rows if not row.ok]


def test_the_full_size_unet_has_exactly_the_official_keys():
    keys = official_keys("unet_full")
    with torch.device("meta"):
        unet = build_unet(config_from(on_meta(keys)))
    assert len(keys) == 1460
    assert shapes(unet) == keys
    assert unet.config["num_attention_heads"] == (5, 10, 20, 20)


def test_a_small_unet_is_rebuilt_from_its_shapes():
    keys = official_keys("unet_tiny")
    unet = build_unet(config_from(on_meta(keys), num_attention_heads=(2, 4, 4, 4)))
    assert shapes(unet) == keys


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"adapter": AdapterOptions(strength=0.0)},
        {"adapter": AdapterOptions(strength=0.4, alignment="mean")},
        {"adapter": AdapterOptions(alignment="none")},
        {"image_only": True},
    ],
)
@pytest.mark.parametrize("image_tokens", [1, 2])
def test_fast_and_plain_agree(options, image_tokens):
    unet = tiny_unet()
    arguments, pose = unet_inputs(batch=2, image_tokens=image_tokens, unconditional=True)
    with torch.no_grad():
        expected = denoise(plain_twin(unet), *arguments, pose_features=pose, **options)
        got = denoise(unet, *arguments, pose_features=pose, **options)
    assert largest_error(got, expected) < 1e-5


def test_taking_pieces_changes_nothing(monkeypatch):
    unet = tiny_unet()
    arguments, pose = unet_inputs(batch=2)
    with torch.no_grad():
        whole = denoise(unet, *arguments, pose_features=pose)
        monkeypatch.setattr(fast_blocks, "PIECE_BYTES", {"cpu": 50_000})
        pieces = denoise(unet, *arguments, pose_features=pose)
    assert largest_error(pieces, whole) < 1e-5


def test_both_guidance_halves_as_one_batch_equal_two_runs():
    unet = tiny_unet()
    (sample, timestep, tokens, ids), pose = unet_inputs(batch=2, unconditional=True)
    pose[:3] = 0
    with torch.no_grad():
        both = denoise(unet, sample, timestep, tokens, ids, pose_features=pose)
        alone = denoise(unet, sample[:1], timestep[:1], tokens[:1], ids[:1])
        other = denoise(unet, sample[1:], timestep[1], tokens[1:], ids[1:], pose_features=pose[3:])
    assert largest_error(both, torch.cat((alone, other))) < 1e-5


def test_time_never_sees_the_face_tokens():
    unet = tiny_unet()
    seen = []
    for name, module in unet.named_modules():
        if name.endswith("attn2.to_v") and ".temporal_transformer_blocks." in name:
            module.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[1]))
    arguments, _ = unet_inputs()
    with torch.no_grad():
        denoise(unet, *arguments)
    assert seen
    assert set(seen) == {1}


def test_inputs_stay_as_they_are_and_a_second_run_is_equal():
    unet = tiny_unet()
    arguments, pose = unet_inputs()
    before = [tensor.clone() for tensor in (*arguments, pose)]
    with torch.no_grad():
        first, second = (denoise(unet, *arguments, pose_features=pose) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(before, (*arguments, pose), strict=True))


def test_plain_runs_leave_no_hooks_or_options_behind():
    unet = tiny_unet(plain=True)
    arguments, pose = unet_inputs()
    with torch.no_grad():
        first = denoise(unet, *arguments)
        denoise(unet, *arguments, pose_features=pose, adapter=AdapterOptions(0.0), image_only=True)
        assert torch.equal(denoise(unet, *arguments), first)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_the_plain_ones(checkpointing):
    unet = tiny_unet()
    twin = plain_twin(unet)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    (sample, timestep, tokens, ids), pose = unet_inputs(batch=2, unconditional=True)
    pairs = []
    for network in (unet, twin):
        wanted = (tokens.clone().requires_grad_(), pose.clone().requires_grad_())
        denoise(network, sample, timestep, wanted[0], ids, pose_features=wanted[1]).square().mean().backward()
        pairs.append([w.grad for w in wanted] + [p.grad for p in network.parameters()])
    for got, expected in zip(*pairs, strict=True):
        if expected is None:  # one key needs no query: plain attention has a gradient of 0 there, or none
            assert got is None
        elif got is None:
            assert expected.abs().max() < 1e-6
        else:
            assert (got - expected).abs().max() <= 1e-3 * expected.abs().max() + 1e-6


def test_checkpointing_recomputes_the_blocks():
    unet = tiny_unet()
    unet.enable_gradient_checkpointing()
    calls = []
    first = unet.down_blocks[0].attentions[0].temporal_transformer_blocks[0]
    first.norm_in.register_forward_hook(lambda *_: calls.append(1))
    arguments, _ = unet_inputs()
    denoise(unet, *arguments).sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_close_to_float32(dtype):
    unet = tiny_unet()
    arguments, pose = unet_inputs()
    with torch.no_grad():
        expected = denoise(unet, *arguments, pose_features=pose)
        sample, timestep, tokens, ids = arguments
        half = denoise(
            unet.to(dtype), sample.to(dtype), timestep, tokens.to(dtype), ids, pose_features=pose.to(dtype)
        )
    assert half.dtype == dtype
    assert largest_error(half.float(), expected) < 0.1


class CastingLinear(nn.Linear):
    """Like ComfyUI's layers: weights are stored in another type and cast when the layer is called."""

    def forward(self, input):
        return nn.functional.linear(input, self.weight.to(input.dtype), self._bias(input))

    def _bias(self, input):
        return None if self.bias is None else self.bias.to(input.dtype)


class CastingConv2d(nn.Conv2d):
    def forward(self, input):
        return self._conv_forward(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


class CastingConv3d(nn.Conv3d):
    def forward(self, input):
        return self._conv_forward(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


class CastingGroupNorm(nn.GroupNorm):
    def forward(self, input):
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return nn.functional.group_norm(input, self.num_groups, weight, bias, self.eps)


class CastingLayerNorm(nn.LayerNorm):
    def forward(self, input):
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return nn.functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float8_e4m3fn])
def test_weights_may_be_stored_in_another_type_than_the_features(storage):
    unet = tiny_unet().requires_grad_(False)
    for parameter in unet.parameters():
        parameter.data = parameter.data.to(storage)
    expected_from = copy.deepcopy(unet).float()
    casting = (CastingLinear, CastingConv2d, CastingConv3d, CastingGroupNorm, CastingLayerNorm)
    classes = {kind.__bases__[0]: kind for kind in casting}
    for module in unet.modules():
        module.__class__ = classes.get(type(module), type(module))
    arguments, pose = unet_inputs()
    with torch.no_grad():
        got = denoise(unet, *arguments, pose_features=pose)
        expected = denoise(expected_from, *arguments, pose_features=pose)
    assert largest_error(got, expected) < 1e-6


def test_another_attention_kernel_is_used_where_given():
    unet = tiny_unet()
    arguments, _ = unet_inputs()
    calls = []

    def kernel(query, key, value):
        calls.append(query.shape)
        return nn.functional.scaled_dot_product_attention(query, key, value)

    with torch.no_grad():
        expected = denoise(unet, *arguments)
        assert torch.equal(denoise(unet, *arguments, attention=kernel), expected)
    assert calls

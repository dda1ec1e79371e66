"""The U-Net of the single Stable Video Diffusion file, where training starts, against ComfyUI's own class."""

from __future__ import annotations

import json

import pytest
import torch

from stableanimator_core.errors import WeightsError
from stableanimator_core.models.unet import AdapterOptions, build_unet, config_from, denoise
from stableanimator_core.training.svd_unet import PREFIX, read_svd_unet, to_diffusers
from stableanimator_core.weights.files import save_weights

HEAD_WIDTH, FRAMES, TOKEN = 16, 3, 48


@pytest.fixture(scope="module")
def comfy_unet(core_comfy):
    """ComfyUI's U-Net as its loader makes it for svd_xt.safetensors, but narrow and shallow; random weights."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    unet = UNetModel(
        image_size=32,
        in_channels=8,
        model_channels=32,
        out_channels=4,
        num_res_blocks=[1, 1],
        channel_mult=[1, 2],
        transformer_depth=[1, 0],
        transformer_depth_middle=1,
        transformer_depth_output=[1, 1, 0, 0],
        num_head_channels=HEAD_WIDTH,
        num_classes="sequential",
        adm_in_channels=96,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        legacy=False,
        context_dim=TOKEN,
        use_temporal_resblock=True,
        use_temporal_attention=True,
        extra_ff_mix_layer=True,
        use_spatial_context=True,
        merge_strategy="learned_with_images",
        video_kernel_size=[3, 1, 1],
        operations=comfy.ops.disable_weight_init,
    )
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, value in unet.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        fan_in = max(1, value[0].numel()) if value.ndim else 1
        norm = value.ndim == 1 and key.endswith("weight")
        state[key] = noise / fan_in**0.5 if value.ndim >= 2 else 1 + 0.2 * noise if norm else 0.3 * noise
    unet.load_state_dict(state)
    return unet.eval().requires_grad_(False)


def test_the_converted_unet_predicts_what_comfyuis_does(comfy_unet):
    state = to_diffusers(comfy_unet.state_dict())
    heads = [32 // HEAD_WIDTH, 64 // HEAD_WIDTH]
    unet = build_unet(config_from(state, heads)).eval()
    unmatched = unet.load_state_dict(state, strict=False)
    assert unmatched.unexpected_keys == []
    assert all(".processor.id_to_" in key for key in unmatched.missing_keys)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, FRAMES, 8, 16, 16, generator=generator)
    token, ids = torch.randn(1, 1, TOKEN, generator=generator), torch.tensor([[6.0, 127.0, 0.02]])
    tokens = torch.cat((token, torch.zeros(1, 4, TOKEN)), dim=1)
    with torch.no_grad():
        ours = denoise(unet, sample, torch.tensor([0.3]), tokens, ids, adapter=AdapterOptions(strength=0))
        theirs = comfy_unet(
            sample[0],
            torch.full((FRAMES,), 0.3),
            context=token.repeat(FRAMES, 1, 1),
            y=unet.add_time_proj(ids.flatten()).view(1, -1).repeat(FRAMES, 1),
            num_video_frames=FRAMES,
            image_only_indicator=torch.zeros(1, FRAMES),
        )
    torch.testing.assert_close(ours[0], theirs, rtol=1e-3, atol=1e-4)


def test_it_is_read_from_the_single_file_and_from_the_diffusers_folder(comfy_unet, tmp_path):
    single = {PREFIX + key: tensor for key, tensor in comfy_unet.state_dict().items()}
    save_weights(tmp_path / "svd.safetensors", single | {"first_stage_model.x": torch.zeros(1)})
    state, config, source = read_svd_unet(tmp_path / "svd.safetensors")
    assert source == tmp_path / "svd.safetensors"
    assert config["block_out_channels"] == (32, 64)
    folder = tmp_path / "SVD" / "unet"
    save_weights(folder / "diffusion_pytorch_model.fp16.safetensors", state)
    described = {"_class_name": "UNetSpatioTemporalConditionModel", **config, "num_attention_heads": [2, 4]}
    (folder / "config.json").write_text(json.dumps(described))
    again, from_folder, _ = read_svd_unet(tmp_path / "SVD")
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)
    assert from_folder["num_attention_heads"] == [2, 4]


def test_another_model_is_refused(tmp_path):
    save_weights(tmp_path / "other.safetensors", {"some.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="is not a U-Net of Stable Video Diffusion"):
        read_svd_unet(tmp_path / "other.safetensors")
    save_weights(
        tmp_path / "odd.safetensors",
        {f"{PREFIX}input_blocks.0.0.weight": torch.zeros(1), f"{PREFIX}x.y": torch.zeros(1)},
    )
    with pytest.raises(WeightsError, match="unknown key"):
        read_svd_unet(tmp_path / "odd.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="holds no U-Net"):
        read_svd_unet(tmp_path / "empty")

"""The CLIP image encoder: configuration from shapes, and building without memory."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from stableanimator_core.errors import WeightsError
from stableanimator_core.models.image_encoder import build_image_encoder, config_from

KEYS = Path(__file__).parents[1] / "keys"
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
    "projection_dim": 24,
}


@pytest.mark.parametrize(
    ("layout", "width", "heads", "layers", "projection", "activation"),
    [
        ("image_encoder", 1280, 16, 32, 1024, "gelu"),
        ("image_encoder_vit_l", 1024, 16, 24, 768, "quick_gelu"),
    ],
)
def test_published_encoders_are_told_from_their_shapes(layout, width, heads, layers, projection, activation):
    listed = json.loads(gzip.decompress((KEYS / f"{layout}.json.gz").read_bytes()))
    config = config_from({key: torch.empty(shape, device="meta") for key, (shape, _) in listed.items()})
    assert config == {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 224,
        "patch_size": 14,
        "projection_dim": projection,
        "hidden_act": activation,
    }


def test_an_unknown_width_is_refused_rather_than_guessed():
    with pytest.raises(WeightsError, match="32 wide"):
        config_from(build_image_encoder(SMALL).state_dict())


def test_built_without_memory_it_runs_as_soon_as_it_is_filled():
    torch.manual_seed(0)
    filled = build_image_encoder(SMALL).eval()
    with torch.device("meta"):
        empty = build_image_encoder(SMALL).eval()
    assert all(parameter.is_meta for parameter in empty.parameters())
    empty.load_state_dict(filled.state_dict(), assign=True)
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(empty(pixels).image_embeds, filled(pixels).image_embeds)

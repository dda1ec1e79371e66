import torch
from network_models import GOLDENS, official_keys, on_meta, shapes

from stableanimator_core.conformance.run import run_case
from stableanimator_core.models.iresnet import IResNet

SMALL = {"layers": (1, 2, 1), "widths": (8, 8, 16), "stem_width": 8, "embedding_width": 32, "face_size": 64}


def test_iresnet_gives_the_official_embedding():
    rows = run_case(GOLDENS, "iresnet100")
    assert rows and all(row.ok for row in rows), rows


def test_iresnet_has_exactly_the_official_keys():
    keys = official_keys("iresnet100")
    config = IResNet.config_from(on_meta(keys))
    with torch.device("meta"):
        network = IResNet(**config)
    assert len(keys) == 925
    assert config["layers"] == (3, 13, 30, 3)
    assert shapes(network) == keys


def test_a_small_variant_is_rebuilt_from_its_shapes():
    network = IResNet(**SMALL)
    config = IResNet.config_from(network.state_dict())
    assert config == SMALL
    assert shapes(IResNet(**config)) == shapes(network)


def test_the_embedding_has_a_gradient_to_the_picture():
    network = IResNet(**SMALL).eval()
    face = torch.randn(2, 3, 64, 64, requires_grad=True)
    network(face).sum().backward()
    assert face.grad is not None
    assert face.grad.abs().sum() > 0

import torch
from network_models import GOLDENS, official_keys, on_meta, shapes

from stableanimator_core.conformance.run import run_case
from stableanimator_core.models.face_encoder import FaceEncoder


def tiny():
    torch.manual_seed(0)
    encoder = FaceEncoder(token_width=64, identity_width=16, image_width=48, depth=2)
    torch.nn.init.normal_(encoder.fusion_model.proj_out.weight)
    return encoder


def test_face_encoder_gives_the_official_tokens():
    rows = run_case(GOLDENS, "face_encoder")
    assert rows and all(row.ok for row in rows), rows


def test_face_encoder_has_exactly_the_official_keys():
    keys = official_keys("face_encoder_full")
    with torch.device("meta"):
        encoder = FaceEncoder(**FaceEncoder.config_from(on_meta(keys)))
    assert len(keys) == 56
    assert shapes(encoder) == keys


def test_config_from_reads_every_size_from_the_shapes():
    encoder = FaceEncoder(
        token_width=128, identity_width=16, image_width=48, num_tokens=3, depth=2, ff_mult=2
    )
    rebuilt = FaceEncoder(**FaceEncoder.config_from(encoder.state_dict()))
    assert shapes(rebuilt) == shapes(encoder)


def test_without_fusion_the_picture_does_not_matter():
    encoder, identity = tiny(), torch.randn(2, 16)
    first, second = (encoder(identity, torch.randn(2, 1, 48), fuse=False) for _ in range(2))
    assert torch.equal(first, second)


def test_with_fusion_the_picture_matters():
    encoder, identity = tiny(), torch.randn(2, 16)
    first, second = (encoder(identity, torch.randn(2, 1, 48)) for _ in range(2))
    assert (first - second).abs().max() > 1e-3


def test_training_starts_from_zero_tokens():
    encoder = FaceEncoder(token_width=64, identity_width=16, image_width=48, depth=1)
    assert not encoder(torch.randn(1, 16), torch.randn(1, 1, 48)).any()

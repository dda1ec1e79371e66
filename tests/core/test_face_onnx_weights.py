"""ArcFace's torch weights read out of ONNX files that torch's own exporter wrote."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import standins
import torch

from stableanimator_core.errors import WeightsError
from stableanimator_core.face.onnx_weights import torch_weights_from_onnx
from stableanimator_core.face.recognisers import OnnxRecogniser, TorchRecogniser
from stableanimator_core.models.iresnet import IResNet

GOLDENS = Path(__file__).parents[1] / "goldens"
SMALL = {"layers": (1, 2, 1, 1), "widths": (8, 12, 12, 16), "stem_width": 8}


def network(**config) -> IResNet:
    """An IResNet in which no norm is an identity."""
    torch.manual_seed(0)
    model = IResNet(**config).eval().requires_grad_(False)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.8, 1.2)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.normal_(0.2 if "prelu" in name or name.endswith("bias") else 1.0, 0.1)
    return model


def export(model: IResNet, path: Path, *, folded: bool = True) -> Path:
    """As glintr100.onnx was made: torch's exporter folds norms into convolutions, unless told that it
    trains.
    """
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.randn(1, 3, 112, 112),),
            str(path),
            dynamo=False,
            opset_version=11,
            training=mode,
            input_names=["input.1"],
            dynamic_axes={"input.1": {0: "None"}},
        )
    return path


@pytest.mark.parametrize("folded", [True, False])
def test_weights_read_from_onnx_give_the_same_embedding(tmp_path, folded):
    model = network(**SMALL)
    path = export(model, tmp_path / "glintr100.onnx", folded=folded)
    state = torch_weights_from_onnx(path)
    rebuilt = IResNet(**IResNet.config_from(state)).eval().requires_grad_(False)
    rebuilt.load_state_dict(state)
    crops = np.random.RandomState(1).randint(0, 256, (3, 112, 112, 3)).astype(np.uint8)
    through_torch = TorchRecogniser(rebuilt).embed(crops)
    for other in (OnnxRecogniser(path, "cpu").embed(crops), TorchRecogniser(model).embed(crops)):
        largest = float((through_torch - other).abs().max() / other.abs().max())
        assert largest < 2e-6
    assert through_torch.std() > 0.1


def test_a_norm_with_another_epsilon_gives_the_same_embedding(tmp_path):
    model = network(**SMALL)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eps = 1e-2
    path = export(model, tmp_path / "eps.onnx")
    state = torch_weights_from_onnx(path)
    rebuilt = IResNet(**IResNet.config_from(state)).eval()
    rebuilt.load_state_dict(state)
    crops = np.random.RandomState(1).randint(0, 256, (2, 112, 112, 3)).astype(np.uint8)
    ours, theirs = TorchRecogniser(rebuilt).embed(crops), OnnxRecogniser(path, "cpu").embed(crops)
    assert (ours - theirs).abs().max() < 2e-6 * theirs.abs().max()


def test_folded_norms_are_really_folded_in_the_file_under_test(tmp_path):
    import onnx

    counts = []
    for folded in (True, False):
        graph = onnx.load(str(export(network(**SMALL), tmp_path / "x.onnx", folded=folded))).graph
        counts.append(sum(node.op_type == "BatchNormalization" for node in graph.node))
    assert counts[0] < counts[1]


def test_the_layout_of_the_100_layer_network_is_the_published_one(tmp_path):
    model = network(layers=(3, 13, 30, 3), widths=(2, 2, 2, 2), stem_width=2)
    state = torch_weights_from_onnx(export(model, tmp_path / "deep.onnx"))
    published = json.loads((GOLDENS / "keys_iresnet100.json").read_text())
    assert set(state) == set(published)
    assert len(state) == 925
    assert state["bn1.num_batches_tracked"].dtype == torch.int64
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }


def test_the_file_is_not_changed_and_the_tensors_are_their_own(tmp_path):
    path = export(network(**SMALL), tmp_path / "a.onnx")
    before = path.read_bytes()
    state = torch_weights_from_onnx(path)
    state["conv1.weight"].zero_()
    assert torch_weights_from_onnx(path)["conv1.weight"].abs().max() > 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["arcface", "scrfd"])
def test_another_network_is_refused_by_name(tmp_path, kind):
    path = getattr(standins, kind)(tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match=r"other\.onnx.*no ArcFace IResNet"):
        torch_weights_from_onnx(path)


def test_a_network_that_goes_on_is_refused(tmp_path):
    import onnx

    path = export(network(**SMALL), tmp_path / "longer.onnx")
    model = onnx.load(str(path))
    last = model.graph.output[0].name
    model.graph.node.append(onnx.helper.make_node("Sigmoid", [last], ["more"]))
    model.graph.output[0].name = "more"
    onnx.save(model, str(path))
    with pytest.raises(WeightsError, match="goes on after the last layer"):
        torch_weights_from_onnx(path)


def test_a_damaged_file_is_refused(tmp_path):
    path = export(network(**SMALL), tmp_path / "cut.onnx")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"cut\.onnx"):
        torch_weights_from_onnx(path)
    with pytest.raises(WeightsError, match="does not exist"):
        torch_weights_from_onnx(tmp_path / "none.onnx")

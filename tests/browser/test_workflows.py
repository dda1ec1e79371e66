"""Every shipped workflow in the real frontend: complete, convertible, accepted by the server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comfy_client import PromptRefused
from workflow_api import inputs_in_order, to_api

FOLDER = Path(__file__).resolve().parents[2] / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
MODEL_SUFFIXES = (".safetensors", ".sft", ".pth", ".pt", ".ckpt", ".bin", ".onnx")

pytestmark = pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def loaded(frontend, path):
    """The page with the workflow on its canvas."""
    frontend.complaints.clear()
    frontend.close_dialogs()
    frontend.load(read(path))
    return frontend


def test_a_workflow_loads_without_missing_nodes_alerts_or_page_errors(loaded):
    assert not loaded.missing_types()
    assert not loaded.alerts()
    assert not loaded.complaints


def test_every_node_of_a_workflow_is_ours_or_comfyuis_own(comfy, path):
    known = comfy.client.object_info()
    allowed = ("custom_nodes.stableanimator", "nodes", "comfy_extras")
    for node in read(path)["nodes"]:
        if node["type"] in known:
            module = known[node["type"]]["python_module"]
            assert module == allowed[0] or module.split(".")[0] in allowed[1:], node["type"]


def test_the_server_accepts_what_the_frontend_makes_of_a_workflow(loaded, comfy):
    prompt = loaded.prompt()
    assert prompt
    try:
        prompt_id = comfy.client.queue(with_offered_files(prompt, comfy.client.object_info()))
    except PromptRefused as refused:
        pytest.fail(f"{refused}\n{json.dumps(refused.answer, indent=1)[:3000]}")
    comfy.client.cancel(prompt_id)


def with_offered_files(prompt: dict, object_info: dict) -> dict:
    """The prompt with the demo's weights where the official ones are not installed."""
    from demo_prompt import use_installed_weights

    return use_installed_weights(prompt, object_info)


def test_our_own_conversion_gives_the_frontends_prompt(loaded, comfy, path):
    object_info = comfy.client.object_info()
    ours = to_api(read(path), object_info)
    theirs = loaded.prompt()
    assert {node: part["class_type"] for node, part in ours.items()} == {
        node: part["class_type"] for node, part in theirs.items()
    }
    for node, part in theirs.items():
        known = {name for name, _, _ in inputs_in_order(object_info[part["class_type"]])}
        # Its own widgets, such as the player of Load Video, go into its prompt; the server passes them over.
        theirs_known = {name: value for name, value in part["inputs"].items() if name in known}
        assert ours[node]["inputs"] == theirs_known, node


def test_the_gallery_has_a_picture_for_a_workflow(path, comfy):
    from PIL import Image

    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 200


def test_the_gallery_offers_the_workflow(comfy, path):
    listed = comfy.client.get("/workflow_templates").json()
    assert path.stem in listed["stableanimator"]
    for suffix in (".json", ".jpg"):
        assert comfy.client.get(f"/api/workflow_templates/stableanimator/{path.stem}{suffix}").ok, suffix


def test_every_weight_file_of_a_workflow_can_be_offered_when_it_is_missing(path):
    """The frontend drops an entry of properties.models whose name is not among the node's widget values."""
    for node in read(path)["nodes"]:
        values = node.get("widgets_values") or []
        offered = (node.get("properties") or {}).get("models") or []
        for model in offered:
            assert {"name", "url", "directory"} <= set(model), model
            assert model["name"] in values, f"{model['name']} is not a value of node {node['id']}"
            assert model["url"].startswith("https://huggingface.co/"), model["url"]
        weights = [value for value in values if isinstance(value, str) and value.endswith(MODEL_SUFFIXES)]
        if node["type"].startswith("StableAnimator_"):
            assert set(weights) <= {model["name"] for model in offered}, f"node {node['id']} of {path.name}"


def test_a_node_of_ours_says_which_pack_it_comes_from(path):
    for node in read(path)["nodes"]:
        if node["type"].startswith("StableAnimator_"):
            assert node["properties"].get("cnr_id") == "stableanimator", node["id"]

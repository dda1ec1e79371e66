"""The pack in a real server: it loads, costs nothing at start-up, and every node explains itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

IMPORT_AS_COMFYUI_DOES = """
import asyncio, json, sys, time
base = sys.argv[1]
sys.argv = ["main.py", "--cpu", "--base-directory", base]
import comfy.options
comfy.options.enable_args_parsing()
import nodes
import comfy_api.latest
before, began = set(sys.modules), time.perf_counter()
loaded = asyncio.run(nodes.load_custom_node(base + "/custom_nodes/stableanimator"))
seconds = time.perf_counter() - began
print(json.dumps({"loaded": loaded, "seconds": seconds, "new": sorted(set(sys.modules) - before)}))
"""
HEAVY = (
    "accelerate",
    "cv2",
    "diffusers",
    "insightface",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "skimage",
    "transformers",
)
DOC_LINK = re.compile(r"""\]\(([^)\s]+)|src=["']([^"']+)""")


def test_the_server_loads_the_pack_without_a_complaint(comfy):
    log = comfy.log().split("got prompt")[0]  # other tests provoke errors later
    assert "IMPORT FAILED" not in log
    assert "Traceback" not in log
    assert "stableanimator" in log


def test_loading_the_pack_at_start_imports_nothing_heavy(comfy):
    command = [sys.executable, "-c", IMPORT_AS_COMFYUI_DOES, str(comfy.base)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(command, cwd=comfy.comfyui, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.strip().splitlines()[-1])
    assert found["loaded"], answer.stderr
    new = {name.split(".")[0] for name in found["new"]}
    assert not new & set(HEAVY), (
        "these cost every ComfyUI start, also of people who do not use the pack today"
    )
    assert found["seconds"] < 2


def test_there_are_nodes_and_their_ids_carry_the_packs_name(object_info):
    assert object_info
    assert all(node.startswith("StableAnimator_") for node in object_info)


def test_every_node_has_a_display_name_a_category_and_a_description(object_info):
    for node, info in object_info.items():
        assert info["display_name"] and info["display_name"] != node, node
        assert len(info["description"]) > 20, node
        assert info["category"].startswith("StableAnimator"), node


def test_every_input_has_a_tooltip(object_info):
    silent = [
        f"{node}.{name}"
        for node, info in object_info.items()
        for part in ("required", "optional")
        for name, spec in (info["input"].get(part) or {}).items()
        if len(spec) < 2 or not spec[1].get("tooltip")
    ]
    assert not silent


def test_every_output_has_a_tooltip(object_info):
    for node, info in object_info.items():
        tooltips = info.get("output_tooltips") or []
        assert len(tooltips) == len(info["output"]), node
        assert all(tooltips), node


def test_every_node_has_a_help_page_and_nothing_it_shows_is_missing(object_info, repository):
    docs = repository / "web" / "docs"
    for node in object_info:
        pages = [docs / f"{node}.md", *sorted((docs / node).glob("*.md"))]
        pages = [page for page in pages if page.is_file()]
        assert pages, f"no help page for {node}"
        for page in pages:
            text = page.read_text(encoding="utf-8")
            assert len(text) > 200, page
            for link in local_links(text):
                assert (docs / link).is_file(), f"{page.name} shows {link}, which is not in web/docs"


def local_links(text: str) -> list[str]:
    """Relative links of a help page; the frontend resolves them against web/docs."""
    links = ["".join(match).split("#")[0] for match in DOC_LINK.findall(text)]
    return [link for link in links if link and not re.match(r"[a-z]+:|/|#", link)]


def test_the_server_hands_out_the_help_pages(comfy, object_info):
    for node in object_info:
        answer = comfy.client.get(f"/extensions/stableanimator/docs/{node}.md")
        other = comfy.client.get(f"/extensions/stableanimator/docs/{node}/en.md")
        assert answer.ok or other.ok, node


def test_the_english_texts_are_those_of_the_schemas(object_info):
    from locales import TARGET, locale_file

    assert TARGET.read_text(encoding="utf-8") == locale_file(object_info), "run python3 scripts/locales.py"


def test_every_translation_has_the_keys_of_the_english_texts(repository):
    def keys(value, path=""):
        if not isinstance(value, dict):
            return {path}
        return {found for name, inner in value.items() for found in keys(inner, f"{path}/{name}")}

    english = json.loads((repository / "locales/en/nodeDefs.json").read_text(encoding="utf-8"))
    for path in sorted((repository / "locales").glob("*/nodeDefs.json")):
        assert keys(json.loads(path.read_text(encoding="utf-8"))) == keys(english), path.parent.name


@pytest.mark.parametrize("file", ["portrait", "motion"])
def test_the_sample_inputs_are_there_for_the_workflows(comfy, file):
    import sample_inputs

    name = {"portrait": sample_inputs.PORTRAIT, "motion": sample_inputs.MOTION.name}[file]
    assert (Path(comfy.base) / "input" / name).stat().st_size > 1000

"""The two layers stay apart: the core is plain Python and PyTorch and never asks for ComfyUI."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CORE = REPOSITORY / "stableanimator_core"
COMFYUI = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "comfy_execution",
    "execution",
    "folder_paths",
    "latent_preview",
} | {
    "node_helpers",
    "nodes",
    "server",
}
HEAVY = {"diffusers", "transformers", "insightface", "onnxruntime", "cv2", "scipy"}
FILES = sorted(CORE.rglob("*.py"))


def imports(path: Path) -> list[tuple[int, str, int]]:
    """(relative level, module, line) of every import, also those inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", node.lineno))
    return found


def test_there_is_a_core_to_look_at():
    assert len(FILES) > 40
    assert any(module == "torch" for path in FILES for _, module, _ in imports(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_imports_no_comfyui_and_itself_only_relatively(path):
    depth = len(path.relative_to(CORE).parts)
    for level, module, line in imports(path):
        top = module.split(".")[0]
        assert level or top not in COMFYUI, f"line {line}: {module} belongs to ComfyUI"
        assert level or top != "stableanimator_core", f"line {line}: import {module} relatively"
        assert level <= depth, f"line {line}: leads out of the core"


def test_the_core_names_no_comfyui_module_in_any_other_way():
    """importlib and __import__ would slip past the test above."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(
                getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", "")
            )
            if isinstance(node, ast.Call) and name in ("import_module", "__import__", "find_spec"):
                constants = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                assert not {str(value).split(".")[0] for value in constants} & COMFYUI, path


def test_the_nodes_reach_the_core_relatively_so_that_any_folder_name_works():
    for path in sorted((REPOSITORY / "nodes").glob("*.py")):
        for level, module, line in imports(path):
            assert level or not module.startswith("stableanimator_core"), f"{path.name}, line {line}"


def test_the_facade_can_be_imported_where_comfyui_is_not_and_brings_nothing_heavy():
    program = (
        "import sys\n"
        f"for name in {sorted(COMFYUI)!r}: sys.modules[name] = None\n"
        "import stableanimator_core, stableanimator_core.pipeline, stableanimator_core.decode\n"
        f"heavy = {HEAVY!r} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY.parent
    )
    assert answer.returncode == 0, answer.stderr

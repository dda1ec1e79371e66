"""The pack loaded into this process as ComfyUI loads it, on the CPU, with the small random weights."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from stableanimator_core import demo_weights

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def core_comfy(comfyui: Path) -> ModuleType:
    """ComfyUI's own `nodes` module, imported without a server."""
    sys.path.insert(0, str(comfyui))
    arguments, sys.argv = sys.argv, ["main.py", "--cpu"]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
    finally:
        sys.argv = arguments
    import nodes

    return nodes


@pytest.fixture(scope="session")
def pack(
    core_comfy: ModuleType, small_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """Our nodes by short name, for example `pack.PoseDraw.execute(...)`; `pack.module` imports the pack's files."""
    import folder_paths

    base = tmp_path_factory.mktemp("comfyui")
    for name in ("input", "output", "temp", "models"):
        (base / name).mkdir()
    folder_paths.set_input_directory(str(base / "input"))
    folder_paths.set_output_directory(str(base / "output"))
    folder_paths.set_temp_directory(str(base / "temp"))
    folder_paths.models_dir = str(base / "models")
    demo_weights.write(base / "models" / "stableanimator")

    name = "stableanimator_pack"
    spec = importlib.util.spec_from_file_location(
        name, REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    importlib.import_module(f"{name}.stableanimator_core.small_model").folder = lambda: small_weights
    extension = asyncio.run(module.comfy_entrypoint())
    nodes = {node.__name__: node for node in asyncio.run(extension.get_node_list())}
    for node in nodes.values():
        node.GET_SCHEMA()
    return SimpleNamespace(
        **nodes, base=base, module=lambda path: importlib.import_module(f".{path}", name), nodes=nodes
    )


@pytest.fixture(scope="session")
def models(pack: SimpleNamespace) -> SimpleNamespace:
    """The random models through Load Animator Models."""
    outputs = pack.LoadAnimatorModels.execute(
        "unet.safetensors", "pose_net.safetensors", "face_encoder.safetensors", "SVD/", "default"
    ).args
    names = ("model", "clip_vision", "vae", "pose_net", "face_encoder")
    return SimpleNamespace(**dict(zip(names, outputs, strict=True)))

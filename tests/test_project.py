"""The project's own promises: packaging, layout, and what its code may import."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
NOT_FOR_THE_CORE = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "folder_paths",
    "nodes",
    "server",
}
READ_CONFIGURATION = """
import json
from comfy_cli.registry.config_parser import extract_node_configuration as read
found = read("pyproject.toml")
print(json.dumps({
    "name": found.project.name, "version": found.project.version, "dependencies": found.project.dependencies,
    "publisher": found.tool_comfy.publisher_id, "display_name": found.tool_comfy.display_name,
    "supported_comfyui": found.project.supported_comfyui_version,
}))
"""


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def files_below(folder: str, pattern: str = "*.py") -> list[Path]:
    return sorted((REPOSITORY / folder).rglob(pattern))


def imported_names(path: Path) -> set[str]:
    """Top-level names of absolute imports, at any depth of the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0
    }
    return {name.split(".")[0] for name in names}


def test_requirements_txt_lists_the_projects_dependencies(project):
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").split("\n")
    assert [line for line in lines if line] == project["project"]["dependencies"]


def test_the_environment_fits_the_stated_dependencies(project):
    from importlib.metadata import version

    from packaging.requirements import Requirement

    for dependency in map(Requirement, project["project"]["dependencies"]):
        assert version(dependency.name) in dependency.specifier, dependency


def test_the_oldest_diffusers_that_is_tested_is_the_oldest_that_is_allowed(project):
    import env_build
    from packaging.requirements import Requirement

    allowed = next(
        Requirement(text) for text in project["project"]["dependencies"] if text.startswith("diffusers")
    )
    assert env_build.OLDEST_DIFFUSERS in allowed.specifier
    assert "0.34.0" not in allowed.specifier


def test_the_core_imports_nothing_of_comfyui():
    for path in files_below("stableanimator_core"):
        assert not imported_names(path) & NOT_FOR_THE_CORE, path


@pytest.mark.parametrize("folder", ["stableanimator_core", "nodes"])
def test_imports_inside_the_pack_are_relative(folder):
    """ComfyUI loads a pack from its path under a made-up name: `import stableanimator_core` fails there."""
    for path in files_below(folder):
        assert "stableanimator_core" not in imported_names(path), path


def test_there_is_no_v1_mapping_which_would_hide_the_v3_nodes():
    for path in [REPOSITORY / "__init__.py", *files_below("nodes")]:
        assert "NODE_CLASS_MAPPINGS" not in path.read_text(encoding="utf-8"), path


def test_the_root_package_can_be_imported_without_comfyui():
    code = f"import runpy; runpy.run_path({str(REPOSITORY / '__init__.py')!r})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert answer.returncode == 0, answer.stderr


def test_the_promised_workflows_are_shipped():
    names = {path.stem for path in files_below("workflows", "*.json")}
    assert {"animate-from-keypoints", "long-clip"} <= names


def test_only_one_folder_can_be_taken_for_the_template_gallery():
    """The server serves the first of these that it meets; what lies in another is listed and not found."""
    others = ("example_workflows", "example", "examples", "workflow")
    assert not [name for name in others if (REPOSITORY / name).exists()]


def test_every_script_below_web_is_meant_for_the_page():
    """The frontend imports every .js file below web/ when it starts."""
    assert not [path for path in files_below("web", "*.js") if path.parent.name in ("lib", "vendor", "docs")]


def test_every_json_file_is_readable():
    for folder in ("assets", "locales", "workflows"):
        for path in files_below(folder, "*.json"):
            json.loads(path.read_text(encoding="utf-8"))


def test_what_a_user_gets_is_complete_and_holds_no_tests():
    from comfy_server import pack_files

    folders = {path.split("/")[0] for path in pack_files()}
    assert {
        "__init__.py",
        "nodes",
        "stableanimator_core",
        "workflows",
        "web",
        "locales",
        "LICENSE",
    } <= folders
    assert not folders & {"tests", "scripts", ".ci", ".git", "benchmarks"}


@pytest.fixture(scope="module")
def comfy_cli() -> Path:
    """The interpreter with comfy-cli; made when it is missing."""
    import env

    return env.find().ensure_comfy_cli()


@pytest.fixture(scope="module")
def copy_with_git(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a commit of its own, since packing reads git's list and writes beside it."""
    import shutil

    import comfy_server

    folder = tmp_path_factory.mktemp("copy")
    git = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in sorted(comfy_server.git_paths(git)):
        if (REPOSITORY / name).is_file() and not name.startswith("tests/goldens"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "copy"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def run_comfy_cli(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run it with a home of its own, so that it neither reads nor writes the user's settings."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    variables = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "NO_COLOR": "1"}
    variables.pop("PYTHONPATH", None)
    return subprocess.run(
        [str(python), *arguments], cwd=folder, env=variables, capture_output=True, text=True
    )


def test_the_registrys_tool_reads_our_pyproject(comfy_cli, copy_with_git, project):
    answer = run_comfy_cli(comfy_cli, copy_with_git, "-c", READ_CONFIGURATION)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.strip().splitlines()[-1])
    assert found["name"] == project["project"]["name"]
    assert found["version"] == project["project"]["version"]
    assert found["publisher"] and found["display_name"]
    assert found["supported_comfyui"] == ">=0.3.75"
    assert found["dependencies"] == project["project"]["dependencies"]


def test_the_registrys_tool_packs_what_a_user_gets(comfy_cli, copy_with_git):
    from comfy_server import pack_files

    comfy = (comfy_cli, copy_with_git, "-m", "comfy_cli", "--skip-prompt")
    run_comfy_cli(*comfy, "tracking", "disable")
    checked = run_comfy_cli(*comfy, "node", "validate")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    packed = run_comfy_cli(*comfy, "node", "pack")
    assert packed.returncode == 0, packed.stdout + packed.stderr
    with zipfile.ZipFile(copy_with_git / "node.zip") as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == set(pack_files())


def test_scripts_need_nothing_but_python_before_the_environment_is_made():
    """The demo, the tests and env.py start on a bare machine."""
    outside = {"aiohttp", "numpy", "PIL", "pytest", "requests", "skimage", "torch"}
    names = ("env", "env_build", "frontend", "test", "locales", "browser")
    for name in (*names, "demo", "demo_prompt", "demo_small", "puppet_pictures"):
        tree = ast.parse((REPOSITORY / "scripts" / f"{name}.py").read_text(encoding="utf-8"))
        at_top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        for node in at_top:
            modules = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            assert not {module.split(".")[0] for module in modules} & outside, name
            assert not {"comfy_client", "comfy_server"} & set(modules), name


def test_a_contact_sheet_shows_first_and_last_frame():
    assert importlib.util.find_spec("contact_sheet")
    from contact_sheet import evenly

    assert evenly(16, 8)[0] == 0 and evenly(16, 8)[-1] == 15
    assert evenly(5, 8) == [0, 1, 2, 3, 4]

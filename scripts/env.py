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
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import env_build
from env_build import SetupError, find_python, interpreter_of, say, starts

LAYOUT = "1"  # raise it when a step of env_build makes something else from the same list


class Environment:
    """The cached folder: venv, ComfyUI, sample video, oldest diffusers, comfy-cli; a manifest for each."""

    def __init__(self, root: Path):
        self.root = root
        self.venv = root / "venv"
        self.comfyui = root / "comfyui"
        self.samples = root / "samples"
        self.diffusers_oldest = root / f"diffusers-{env_build.OLDEST_DIFFUSERS}"
        self.comfy_cli_venv = root / "comfy-cli"
        self.python = interpreter_of(self.venv)
        self.pyright_cache = root / "pyright"

    def ensure(self) -> None:
        """Make what is missing or damaged."""
        python, oldest = self.python, self.diffusers_oldest
        with only_one_at_a_time(self.root):
            self.step(self.venv, lambda: env_build.build_venv(self.venv), also=lambda: starts(python))
            self.step(self.comfyui, lambda: env_build.unpack_comfyui(python, self.comfyui))
            self.step(self.samples, lambda: env_build.unpack_samples(python, self.samples))
            self.step(oldest, lambda: env_build.install_oldest_diffusers(python, oldest))

    def ensure_comfy_cli(self) -> Path:
        """The registry's own packing tool, in a venv apart because its dependencies are its own business."""
        folder, python = self.comfy_cli_venv, interpreter_of(self.comfy_cli_venv)
        with only_one_at_a_time(self.root):
            self.step(folder, lambda: env_build.build_comfy_cli(folder), also=lambda: starts(python))
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
    text = LAYOUT + version + env_build.REQUIREMENTS.read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Environment(home() / "stableanimator-comfyui" / digest)


def home() -> Path:
    for variable in ("STABLEANIMATOR_HOME", "XDG_CACHE_HOME"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser().resolve()
    return Path.home() / ".cache"


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

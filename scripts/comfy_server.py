"""A real ComfyUI server with this pack in its custom_nodes: made, started, watched, stopped.

Used by the demo, the tests and scripts/locales.py. Everything the server writes lies under one base folder;
the ComfyUI folder itself stays untouched.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from comfy_client import ComfyClient

if TYPE_CHECKING:
    import env

REPOSITORY = Path(__file__).resolve().parent.parent
PACK = "stableanimator"
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # else the template gallery opens over the first graph
    "Comfy.InstalledVersion": "1.32.9",
    "Comfy.Notification.ShowVersionUpdates": False,
}


class ServerError(RuntimeError):
    """The server did not start or has died; the message ends with its last log lines."""


def pack_files(repository: Path = REPOSITORY) -> list[str]:
    """Relative paths of what a user's custom_nodes would hold: what git would commit, less .comfyignore."""
    command = ["git", "-C", str(repository), "ls-files", "-z", "--cached", "--others"]
    try:
        everything = git_paths([*command, "--exclude-standard"])
        left_out = git_paths([*command, "--ignored", "--exclude-from=.comfyignore"])
    except (
        subprocess.CalledProcessError,
        OSError,
    ):  # an unpacked archive has no git: it holds no more than the pack
        everything = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
        everything = {
            path for path in everything if "__pycache__" not in path and not path.startswith(".git")
        }
        left_out = set()
    return sorted(path for path in everything - left_out if (repository / path).is_file())


def git_paths(command: list[str]) -> set[str]:
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {path for path in answer.split("\0") if path}


def install_pack(custom_nodes: Path, repository: Path = REPOSITORY, name: str = PACK) -> Path:
    """Copy the pack's files to `custom_nodes/name`, replacing what is there."""
    target = custom_nodes / name
    shutil.rmtree(target, ignore_errors=True)
    for path in pack_files(repository):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repository / path, target / path)
    return target


def make_base(base: Path) -> Path:
    """The folders and settings that a ComfyUI of its own user needs under `base`."""
    for folder in (
        "custom_nodes",
        "models",
        "input",
        "output",
        "temp",
        "user/default/workflows",
        "user/default/subgraphs",
    ):
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "user/default/comfy.settings.json").write_text(json.dumps(SETTINGS))
    return base


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ComfyServer:
    """`with ComfyServer(python, comfyui, base) as server: server.client.run(prompt)`.

    Args:
        python: an interpreter that has what ComfyUI and the pack need.
        comfyui: the folder of ComfyUI's main.py.
        base: the server's own folder (see `make_base`); only the packs named in `packs` are loaded from it.
        arguments: more of main.py's arguments.
    """

    def __init__(
        self,
        python: Path,
        comfyui: Path,
        base: Path,
        *,
        packs: Sequence[str] = (PACK,),
        arguments: Sequence[str] = ("--cpu",),
    ):
        self.python, self.comfyui, self.base = Path(python), Path(comfyui), Path(base)
        self.packs, self.arguments = packs, arguments
        self.log_file = self.base / "server.log"
        self.process: subprocess.Popen | None = None
        self.port = 0
        self.client = ComfyClient("")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout: float = 180) -> ComfyServer:
        """Start and wait until it answers.

        Raises:
            ServerError: it ended or did not answer in `timeout` seconds.
        """
        self.port = free_port()
        command = [self.python, "main.py", "--port", self.port, "--base-directory", self.base]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *self.packs, *self.arguments]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.comfyui,
                env=server_environment(),
                stdout=log,
                stderr=log,
            )
        self.client = ComfyClient(self.url, self.check_alive)
        end = time.monotonic() + timeout
        while not self.answers():
            self.check_alive()
            if time.monotonic() > end:
                self.stop()
                raise ServerError(f"ComfyUI did not answer within {timeout:.0f} s\n{self.log_tail()}")
            time.sleep(0.1)
        return self

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/system_stats", timeout=5).ok
        except requests.ConnectionError:
            return False

    def check_alive(self) -> None:
        """Raises ServerError when the process has ended."""
        if self.process is None or self.process.poll() is not None:
            code = None if self.process is None else self.process.returncode
            raise ServerError(f"ComfyUI ended with code {code}\n{self.log_tail()}")

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> ComfyServer:
        return self.start()

    def __exit__(self, *_exception) -> None:
        self.stop()


def server_environment() -> dict[str, str]:
    """Ours, with downloads switched off, and without the PYTHONPATH that would hide a broken import."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUTF8": "1"}


def ask_for_nodes(environment: env.Environment) -> dict[str, Any]:
    """/object_info of a server that has this checkout's pack, started for the question."""
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder))
        install_pack(base / "custom_nodes")
        with ComfyServer(environment.python, environment.comfyui, base) as server:
            return server.client.object_info()


def own_nodes(object_info: dict[str, Any]) -> dict[str, Any]:
    """The part that tells of this pack."""
    return {
        node: info for node, info in object_info.items() if info["python_module"].startswith("custom_nodes.")
    }

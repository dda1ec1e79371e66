#!/usr/bin/env python3
"""A portrait and a motion become a video, in a real ComfyUI server, with a shipped workflow.

    python3 scripts/demo.py                                     on a bare machine: the small demo model's puppet dances
    python3 scripts/demo.py --weights ~/models/StableAnimator   the official weights, in the tree they come in
    python3 scripts/demo.py --comfyui ~/ComfyUI                 your ComfyUI and its models; it is not changed

Writes animation.mp4, side_by_side.gif, contact_sheet.png and timings.json. With official weights the workflow is
animate-from-keypoints; without them dancing-puppet, and the small model that comes with the pack stands in for them
in any other --workflow that reads no poses from photos.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import demo_prompt
import env
from demo_prompt import DemoError
from demo_small import NEEDS_PHOTOS, on_small_model

OUTPUTS = ("animation.mp4", "side_by_side.gif", "contact_sheet.png", "timings.json")
REPOSITORY = Path(__file__).resolve().parent.parent
OFFICIAL_WORKFLOW, SMALL_WORKFLOW = "animate-from-keypoints", "dancing-puppet"
SMALL_MODEL = REPOSITORY / "weights" / "small"
SMALL = "small demo model"
NOTICE = "small demo model: drawn figures at 128 x 128; photos of people need the official weights"
OTHER_UNETS = ("denoising", "reference")  # Animate Anyone's
WHAT_A_SERVER_NEEDS = ("torch", "diffusers", "insightface", "onnxruntime")
NO_GPU = "import sys, torch; sys.exit(torch.cuda.is_available() or torch.backends.mps.is_available())"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "demo_output", help="folder for what it makes"
    )
    parser.add_argument("--comfyui", type=Path, help="the folder of an installed ComfyUI (with main.py)")
    parser.add_argument(
        "--python", type=Path, help="that ComfyUI's interpreter; found by itself in venv/ or .venv/"
    )
    parser.add_argument("--weights", type=Path, help="folder with the official weights, at any depth")
    parser.add_argument("--workflow", type=Path, help="another workflow file of the frontend")
    parser.add_argument("--steps", type=int, help="sampling steps; the workflow's if left out")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that the run may take")
    return parser.parse_args()


def in_environment() -> env.Environment:
    """The demo's environment. Started by another Python, the program starts again in it."""
    environment = env.find()
    if Path(sys.prefix).resolve() != environment.venv.resolve():
        began = time.monotonic()
        environment.ensure()
        os.environ["STABLEANIMATOR_SETUP_SECONDS"] = f"{time.monotonic() - began:.1f}"
        command = [str(environment.python), __file__, *sys.argv[1:]]
        if os.name == "nt":  # exec returns to the shell at once there
            sys.exit(subprocess.run(command).returncode)
        os.execv(command[0], command)
    return environment


def comfyui_and_python(options: argparse.Namespace, environment: env.Environment) -> tuple[Path, Path]:
    """The ComfyUI to run and the interpreter to run it with.

    Raises:
        DemoError: the folder is no ComfyUI, or its Python lacks what the pack needs.
    """
    if options.comfyui is None:
        return environment.comfyui, environment.python
    folder = options.comfyui.expanduser().resolve()
    if not (folder / "main.py").is_file():
        raise DemoError(f"{folder} holds no main.py; name the folder that ComfyUI is started from")
    beside = [folder / "venv", folder / ".venv"]
    found = [env.interpreter_of(venv) for venv in beside] + [folder.parent / "python_embeded" / "python.exe"]
    python = options.python or next((path for path in found if path.is_file()), None)
    if python is None:
        raise DemoError(f"no venv in {folder}; name the interpreter that starts this ComfyUI with --python")
    missing = [name for name in WHAT_A_SERVER_NEEDS if not env.starts(python, f"import {name}")]
    if missing:
        advice = f"{python} -m pip install -r {REPOSITORY / 'requirements.txt'}"
        raise DemoError(f"{python} cannot import {', '.join(missing)}; install them: {advice}")
    return folder, python


def prepare_models(models: Path, options: argparse.Namespace) -> str:
    """Show the server the weights there are; what they are, in words."""
    installed = options.comfyui.expanduser().resolve() / "models" if options.comfyui else None
    for folder in sorted(installed.iterdir()) if installed and installed.is_dir() else []:
        if folder.is_dir():
            replace_by_link(models / folder.name, folder)
    ours = models / "stableanimator"
    if options.weights is not None:
        weights = options.weights.expanduser().resolve()
        if not weights.is_dir():
            raise DemoError(f"--weights: there is no folder {weights}")
        replace_by_link(ours, weights)
        return str(weights)
    unets = ours.rglob("*unet*") if ours.is_symlink() else []
    if any(not path.name.startswith(OTHER_UNETS) for path in unets):
        return str(ours.resolve())
    if not (SMALL_MODEL / "unet.safetensors").is_file():
        raise DemoError(f"{SMALL_MODEL} is empty in this copy; name the official weights with --weights")
    return SMALL


def chosen_workflow(options: argparse.Namespace, weights: str) -> Path:
    """The workflow asked for, or the one that suits the weights.

    Raises:
        DemoError: the small model cannot stand in for the weights that it wants.
    """
    name = SMALL_WORKFLOW if weights == SMALL else OFFICIAL_WORKFLOW
    path = options.workflow or REPOSITORY / "workflows" / f"{name}.json"
    if weights == SMALL and NEEDS_PHOTOS in path.read_text(encoding="utf-8"):
        raise DemoError(
            f"{path.name} reads poses from photos, for which there is no small model; name the folder of the "
            "official weights with --weights, or leave out --workflow"
        )
    return path


def remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def replace_by_link(path: Path, target: Path) -> None:
    remove(path)
    path.symlink_to(target, target_is_directory=True)


class Progress:
    """Prints what the server is doing, and notes how long each node took."""

    def __init__(self, prompt: dict[str, Any]):
        self.titles = {node: part["_meta"]["title"] for node, part in prompt.items()}
        self.seconds: dict[str, float] = {}
        self.node: str | None = None
        self.began = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        data = event.get("data", {})
        if event.get("type") == "executing":
            self.finish()
            self.node, self.began = data.get("node"), time.monotonic()
        elif event.get("type") == "progress" and sys.stderr.isatty():
            title = self.titles.get(str(data.get("node")), "")
            print(f"\r  {title} {data['value']}/{data['max']} ", end="", file=sys.stderr, flush=True)

    def finish(self) -> None:
        if self.node is not None:
            title, seconds = self.titles.get(self.node, self.node), time.monotonic() - self.began
            self.seconds[f"{title} ({self.node})"] = round(seconds, 2)
            env.say(f"\r  {title}: {seconds:.1f} s          ")
        self.node = None


def animate(server: Any, options: argparse.Namespace, weights: str, workflow: Path) -> dict[str, Any]:
    """Queue the workflow and write what comes out; the timings.

    Raises:
        DemoError: the workflow failed; says at which node and why.
    """
    from workflow_api import to_api

    object_info = server.client.object_info()
    prompt = to_api(json.loads(workflow.read_text(encoding="utf-8")), object_info)
    if weights == SMALL:
        prompt = on_small_model(prompt, object_info)
    prompt = with_files(prompt, server.client, options.out)
    prompt = demo_prompt.use_installed_weights(prompt, object_info)
    prompt = demo_prompt.with_pictures(demo_prompt.with_settings(prompt, {"steps": options.steps}))
    progress = Progress(prompt)
    result = server.client.run(prompt, timeout=options.timeout, on_event=progress)
    if result.status != "success":
        node = progress.titles.get(str(result.error.get("node_id")), "the server")
        reason = result.error.get("exception_message") or f"the run was {result.status}"
        raise DemoError(f"{node}: {reason.strip()}")
    title = f"StableAnimator for ComfyUI: {workflow.stem}"
    notice, fps = NOTICE if weights == SMALL else "", demo_prompt.rate(prompt)
    write_outputs(server.client, result, options.out, title, notice, fps)
    return {"run": round(result.seconds, 2), "nodes": progress.seconds}


def with_files(prompt: dict[str, Any], client: Any, out: Path) -> dict[str, Any]:
    """The prompt with the sample portrait and motion, if it reads files."""
    import sample_inputs

    if not demo_prompt.reads_a_photo(prompt):
        return prompt
    portrait = client.upload(sample_inputs.write_portrait(out / "portrait.png"), sample_inputs.PORTRAIT)
    return demo_prompt.use_inputs(prompt, portrait, client.upload(sample_inputs.MOTION))


def write_outputs(client: Any, result: Any, out: Path, title: str, notice: str, fps: float) -> None:
    from contact_sheet import contact_sheet, save_moving
    from PIL import Image

    videos = [file for file in result.files() if file["filename"].endswith(".mp4")]
    if not videos:
        raise DemoError("the workflow saved no .mp4")
    (out / "animation.mp4").write_bytes(client.view(videos[0]))
    photo, poses, frames = (
        [Image.open(path) for path in save_all(client, result.files(node), out / node)]
        for node in (demo_prompt.PHOTO, demo_prompt.POSES, demo_prompt.RESULT)
    )
    sheet = contact_sheet(photo[0], poses, frames, title=f"{title}, {len(frames)} frames", warning=notice)
    sheet.save(out / "contact_sheet.png")
    save_moving(out / "side_by_side.gif", photo[0], poses, frames, fps)


def save_all(client: Any, files: list[dict[str, str]], folder: Path) -> list[Path]:
    remove(folder)
    folder.mkdir()
    paths = [folder / f"{i:05}.png" for i in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(client.view(file))
    return paths


def demo(options: argparse.Namespace, environment: env.Environment) -> None:
    from comfy_server import ComfyServer, install_pack, make_base

    comfyui, python = comfyui_and_python(options, environment)
    base = make_base(options.out / "comfyui")
    install_pack(base / "custom_nodes")
    weights = prepare_models(base / "models", options)
    workflow = chosen_workflow(options, weights)
    processor = ["--cpu"] if env.starts(python, NO_GPU) else []
    env.say(f"ComfyUI: {comfyui}{' on the CPU' if processor else ''}; {workflow.stem}; weights: {weights}")
    if weights == SMALL:
        env.say(NOTICE)
    began = time.monotonic()
    with ComfyServer(python, comfyui, base, arguments=processor) as server:
        started = round(time.monotonic() - began, 2)
        timings = animate(server, options, weights, workflow)
        system = server.client.get("/system_stats").json()["system"]
    setup = float(os.environ.get("STABLEANIMATOR_SETUP_SECONDS", 0))
    report = {"workflow": workflow.name, "weights": weights, "device": "cpu" if processor else "gpu"}
    report |= {"comfyui": system.get("comfyui_version"), "pytorch": system.get("pytorch_version")}
    report["seconds"] = {"environment": setup, "server start": started, **timings}
    (options.out / "timings.json").write_text(json.dumps(report, indent=2) + "\n")


def main() -> int:
    options = arguments()
    options.out = options.out.expanduser().resolve()
    try:
        environment = in_environment()
    except env.SetupError as error:
        env.say(f"The environment could not be made: {error}")
        return 1
    import requests
    from comfy_client import PromptRefused
    from comfy_server import ServerError
    from workflow_api import WorkflowError

    options.out.mkdir(parents=True, exist_ok=True)
    try:
        demo(options, environment)
    except (
        DemoError,
        WorkflowError,
        PromptRefused,
        ServerError,
        TimeoutError,
        OSError,
        requests.RequestException,
    ) as error:
        env.say(f"\nThe demo stopped: {error}\nThe server's log: {options.out / 'comfyui' / 'server.log'}")
        return 1
    except KeyboardInterrupt:
        env.say("\nstopped")
        return 130
    for name in OUTPUTS:
        print(options.out / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())

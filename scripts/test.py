#!/usr/bin/env python3
"""All checks and tests, in the environment of scripts/env.py.

python3 scripts/test.py                      everything, as CI runs it
python3 scripts/test.py tests/core -k pose   only pytest, with these arguments
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import env
from browser import find_or_install

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDENS = (REPOSITORY / "tests" / "goldens", REPOSITORY.parent / "shared" / "goldens")
BOTH_ENDS = ("unet", "pipeline_a", "vae")  # cases that depend on diffusers' own classes


def importable_core() -> Path:
    """A folder for PYTHONPATH that shows this checkout's stableanimator_core and nothing else.

    The repository's root itself must not be on the path: its `nodes/` would hide ComfyUI's nodes.py.
    """
    folder = REPOSITORY / "build" / "importable"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "stableanimator_core"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(REPOSITORY / "stableanimator_core", target_is_directory=True)
    return folder


def variables(environment: env.Environment) -> dict[str, str]:
    """What every check gets besides the caller's own environment."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    given |= {
        "PYTHONPATH": str(importable_core()),
        "STABLEANIMATOR_COMFYUI": str(environment.comfyui),
        "PYRIGHT_PYTHON_CACHE_DIR": str(environment.pyright_cache),
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    browser = find_or_install(environment.python)
    if browser is not None:
        given["STABLEANIMATOR_BROWSER"] = str(browser)
    return given


def check(name: str, command: list[str | Path], given: dict[str, str]) -> bool:
    """Run one check; whether it succeeded."""
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    code = subprocess.run([str(part) for part in command], env=given, cwd=REPOSITORY).returncode
    print(
        f"== {name}: {'ok' if code == 0 else f'FAILED ({code})'} after {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return code == 0


def checks(environment: env.Environment, given: dict[str, str]) -> list[str]:
    """Everything but pytest itself; the names of what failed."""
    python = environment.python
    conformance = [python, "-m", "stableanimator_core.conformance"]
    goldens = [folder for folder in GOLDENS if folder.is_dir()]
    oldest = {
        **given,
        "PYTHONPATH": os.pathsep.join([str(environment.diffusers_oldest), given["PYTHONPATH"]]),
    }
    plan = (
        ("ruff check", [python, "-m", "ruff", "check", "."], given),
        ("ruff format", [python, "-m", "ruff", "format", "--check", "."], given),
        ("pyright", [python, "-m", "pyright", "--pythonpath", python, "stableanimator_core"], given),
        *((f"conformance {folder}", [*conformance, folder], given) for folder in goldens),
        (
            f"conformance, diffusers {env.OLDEST_DIFFUSERS}",
            [*conformance, GOLDENS[0], "--only", *BOTH_ENDS],
            oldest,
        ),
    )
    return [name for name, command, variables_of_it in plan if not check(name, command, variables_of_it)]


def main() -> int:
    try:
        environment = env.find()
        environment.ensure()
        if os.environ.get("CI") == "true":
            environment.ensure_comfy_cli()
    except env.SetupError as error:
        env.say(f"The environment could not be made: {error}")
        return 1
    given = variables(environment)
    arguments = sys.argv[1:]
    failed = [] if arguments else checks(environment, given)
    print(f"\nFailed before the tests: {', '.join(failed)}" if failed else "\n== pytest", flush=True)
    # pytest comes last: its summary is the last line
    code = subprocess.run(
        [environment.python, "-m", "pytest", *(arguments or ["tests"])], env=given, cwd=REPOSITORY
    ).returncode
    return code or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main())

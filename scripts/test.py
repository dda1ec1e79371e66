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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import env
import env_build
from browser import find_or_install

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDENS = REPOSITORY / "tests" / "goldens"
COPIES = (GOLDENS, GOLDENS / "animate_anyone")  # thinned by scripts/thin_goldens.py
FULL_GOLDENS = sorted((REPOSITORY.parent / "shared").glob("goldens*"))  # whole sets, where at hand
BOTH_ENDS = ("unet", "pipeline_a", "vae")  # the cases that depend on diffusers' own classes


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
        "STABLEANIMATOR_SAMPLES": str(environment.samples),
        "PYRIGHT_PYTHON_CACHE_DIR": str(environment.pyright_cache),
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
    }
    browser = find_or_install(environment.python)
    if browser is not None:
        given["STABLEANIMATOR_BROWSER"] = str(browser)
    return given


@dataclass(frozen=True)
class Check:
    """A command that must succeed.

    Attributes:
        quiet: leave out the lines of its output that end with "ok".
        oldest: give it the oldest supported diffusers.
    """

    name: str
    command: Sequence[str | Path]
    quiet: bool = False
    oldest: bool = False

    def run(self, given: dict[str, str]) -> bool:
        print(f"\n== {self.name}", flush=True)
        began = time.monotonic()
        command = [str(part) for part in self.command]
        output = subprocess.PIPE if self.quiet else None
        done = subprocess.run(command, env=given, cwd=REPOSITORY, stdout=output, text=True)
        lines = (done.stdout or "").splitlines()
        for line in lines:
            if not line.endswith(" ok"):
                print(line)
        verdict = f"FAILED ({done.returncode})" if done.returncode else "ok"
        print(f"== {self.name}: {verdict} after {time.monotonic() - began:.0f} s", flush=True)
        return done.returncode == 0


def checks(python: Path) -> list[Check]:
    """Everything but the tests themselves."""
    conformance = [python, "-m", "stableanimator_core.conformance"]
    diffusers = f"diffusers {env_build.OLDEST_DIFFUSERS}"
    return [
        Check("ruff check", [python, "-m", "ruff", "check", "--output-format", "concise", "."]),
        Check("ruff format", [python, "-m", "ruff", "format", "--check", "."]),
        Check("pyright", [python, "-m", "pyright", "--pythonpath", python]),
        Check("conformance", [*conformance, *COPIES, *FULL_GOLDENS], quiet=True),
        Check(
            f"conformance, {diffusers}",
            [*conformance, GOLDENS, "--only", *BOTH_ENDS],
            quiet=True,
            oldest=True,
        ),
    ]


def failed_checks(environment: env.Environment, given: dict[str, str]) -> list[str]:
    """The names of those that failed."""
    path = os.pathsep.join([str(environment.diffusers_oldest), given["PYTHONPATH"]])
    oldest = {**given, "PYTHONPATH": path}
    return [
        check.name for check in checks(environment.python) if not check.run(oldest if check.oldest else given)
    ]


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
    failed = [] if arguments else failed_checks(environment, given)
    print("\n== pytest", flush=True)
    if failed:
        print(f"failed before: {', '.join(failed)}", flush=True)
    pytest = [
        str(environment.python),
        "-m",
        "pytest",
        *(arguments or ["tests"]),
    ]  # its summary is the last line
    code = subprocess.run(pytest, env=given, cwd=REPOSITORY).returncode
    return code or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main())

"""Finds a Chromium or Chrome, or installs one: Debian's package as root, else Playwright's own download."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ELSEWHERE = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
PLAYWRIGHT_PATH = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def find(python: Path) -> Path | None:
    """A browser that starts: $STABLEANIMATOR_BROWSER, one on the PATH, one of Playwright's, in this order."""
    names = [os.environ.get("STABLEANIMATOR_BROWSER"), *NAMES, *ELSEWHERE]
    for name in names:
        path = shutil.which(name) if name else None
        if path and works(path):
            return Path(path)
    answer = subprocess.run([str(python), "-c", PLAYWRIGHT_PATH], capture_output=True, text=True)
    path = answer.stdout.strip()
    return Path(path) if path and works(path) else None


def works(path: str) -> bool:
    """Whether it answers; on some systems the command `chromium` only advises to install something else."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and "Chrom" in answer.stdout


def find_or_install(python: Path) -> Path | None:
    """The browser's path; None, after saying so loudly, where there is none and none can be installed."""
    found = find(python)
    if found is None and sys.platform == "linux" and shutil.which("apt-get") and os.geteuid() == 0:
        say("installing Chromium by apt-get")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", *command], env=quiet, stdout=subprocess.DEVNULL)
        found = find(python)
    if found is None:
        say("installing Chromium by Playwright")
        subprocess.run([str(python), "-m", "playwright", "install", "chromium"], stdout=sys.stderr)
        found = find(python)
    if found is None:
        say("NO BROWSER: the browser tests cannot run. Install Chromium, or set STABLEANIMATOR_BROWSER.")
    return found

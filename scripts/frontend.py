"""ComfyUI's real frontend in headless Chromium: load a workflow, convert it, photograph it.

python3 scripts/frontend.py            writes workflows/<name>.jpg, the pictures of the template gallery,
                                       for the workflows that have none; --all makes them all anew
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import env

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a page that needs the internet fails here
)
READY = """window.app && app.graph && app.extensionManager
    && Object.keys(LiteGraph.registered_node_types).length > 100"""
NO_BANNER = "localStorage.setItem('vueNodesBannerDismissed', 'true')"
KNOWN_NOISE = (  # of the frontend itself, most of it because the server forbids the page to use the internet
    "Content Security Policy",
    "Failed to fetch",
    "user.css",
    "comfy.templates.json",
    "api.comfy.org",
    "reading 'id'",
    "404 (Not Found)",
    "[ComfyUI Deprecated]",
)
THUMBNAIL = (640, 360)
VIEWPORT = {"width": 2560, "height": 1440}  # large, since the canvas draws no text when it is zoomed far out
GRAPH_ON_PAGE = """() => {
    const nodes = app.graph._nodes.map(node => node.boundingRect || node.getBounding())
    const boxes = [...nodes, ...app.graph._groups.map(group => group._bounding)]
    const {scale, offset} = app.canvas.ds
    const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]))
    const right = Math.max(...boxes.map(b => b[0] + b[2])), bottom = Math.max(...boxes.map(b => b[1] + b[3]))
    return {x: (left + offset[0]) * scale, y: (top + offset[1]) * scale,
            width: (right - left) * scale, height: (bottom - top) * scale}
}"""


class Frontend:
    """A page with ComfyUI's frontend, ready for use. `complaints` are its errors, less the known noise."""

    def __init__(self, page: Any, url: str):
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self.note_console)
        page.on("pageerror", lambda error: self.note(f"page error: {error}"))
        page.add_init_script(NO_BANNER)
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_function(READY, timeout=60_000)

    def note_console(self, message: Any) -> None:
        if message.type == "error":
            self.note(message.text)

    def note(self, text: str) -> None:
        if not any(noise in text for noise in KNOWN_NOISE):
            self.complaints.append(text)

    def load(self, workflow: dict) -> None:
        self.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)

    def missing_types(self) -> list[str]:
        """Types on the canvas that the frontend does not know."""
        code = (
            "app.graph._nodes.map(node => node.type).filter(type => !LiteGraph.registered_node_types[type])"
        )
        return self.page.evaluate(code)

    def prompt(self) -> dict:
        """The loaded graph in API form, by the frontend's own conversion."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def alerts(self) -> list[str]:
        """The words of every message box in the corner of the page."""
        return self.page.locator(".p-toast-message").all_inner_texts()

    def close_dialogs(self) -> None:
        """For instance the one that lists missing models, and the message boxes."""
        close = self.page.locator(".p-dialog-close-button, .p-toast-close-button")
        while close.count():
            close.first.click()
            self.page.wait_for_timeout(400)

    def screenshot(self, path: Path) -> Path:
        """The whole graph, and only the graph."""
        self.close_dialogs()
        self.page.evaluate("app.extensionManager?.command?.execute?.('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(1000)  # the view glides there
        self.page.screenshot(path=path, clip=self.page.evaluate(GRAPH_ON_PAGE))
        return path


@contextlib.contextmanager
def launched(browser: str | Path) -> Iterator[Any]:
    """A headless browser for the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
        yield chromium
        chromium.close()


def write_thumbnails(url: str, browser: Path, paths: list[Path]) -> None:
    """Beside each workflow its picture; exactly the same name with .jpg is what the gallery asks for."""
    from PIL import Image, ImageOps

    with launched(browser) as chromium, tempfile.TemporaryDirectory() as folder:
        page = chromium.new_context(viewport=VIEWPORT).new_page()
        frontend = Frontend(page, url)
        for path in paths:
            frontend.load(json.loads(path.read_text(encoding="utf-8")))
            with Image.open(frontend.screenshot(Path(folder) / "page.png")) as picture:
                picture = ImageOps.pad(picture.convert("RGB"), THUMBNAIL, Image.Resampling.LANCZOS)
            picture.save(path.with_suffix(".jpg"), quality=88)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="also where there is a picture already")
    options = parser.parse_args()
    environment = env.find()
    if Path(sys.prefix).resolve() != environment.venv.resolve():
        environment.ensure()
        os.execv(environment.python, [str(environment.python), *sys.argv])
    import sample_inputs
    from browser import find_or_install
    from comfy_server import ComfyServer, install_pack, make_base

    browser = find_or_install(environment.python)
    paths = [
        path
        for path in sorted(WORKFLOWS.glob("*.json"))
        if options.all or not path.with_suffix(".jpg").exists()
    ]
    if browser is None or not paths:
        return 1 if browser is None else 0
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder))
        install_pack(base / "custom_nodes")
        sample_inputs.put_into(base / "input", environment.samples)
        with ComfyServer(environment.python, environment.comfyui, base) as server:
            write_thumbnails(server.url, browser, paths)
    print("\n".join(str(path.with_suffix(".jpg").relative_to(WORKFLOWS.parent)) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())

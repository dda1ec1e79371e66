"""The real frontend in headless Chromium, on the session's server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

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


class Frontend:
    """A page with ComfyUI's frontend, ready for use."""

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

    def screenshot(self, path: Path) -> Path:
        """The canvas with the whole graph in view."""
        self.page.evaluate("app.extensionManager?.command?.execute?.('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(800)  # the view glides there
        self.page.screenshot(path=path)
        return path


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium: the one that STABLEANIMATOR_BROWSER names."""
    path = os.environ.get("STABLEANIMATOR_BROWSER")
    if not path:
        pytest.skip(
            "NOT RUN: no browser. Run scripts/test.py, or set STABLEANIMATOR_BROWSER to a Chromium or Chrome"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def frontend(chromium, comfy):
    """One page for a module's tests; each loads its own graph."""
    context = chromium.new_context(viewport={"width": 1600, "height": 900})
    yield Frontend(context.new_page(), comfy.url)
    context.close()

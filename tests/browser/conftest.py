"""The real frontend in headless Chromium, on the session's server."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium: the one that STABLEANIMATOR_BROWSER names.

    One per module: while it lives, Playwright's event loop runs in this thread; other tests want their own.
    """
    path = os.environ.get("STABLEANIMATOR_BROWSER")
    if not path:
        pytest.skip("NOT RUN: no browser. Run scripts/test.py, or name one in STABLEANIMATOR_BROWSER")
    from frontend import launched

    with launched(path) as browser:
        yield browser


@pytest.fixture(scope="module")
def frontend(chromium, comfy):
    """One page for a module's tests; each loads its own graph."""
    from frontend import Frontend

    context = chromium.new_context(viewport={"width": 1600, "height": 900})
    yield Frontend(context.new_page(), comfy.url)
    context.close()

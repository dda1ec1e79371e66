"""StableAnimator for ComfyUI: one photo and one driving video become a video of that person, with the same face."""

from importlib.util import find_spec

if find_spec("comfy_api") is not None:  # pytest and packaging tools import this file without ComfyUI
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

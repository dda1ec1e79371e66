"""Makes a torchvision wheel built for CUDA importable beside a CPU-only torch; idle beside a CUDA torch.

Its compiled half cannot load there, and torchvision then fails while it describes the operators `nms` and
`qnms`, which nobody declared. Declaring them first is enough: transforms and models are pure Python. Calling
`torchvision.ops.nms` still fails, and nothing here calls it. Installed into site-packages with a `.pth` file;
costs nothing until torchvision is imported.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class DeclareBeforeImport(MetaPathFinder):
    """Finds nothing itself; it only notices that torchvision is about to be imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            declare_operators()
        return None


def declare_operators() -> None:
    import torch

    if torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in OPERATORS:
            library.define(operator)
        torch._torchvision_cpu_shim = library  # the declaration lives as long as this object


sys.meta_path.insert(0, DeclareBeforeImport())

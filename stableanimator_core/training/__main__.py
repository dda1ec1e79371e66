"""python -m stableanimator_core.training CONFIG.toml: train StableAnimator or Animate Anyone.

Also started by `accelerate launch`.
"""

from __future__ import annotations

import argparse
import sys

from ..errors import InputError
from .config import read_settings
from .trainer import train


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stableanimator_core.training", description=__doc__)
    parser.add_argument("config", help="TOML file; configs/ holds examples")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        metavar="CHECKPOINT",
        help="go on from the latest checkpoint, or from the one named",
    )
    options = parser.parse_args(arguments)
    try:
        result = train(read_settings(options.config), options.resume)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"step {result.step}: {result.checkpoint}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""python -m stableanimator_core.conformance DIR [DIR ...] [--only NAME]: run every golden case of the folders."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .run import cases_in, run_case


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stableanimator_core.conformance", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of golden files")
    parser.add_argument("--only", nargs="*", help="names of cases; all if left out")
    options = parser.parse_args(arguments)
    failures = 0
    for folder in options.folders:
        for name in cases_in(folder):
            if options.only and name not in options.only:
                continue
            for row in run_case(folder, name):
                failures += not row.ok
                verdict = "ok" if row.ok else "FAILED"
                print(f"{name:18} {row.name:44} {row.error:10.3e} <= {row.tolerance:8.1e} {row.unit:10} {verdict}")
    print(f"{failures} failed" if failures else "all rows ok")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

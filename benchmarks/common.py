"""What the benchmark scripts share: one thread, conditions in the output, a copy under results/."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

RESULTS = Path(__file__).parent / "results"


class Report:
    """Lines that go to the terminal and, at the end, into ``results/NAME.txt``."""

    def __init__(self, name: str, conditions: str, packages: tuple[str, ...]):
        self.path = RESULTS / f"{name}.txt"
        self.lines: list[str] = []
        self.say(f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".rstrip())
        self.say(conditions)
        versions = ", ".join(f"{package} {version(package)}" for package in packages)
        self.say(f"{platform.machine()}, Python {platform.python_version()}, {versions}")
        self.say("")

    def say(self, line: str = "") -> None:
        print(line, flush=True)
        self.lines.append(line)

    def save(self) -> None:
        RESULTS.mkdir(exist_ok=True)
        self.path.write_text("\n".join(self.lines) + "\n")

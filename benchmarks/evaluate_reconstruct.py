"""The reports on reconstructors that the docs show, one file a set: results/evaluate_reconstruct_SET.txt.

    python benchmarks/evaluate_reconstruct.py published varied --methods forward,unet
    python benchmarks/evaluate_reconstruct.py cosmos --images FOLDER --methods forward,unet,pixelated
    python benchmarks/evaluate_reconstruct.py varied --n 3 --pages FOLDER      a quick look, with pages of pictures
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import torch

from lensdeblend.cli.evaluations import chosen_methods
from lensdeblend.evaluation import evaluate_reconstructors, lens_set, lens_sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=lens_sets())
    parser.add_argument("--methods", default="forward")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.OPTION=VALUE")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=Path, help="galaxies for the set of real sources")
    parser.add_argument("--split", default="test", help="which of the galaxies")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pages", type=Path, help="folder for the whole reports, a subfolder a set")
    args = parser.parse_args()
    # The report says with what it was made, not where the data lie on this machine.
    sys.argv = [args.images.name if value == str(args.images) else value for value in sys.argv]
    torch.set_num_threads(1)
    methods = chosen_methods("reconstructor", args.methods, args.set)
    for name in args.sets:
        real = {"images": args.images, "split": args.split} if lens_set(name).real_sources else {}
        found = evaluate_reconstructors(methods, name, args.n, args.seed, batch=args.batch, **real)
        output = Report(
            f"evaluate_reconstruct_{name}", "one CPU thread; seconds are CPU time an image",
            ("lensdeblend", "torch", "lenstronomy", "numpy"),
        )
        output.say(found.text)
        output.save()
        if args.pages is not None:
            found.write(args.pages / name, overwrite=True)


if __name__ == "__main__":
    main()

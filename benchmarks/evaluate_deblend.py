"""The reports on deblenders that the docs show, one file a set: results/evaluate_deblend_SET.txt.

    python benchmarks/evaluate_deblend.py hsc lsst euclid --methods joint,photutils
    python benchmarks/evaluate_deblend.py cosmos --images FOLDER --split all --methods joint,photutils
    python benchmarks/evaluate_deblend.py des-sky --sky FOLDER --methods joint,photutils
    python benchmarks/evaluate_deblend.py hsc --n 10 --pages FOLDER --dry      a quick look, without a results file
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import torch

from lensdeblend.cli.evaluations import chosen_methods
from lensdeblend.evaluation import blend_set, blend_sets, evaluate_deblenders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=blend_sets())
    parser.add_argument("--methods", default="joint,photutils")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.OPTION=VALUE")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=Path, help="galaxies for the sets of real sources")
    parser.add_argument("--split", default="test", help="which of the galaxies")
    parser.add_argument("--sky", type=Path, help="real sky for the set des-sky")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pages", type=Path, help="folder for the whole reports, a subfolder a set")
    parser.add_argument("--label", default="", help="at the end of the results file's name")
    parser.add_argument("--dry", action="store_true", help="write no results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = chosen_methods("deblender", args.methods, args.set)
    for name in args.sets:
        real = {"images": args.images, "split": args.split} if blend_set(name).real_sources else {}
        if blend_set(name).real_sky:
            real["sky"] = args.sky
        found = evaluate_deblenders(methods, name, args.n, args.seed, batch=args.batch, **real)
        output = Report(
            "_".join(filter(None, ("evaluate_deblend", name, args.label))), "one CPU thread; seconds are CPU time a blend",
            ("lensdeblend", "torch", "galsim", "photutils", "numpy"),
        )
        output.say(found.text)
        if not args.dry:
            output.save()
        if args.pages is not None:
            found.write(args.pages / name, overwrite=True)


if __name__ == "__main__":
    main()

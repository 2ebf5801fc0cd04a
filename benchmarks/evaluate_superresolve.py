"""The reports on superresolvers that the docs show, one file a set: results/evaluate_superresolve_SET.txt.

    python benchmarks/evaluate_superresolve.py deeplense-1 deeplense-2 deeplense-3 --methods interpolation,forward
    python benchmarks/evaluate_superresolve.py deeplense-3 --noise 4 --name noise4        the same lenses, noisier
    python benchmarks/evaluate_superresolve.py deeplense-3 --factor 5 --name factor5
    python benchmarks/evaluate_superresolve.py deeplense-3 --downstream --methods interpolation,physics
    python benchmarks/evaluate_superresolve.py deeplense-3 --n 3 --pages FOLDER --dry     a quick look, with pictures
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import torch

from lensdeblend.cli.evaluations import chosen_methods
from lensdeblend.evaluation import evaluate_downstream, evaluate_superresolvers, pair_sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=pair_sets())
    parser.add_argument("--methods", default="interpolation,forward")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.OPTION=VALUE")
    parser.add_argument("--n", type=int, help="how many images: 90, with --downstream 600")
    parser.add_argument(
        "--downstream", type=int, nargs="?", const=2000, metavar="LEARNED",
        help="classes told apart after learning from so many (2000): results/evaluate_downstream_SET.txt",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--factor", type=int, default=2)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--name", help="for another file: results/evaluate_superresolve_SET_NAME.txt")
    parser.add_argument("--pages", type=Path, help="folder for the whole reports, a subfolder a set")
    parser.add_argument("--dry", action="store_true", help="write no results file")
    args = parser.parse_args()
    # The report says with what it was made, not where the pages lie on this machine.
    sys.argv = [args.pages.name if value == str(args.pages) else value for value in sys.argv]
    torch.set_num_threads(1)
    methods = chosen_methods("superresolver", args.methods, args.set)
    for name in args.sets:
        options = {"factor": args.factor, "noise": args.noise, "batch": args.batch}
        label = name if args.name is None else f"{name}_{args.name}"
        if args.downstream is None:
            found = evaluate_superresolvers(methods, name, args.n or 90, args.seed, **options)
            output = Report(
                f"evaluate_superresolve_{label}", "one CPU thread; seconds are CPU time an image",
                ("lensdeblend", "torch", "lenstronomy", "numpy"),
            )
        else:
            found = evaluate_downstream(
                methods, name, args.n or 600, args.seed, learned=args.downstream, **options
            )
            output = Report(f"evaluate_downstream_{label}", "one CPU thread", ("lensdeblend", "torch", "numpy"))
        output.say(found.text)
        if not args.dry:
            output.save()
        if args.pages is not None:
            found.write(args.pages / label, overwrite=True)


if __name__ == "__main__":
    main()

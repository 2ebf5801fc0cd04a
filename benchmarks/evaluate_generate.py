"""The reports on generators that the docs show, one file a set: results/evaluate_generate_SET.txt.

    python benchmarks/evaluate_generate.py learned --images FOLDER --images FOLDER --methods sersic,vae-flow
    python benchmarks/evaluate_generate.py made --n 40 --morphology 0 --pages FOLDER --dry     a quick look
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import torch

from lensdeblend.cli.evaluations import chosen_methods
from lensdeblend.evaluation import evaluate_generators, galaxy_set, galaxy_sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=galaxy_sets())
    parser.add_argument("--methods", default="sersic,vae-flow")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.OPTION=VALUE")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=Path, action="append", default=[], help="real galaxies")
    parser.add_argument("--morphology", type=int, default=150, help="galaxies for statmorph")
    parser.add_argument("--pages", type=Path, help="folder for the whole reports, a subfolder a set")
    parser.add_argument("--dry", action="store_true", help="write no results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = chosen_methods("generator", args.methods, args.set)
    for name in args.sets:
        found = evaluate_generators(
            methods, name, args.n, args.seed, images=args.images if galaxy_set(name).real else (),
            morphology=args.morphology,
        )
        output = Report(
            f"evaluate_generate_{name}", "one CPU thread; seconds are CPU time a galaxy",
            ("lensdeblend", "torch", "galsim", *(["statmorph"] if args.morphology else []), "numpy"),
        )
        output.say(found.text)
        if not args.dry:
            output.save()
        if args.pages is not None:
            found.write(args.pages / name, overwrite=True)


if __name__ == "__main__":
    main()

"""What it is worth that galaxies may depart from their profiles: the method joint without, with, and with falling ones.

    python benchmarks/structure.py hsc cosmos cosmos-euclid --images FOLDER
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import numpy as np
import torch
from tqdm import tqdm

from lensdeblend import deblend
from lensdeblend.deblenders.joint import Joint
from lensdeblend.evaluation import blend_set, blend_sets
from lensdeblend.evaluation.metrics import psnr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=blend_sets())
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=Path, help="galaxies for the sets of real sources, all of them used")
    args = parser.parse_args()
    torch.set_num_threads(1)
    output = Report(
        "structure", f"{args.n} blends a set, seed {args.seed}, true positions given; one CPU thread",
        ("lensdeblend", "torch", "galsim", "numpy"),
    )
    output.say(
        "PSNR of each galaxy in each band on its own maximum; flux: half of 16-84% of the relative error, its median, "
        "and half of 16-84% of the pulls\n"
    )
    output.say("set             structure      PSNR  flux scatter  flux bias  flux pulls  chi2 mean  s a blend  with structure")
    for name in args.sets:
        real = {"images": args.images, "split": "all"} if blend_set(name).real_sources else {}
        blends = blend_set(name).draw(args.n, args.seed, **real)
        for how in ("none", "auto", "falling"):
            output.say(f"{name:15} {how:9} {_row(blends, how)}")
    output.save()


def _row(blends, how: str) -> str:
    quality, errors, pulls, squares, seconds, strengths = [], [], [], [], [], []
    for blend in tqdm(blends, desc=how, unit="blend", disable=None):
        banded = len(blend.image) > 1
        image = blend.image if banded else next(iter(blend.image.values()))
        start = time.process_time()
        result = deblend(image, positions=blend.positions, method=Joint(structure=how), seed=1)
        seconds.append(time.process_time() - start)
        squares.append(result.chi2)
        strengths += list(result.catalog["structure"])
        for band in blend.image:
            after = f"_{band}" if banded else ""
            flux, error = (np.array(result.catalog[f"{key}{after}"].value) for key in ("flux", "flux_err"))
            true = np.array(blend.catalog[f"flux_{band}"])
            errors += list(flux / true - 1)
            pulls += list((flux - true)[error > 0] / error[error > 0])
            for source, truth in zip(result.sources, blend.sources):
                found = source[band] if banded else source
                quality.append(psnr(found.data, truth[band], data_range=truth[band].max()))
    half = [np.diff(np.percentile(values, [16, 84]))[0] / 2 for values in (errors, pulls)]
    return (
        f"{np.mean(quality):9.2f} {half[0]:13.4f} {np.median(errors):+10.4f} {half[1]:11.2f} {np.mean(squares):10.3f} "
        f"{np.mean(seconds):10.3f} {np.mean(np.array(strengths) > 0):15.0%}"
    )


if __name__ == "__main__":
    main()

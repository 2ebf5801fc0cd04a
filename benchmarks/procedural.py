"""The generator ``procedural``: what is wished against what is measured, and how many galaxies a CPU second.

    python benchmarks/procedural.py --seed 1

Numbers a second are of one thread, in batches of 512 stamps of 64x64 pixels; those of ``sersic`` (GalSim's profiles)
and of the brightness that training draws (``lensdeblend.lensing.procedural``) stand beside them, from the same run.
"""

from __future__ import annotations

import argparse
import time

from common import Report

import astropy.units as u
import numpy as np
import torch

from lensdeblend import generate
from lensdeblend.generators.procedural import Procedural
from lensdeblend.generators.sersic import Sersic
from lensdeblend.lensing.procedural import draw_procedural


def say_measured(report: Report, count: int, seed: int) -> None:
    radius = np.exp(np.random.default_rng(seed).uniform(np.log(0.15), np.log(0.6), count)) * u.arcsec
    method = Procedural(pixels=96, pixel_scale=0.05, bands=("g", "r", "i"), outside="flag")
    made = generate(count, conditions={"radius": radius}, method=method, seed=seed)
    table = made.catalog
    found = np.isfinite(table["n_measured"])
    report.say(f"{count} galaxies of 3 to 12 pixels; the fit converged for {found.sum()}")
    for name in ("flux", "radius", "n", "e1", "e2"):
        wished, seen = (u.Quantity(table[one]).value[found] for one in (name, f"{name}_measured"))
        if name in ("flux", "radius", "n"):
            name, wished, seen = f"log {name}", np.log(wished), np.log(seen)
        say_slope(report, name, wished, seen)
    for name in ("g-r", "r-i"):
        blue, red = (np.array([image[band].data.sum() for image in made.images]) for band in name.split("-"))
        say_slope(report, name, table[name].value, -2.5 * np.log10(blue / red))
    for which in ("", "_measured"):
        modulus = np.hypot(table[f"e1{which}"], table[f"e2{which}"])[found]
        report.say(f"|e|{which}: mean {modulus.mean():.3f}, standard deviation {modulus.std():.3f}")


def say_slope(report: Report, name: str, wished: np.ndarray, seen: np.ndarray) -> None:
    slope, correlation = np.polyfit(wished, seen, 1)[0], np.corrcoef(wished, seen)[0, 1]
    report.say(f"{name}: slope {slope:.3f}, correlation {correlation:.3f}, rms {np.std(seen - wished):.3f}")


def say_speed(report: Report, name: str, count: int, draw) -> None:
    draw()
    taken = []
    for _ in range(5):
        start = time.process_time()
        draw()
        taken.append(time.process_time() - start)
    report.say(f"{name}: {count / np.median(taken):.0f} galaxies a CPU second, best {count / np.min(taken):.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=192)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(
        "procedural", f"seed {arguments.seed}; one CPU thread, beside other programs on two cores",
        ("lensdeblend", "torch", "galsim", "numpy"),
    )
    for name, options in (("one band", {}), ("three bands", {"bands": ("g", "r", "i")})):
        method = Procedural(pixels=64, measure=False, outside="flag", **options)
        say_speed(report, f"procedural, {name}", 512, lambda: generate(512, method=method, seed=arguments.seed))
    sersic = Sersic(pixels=64, measure=False, outside="flag")
    wishes = {"n": 1.0, "radius": 0.2 * u.arcsec}
    say_speed(report, "sersic", 32, lambda: generate(32, conditions=wishes, method=sersic, seed=arguments.seed))
    pixels = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy")
    x, y = ((part.flatten() - 31.5) / 8 for part in pixels)

    def training() -> None:
        with torch.no_grad():
            galaxies = draw_procedural(256, torch.Generator().manual_seed(arguments.seed))
            galaxies.brightness(x.expand(256, -1), y.expand(256, -1))

    say_speed(report, "brightness for training, one point a pixel", 256, training)
    say_measured(report, arguments.count, arguments.seed)
    report.save()


if __name__ == "__main__":
    main()

"""Real galaxies as lensed sources: the pixelated method beside forward and unet, held against the truth.

    python benchmarks/pixelated.py --data FOLDER              70 COSMOS galaxies and 100 spirals
    python benchmarks/pixelated.py --data FOLDER --n 10       ten of each

FOLDER has ``cosmos_galaxies`` and ``cosmos_bright`` (HST/ACS images in GalSim's format) and ``galaxy_zoo/spirals``
(SDSS pictures of the Galaxy Zoo challenge). The galaxies are smoothed and cut to their own footprint, given a
half-light radius of 0.1 to 0.4 arcsec, and lensed by the masses of the population ``lens-benchmark``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData
from real_galaxies import cosmos, half_light_radius, spirals
from tqdm import tqdm

from lensdeblend import reconstruct
from lensdeblend.evaluation.metrics import compare
from lensdeblend.lensing.parametric import LENS_NAMES
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.reconstructors.pixelated import Pixelated
from lensdeblend.reconstructors.unet import UNet
from lensdeblend.scenes import ImageSource, Scene
from lensdeblend.scenes.populations import Fixed, population
from lensdeblend.simulators.sampling import observed
from lensdeblend.simulators.torch import Torch

PEAK_SNR = 30.0


def lens(galaxy: np.ndarray, rng: np.random.Generator):
    """The galaxy behind a lens of the population, with noise."""
    lenses = population("lens-benchmark").with_priors(peak_snr=Fixed(PEAK_SNR))
    scene = lenses.draw(rng)
    place = scene.galaxies[0].components[0]
    scale = rng.uniform(0.1, 0.4) / half_light_radius(galaxy)
    source = ImageSource(
        NDData(galaxy, meta={"PIXSCALE": scale}), flux=1.0, angle=rng.uniform(0, 360) * u.deg,
        center_x=place.center_x, center_y=place.center_y,
    )
    clean = Torch(precision=1e-4).simulate(Scene(mass=scene.mass, sources=[source]), lenses.observation, rng)
    return observed(clean, lenses, rng)


def numbers(table, suffix: str = "") -> np.ndarray:
    return np.array([u.Quantity(table[name + suffix][0]).value for name in LENS_NAMES])


def methods(truth: np.ndarray) -> dict:
    fixed = dict(zip(LENS_NAMES, truth))
    return {
        "forward, one Sersic": Forward(sources=1, lens_light=0, samples=0),
        "forward, two": Forward(sources=2, lens_light=0, samples=0),
        "unet": UNet(),
        "pixelated": Pixelated(lens_light=0, samples=0),
        "pixelated, true lens": Pixelated(lens_light=0, samples=0, start=fixed, lens="fixed"),
    }


def measure(simulation, method, seed: int) -> dict:
    start = time.process_time()
    result = reconstruct(simulation.image, method=method, seed=seed)
    seconds = time.process_time() - start
    closeness = compare(result.unlensed.data, simulation.unlensed.data)
    error = numbers(result.parameters) - numbers(simulation.scene.lens_parameters)
    return {
        "psnr": closeness.footprint_psnr, "ssim": closeness.footprint_ssim, "seconds": seconds, "error": error,
        "pull": error / numbers(result.parameters, "_err"),
        "chi": (result.chi2 - 1) / np.sqrt(2 / result.meta["degrees_of_freedom"]),
        "colour": result.meta.get("colour", np.nan), "flags": result.flags,
    }


def describe(report: Report, rows: dict[str, list[dict]]) -> None:
    report.say(
        f"{'method':22} {'PSNR':>6} {'worst':>6} {'SSIM':>6} {'>=2 dB':>7} {'chi2 ok':>8} {'white':>6} "
        f"{'theta_E bias/err':>17} {'rms/err':>8} {'68%':>6} {'flags':>6} {'s':>6} {'most s':>7}"
    )
    base = np.array([row["psnr"] for row in rows["forward, one Sersic"]])
    for name, some in rows.items():
        psnr, ssim, chi, colour, seconds = (
            np.array([row[key] for row in some]) for key in ("psnr", "ssim", "chi", "colour", "seconds")
        )
        pull = np.array([row["pull"] for row in some])
        held = np.isnan(pull).all()
        white = "" if np.isnan(colour).all() else f"{np.mean(np.abs(colour) < 3):.0%}"
        bias = "held" if held else f"{np.nanmean(pull[:, 0]):+.2f} +- {np.nanstd(pull[:, 0]) / np.sqrt(len(pull)):.2f}"
        report.say(
            f"{name:22} {psnr.mean():6.2f} {psnr.min():6.2f} {ssim.mean():6.3f} {np.mean(psnr - base >= 2):7.0%} "
            f"{np.mean(np.abs(chi) < 3):8.0%} {white:>6} "
            f"{bias:>17} {'' if held else f'{np.sqrt(np.nanmean(pull**2)):.2f}':>8} "
            f"{'' if held else f'{np.mean(np.abs(pull) < 0.9945):.0%}':>6} "
            f"{np.mean([bool(row['flags']) for row in some]):6.0%} {np.median(seconds):6.2f} {seconds.max():7.2f}"
        )
    report.say()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n", type=int, default=100, help="at most this many galaxies of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="pixelated", help="of the file under results/")
    args = parser.parse_args()
    torch.set_num_threads(1)
    # The report says with what it was made, not where the data lie on this machine.
    sys.argv = ["FOLDER" if value == str(args.data) else value for value in sys.argv]
    report = Report(
        args.name,
        f"real galaxies behind masses of lens-benchmark, peak signal-to-noise {PEAK_SNR:.0f}, 64x64 pixels of 0.08 "
        f"arcsec, PSF FWHM 0.1 arcsec, seed {args.seed}; truth by the torch simulator; one CPU thread",
        ("lensdeblend", "torch", "numpy", "scipy"),
    )
    every = cosmos(args.data) + cosmos(args.data, "cosmos_bright/real_galaxy_images_23.5_n1.fits")
    kinds = {
        "COSMOS galaxies": every[::max(1, len(every) // args.n)][:args.n],
        "Galaxy Zoo spirals": spirals(args.data, args.n),
    }
    for number, (kind, galaxies) in enumerate(kinds.items()):
        rows: dict[str, list[dict]] = {}
        for index, galaxy in enumerate(tqdm(galaxies, unit="lens")):
            simulation = lens(galaxy, np.random.default_rng([args.seed, number, index]))
            truth = numbers(simulation.scene.lens_parameters)
            for name, method in methods(truth).items():
                rows.setdefault(name, []).append(measure(simulation, method, args.seed + index))
        report.say(f"{len(galaxies)} {kind}")
        describe(report, rows)
    for line in (
        "PSNR (mean, dB) and SSIM over the footprint of the unlensed truth; >=2 dB: share of the lenses on which the",
        "method is so much better than forward with one Sersic; chi2 ok: reduced chi-square within 3 sigma of 1;",
        "unet: it learned from 24 of these COSMOS galaxies and from four in five of the spirals;",
        "white: the sum of products of neighbouring residuals within 3 sigma of what white noise leaves; rms/err, 68%:",
        "errors of all eight lens parameters in units of the claimed ones; s: CPU seconds, median and most.",
    ):
        report.say(line)
    report.save()


if __name__ == "__main__":
    main()

"""``lensdeblend demo``: simulate a lens, reconstruct it, hold the two against each other."""

from __future__ import annotations

import argparse
from pathlib import Path

import astropy.units as u

from lensdeblend.cli.common import DONE, add_output_options, print_table, refuse_existing
from lensdeblend.cli.evaluate import compare_parameters
from lensdeblend.io import read_image
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic, Shear
from lensdeblend.verbs import reconstruct, simulate

__all__ = ["add_options", "run"]

SCENE = Scene(
    mass=[EPL(1.2 * u.arcsec, 2.05, 0.12, -0.08, 0.02 * u.arcsec, -0.03 * u.arcsec), Shear(0.04, 0.02)],
    lens_light=[Sersic(150.0, 0.5 * u.arcsec, 3.0, 0.1, -0.06, center_x=0.02 * u.arcsec, center_y=-0.03 * u.arcsec)],
    sources=[Sersic(12.0, 0.2 * u.arcsec, 1.2, 0.15, 0.1, center_x=0.1 * u.arcsec, center_y=0.05 * u.arcsec)],
)
OBSERVATION = Observation(
    0.08 * u.arcsec, (80, 80), GaussianPSF(0.12 * u.arcsec), exposure_time=2000 * u.s, background_rms=0.012
)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_output_options(parser, output="folder (lensdeblend-demo)")
    parser.add_argument("--seed", type=int, default=1, help="of noise and fit (1)")


def run(args: argparse.Namespace) -> int:
    folder = args.output or Path("lensdeblend-demo")
    lens, result, picture = (folder / name for name in ("lens.fits", "reconstruction.fits", "reconstruction.png"))
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative; got {args.seed}")
    refuse_existing([lens, result], args.overwrite, pictures=[picture])

    truth = simulate(SCENE, OBSERVATION, seed=args.seed)
    truth.write(lens, overwrite=args.overwrite)
    print(f"{lens}: a simulated lens")

    found = reconstruct(read_image(lens), seed=args.seed)
    found.write(result, overwrite=args.overwrite)
    found.plot(picture, overwrite=args.overwrite)
    flags = f", flags: {', '.join(found.flags)}" if found.flags else ""
    print(f"{result}: its reconstruction, reduced chi-square {found.chi2:.3f}{flags}")
    print(f"{picture}: a picture of it\n")
    print_table(compare_parameters(found, truth))
    return DONE

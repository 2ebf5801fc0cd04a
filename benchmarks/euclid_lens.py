"""A real lens, a Euclid VIS image of an arc around two galaxies: what the forward method finds, and why it is flagged.

    python benchmarks/euclid_lens.py FOLDER                   with data.fits, noise_map.fits and psf.fits in it

The last table asks whether the source is to blame: the lens stays as fitted, and the source may be any sum of small
round spots, none of them negative. How much of that is mere freedom shows on the fitted model with new noise.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import astropy.units as u
import numpy as np
import torch
from astropy.stats import mad_std
from astropy.utils.exceptions import AstropyUserWarning
from scipy.optimize import nnls

from lensdeblend import reconstruct
from lensdeblend.images import like
from lensdeblend.io import read_image
from lensdeblend.lensing.epl import epl
from lensdeblend.lensing.halos import shear
from lensdeblend.lensing.parametric import LENS_NAMES
from lensdeblend.lensing.subdivision import Subdivision
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.reconstructors.frame import Frame

SPOT_SPACING = 0.012  # arcsec in the source plane; a tenth of a pixel
SPOT_REACH = 0.16
SHOWN = "theta_E", "gamma", "e1", "e2", "gamma1", "gamma2"


def spots(result, frame: Frame) -> np.ndarray:
    """Images of Gaussian spots on a grid about the fitted source, in units of the noise: (unmasked pixels, spots)."""
    row = result.parameters[0]
    lens = [torch.tensor(u.Quantity(row[name]).value) for name in LENS_NAMES]
    centre = [u.Quantity(row[name]).value for name in ("source_x", "source_y")]
    steps = np.arange(-SPOT_REACH, SPOT_REACH + 1e-6, SPOT_SPACING)
    places = torch.as_tensor(np.stack(np.meshgrid(*(c + steps for c in centre)), -1).reshape(-1, 2))
    division = Subdivision.uniform(frame.grid, 4, used=frame.reachable)

    def seen(some: torch.Tensor) -> torch.Tensor:
        def brightness(x, y):
            (ax, ay), (sx, sy) = epl(x, y, *lens[:6]), shear(x, y, *lens[6:])
            distance2 = (x - ax - sx - some[:, :1]) ** 2 + (y - ay - sy - some[:, 1:]) ** 2
            return torch.exp(-distance2 / (2 * (0.8 * SPOT_SPACING) ** 2))

        return frame.convolution(division.render(brightness)) * frame.weight

    images = torch.cat([seen(some) for some in places.split(50)])
    return images[:, frame.used].T.numpy()


def free_source(result, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Residuals on the arc with the fitted source and with the free one: of the image, of the model with noise."""
    sky = result.meta["sky"]
    frame = Frame.of(like(
        result.image, result.image.data - sky, uncertainty=result.image.uncertainty, mask=result.residual.mask,
        meta=result.image.meta,
    ))
    ny, nx = frame.used.shape
    row, column = frame.corner
    used = frame.used.numpy()

    def weighted(image):
        return (image[row:row + ny, column:column + nx] / frame.sigma.numpy())[used]

    light, arc = weighted(result.lens_light.data), weighted(result.model.data - sky - result.lens_light.data)
    basis = spots(result, frame)
    noise = mad_std(result.residual.data[~result.residual.mask])
    cases = {
        "the image": frame.weighted_data.numpy(),
        "the model with noise": light + arc + noise * rng.standard_normal(len(arc)),
    }
    residuals = {}
    for name, data in cases.items():
        fluxes, _ = nnls(basis, data - light, maxiter=20 * basis.shape[1])
        fitted, free = data - light - arc, data - light - basis @ fluxes
        residuals[name] = fitted[arc > 2], free[arc > 2]
    return residuals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = options.folder
    warnings.simplefilter("ignore", AstropyUserWarning)
    image = read_image(
        folder / "data.fits", std=folder / "noise_map.fits", psf=folder / "psf.fits", pixel_scale=0.1 * u.arcsec
    )
    report = Report("euclid_lens", f"seed {options.seed}; one CPU thread", ("lensdeblend", "torch", "numpy"))
    fits = {
        "as it comes": Forward(samples=0),
        "two sources": Forward(samples=0, sources=2, lens_light=2),
        "radius 2.5 arcsec": Forward(samples=0, radius=2.5),
    }
    results = {}
    for name, method in fits.items():
        begin = time.process_time()
        results[name] = result = reconstruct(image, method=method, seed=options.seed)
        row, good = result.parameters[0], ~result.residual.mask
        report.say(
            f"{name}: {int(good.sum())} pixels, {result.meta['sources']} + {result.meta['lens_lights']} profiles "
            f"of source + lens light, {time.process_time() - begin:.0f} CPU seconds"
        )
        report.say(
            f"  chi-square {np.sum(result.residual.data[good] ** 2):.1f}, reduced {result.chi2:.3f}; "
            f"flags: {', '.join(result.flags)}"
        )
        report.say("  " + ", ".join(
            f"{n} {u.Quantity(row[n]).value:+.3f} +- {u.Quantity(row[f'{n}_err']).value:.3f}" for n in SHOWN
        ))
    first = results["as it comes"]
    report.say()
    quiet = mad_std(first.residual.data[~first.residual.mask])
    report.say(f"scatter of the residual in units of the noise map: {quiet:.2f}")
    report.say("with any source of spots behind the lens of the first fit, chi-square and largest residual on the arc:")
    with torch.no_grad():
        residuals = free_source(first, np.random.default_rng(options.seed))
    for name, (before, after) in residuals.items():
        report.say(
            f"  {name}: {np.sum(before**2):.1f} -> {np.sum(after**2):.1f} over {len(before)} pixels, "
            f"{abs(before).max():.1f} -> {abs(after).max():.1f} sigma"
        )
    report.save()


if __name__ == "__main__":
    main()

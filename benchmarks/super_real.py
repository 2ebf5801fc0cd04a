"""Superresolvers on real images: galaxies that HSC and HST both saw, and a lens that Euclid saw.

    python benchmarks/super_real.py DATA
    python benchmarks/super_real.py DATA --pictures FOLDER --only pair --dry

DATA has the folders hsc_hst_pair (Cut_HSC.fits, Cut_HST.fits, PSF_HSC.fits, PSF_HST.fits, from scarlet's repository)
and euclid_lens (data.fits, noise_map.fits, psf.fits, from PyAutoLens's).

Of the pair, HST's image stands for the truth, at HSC's resolution. There is no lens in it: what a method shows that HST
does not, it has made up. Of the lens no truth is known: its model is held against the data.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import astropy.units as u
import numpy as np
import torch
from astropy.io import fits
from astropy.nddata import NDData, VarianceUncertainty
from astropy.stats import mad_std
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter, uniform_filter
from scipy.optimize import least_squares

from lensdeblend import cutout, reconstruct, superresolve
from lensdeblend.evaluation.metrics import footprint, psnr
from lensdeblend.images import like, on_grid
from lensdeblend.interfaces import Reconstructor
from lensdeblend.io import read_image
from lensdeblend.io.planes import background_sigma
from lensdeblend.reconstructors.forward import Forward as Fit
from lensdeblend.results import Reconstruction, panels
from lensdeblend.superresolvers.finer import FinePixels
from lensdeblend.superresolvers.finer_psf import finer_psf
from lensdeblend.superresolvers.forward import Forward
from lensdeblend.superresolvers.interpolation import Interpolation
from lensdeblend.superresolvers.physics import Physics
from lensdeblend.superresolvers.rcan_supervised import RcanSupervised

BAND = 2  # of grizy: i, nearest to HST's F814W
HSC_PIXEL, HST_PIXEL = 0.168, 0.03
# Of the power of HST's PSF, below which a frequency is not divided by it.
LEAST_POWER = 1e-4
EDGE = 0.6  # arcsec of HST's image all around, into which light from beyond it is missing
SPOT = 5.0  # sigma, of what is judged to be a spot of its own


@dataclass(frozen=True)
class Truth:
    """HST's image through HSC's PSF, drawn wherever HSC's pixels are, as large as they make it."""

    image: np.ndarray
    wcs: WCS
    factor: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def at(self, wcs: WCS, shape: tuple[int, int]) -> np.ndarray:
        """Flux a pixel; NaN beyond HST's image and near its edges."""
        row, column = np.indices(shape)
        x, y = self.wcs.world_to_pixel(wcs.pixel_to_world(column, row))
        area = abs(np.linalg.det(wcs.pixel_scale_matrix) / np.linalg.det(self.wcs.pixel_scale_matrix))
        ny, nx = self.image.shape
        edge = EDGE / HST_PIXEL
        inside = (x > edge) & (x < nx - 1 - edge) & (y > edge) & (y < ny - 1 - edge)
        values = map_coordinates(self.image, [y + self.shift[1], x + self.shift[0]], order=3)
        return np.where(inside, self.factor * area * values, np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the images")
    parser.add_argument("--only", choices=("pair", "lens"))
    parser.add_argument("--pictures", type=Path, help="folder for pictures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="write no results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", AstropyUserWarning)
    output = Report(
        "super_real", f"seed {args.seed}; one CPU thread; seconds are CPU time; DATA is the folder of the images",
        ("lensdeblend", "torch", "numpy"),
    )
    # The folders are others everywhere.
    for folder, name in ((args.pictures, "FOLDER"), (args.data, "DATA")):
        output.lines[0] = output.lines[0].replace(str(folder), name)
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    if args.only != "lens":
        one_pair(args, output)
    if args.only != "pair":
        one_lens(args, output)
    if not args.dry:
        output.save()


def one_pair(args, output: Report) -> None:
    folder = args.data / "hsc_hst_pair"
    image, truth = hsc_image(folder), hst_truth(folder)
    sigma = float(np.sqrt(image.uncertainty.array[0, 0]))
    truth = registered(truth, image)
    known = truth.at(image.wcs, image.data.shape)
    inside = np.isfinite(known)
    peak = np.nanmax(known)
    width = 2 * np.sqrt((image.psf > image.psf.max() / 2).sum() / np.pi) * HSC_PIXEL
    output.say(f"Galaxies seen by HSC (i, {HSC_PIXEL} arcsec, PSF {width:.2f} arcsec) and by HST (F814W, "
               f"{HST_PIXEL} arcsec, PSF 0.10 arcsec)")
    output.say(
        "The truth: HST's image convolved to HSC's PSF (their quotient in Fourier space) and read off at the finer "
        "pixels' centres by a cubic spline, "
        f"{EDGE:g} arcsec and more within HST's image. One factor and one shift, fitted on HSC's own "
        "pixels, make it HSC's: "
        f"{truth.shift[0] * HST_PIXEL:+.3f}, {truth.shift[1] * HST_PIXEL:+.3f} arcsec."
    )
    left = (image.data - known)[inside]
    output.say(
        f"On HSC's own {inside.sum()} pixels: peak signal-to-noise {peak / sigma:.0f}; HSC less truth "
        f"{np.sqrt(np.mean(left**2)) / sigma:.2f} sigma rms, at most {np.abs(left).max() / sigma:.1f}: one band is not "
        f"the other. PSNR {psnr(image.data[inside] / peak, known[inside] / peak, data_range=1):.2f} dB."
    )
    output.say(
        "Left, most: difference from the truth in sigma of HSC's pixels, rms and largest. Corr.: over the footprint. "
        "Power: variance in a ring of frequencies over that of the truth in it, and the correlation with it; behind a "
        "taper. Broad: up to one cycle in twice the PSF's width. Fine: up to one in that width. Noise: up to HSC's "
        "Nyquist frequency, where little is left of the truth, so that the unit is the power of HSC's white noise "
        "there instead. Beyond: what HSC's pixels cannot tell, in the same unit. What the truth has there itself is in "
        "its own line; HST's image before HSC's PSF shows what invention would be like."
    )
    output.say(
        f"Spots: peaks of {SPOT:g} sigma of HSC's pixels over what lies around, that the truth does not have at half "
        "that height; above the sky, and in it."
    )
    finer = FinePixels(image, 2).dressed(np.zeros([2 * n for n in image.data.shape]))
    output.say(
        f"{'method':<28}{'factor':>7}{'PSNR':>7}{'footprint':>10}{'corr.':>8}{'left':>7}{'most':>7}"
        f"{'broad':>14}{'fine':>14}{'noise':>14}{'beyond':>8}{'spots':>7}{'chi2':>7}{'seconds':>9}  flags"
    )
    true = truth.at(finer.wcs, finer.data.shape)
    sharp = sharp_hst(folder, truth).at(finer.wcs, finer.data.shape)
    for name, row in (("(truth)", true), ("(HST, its own PSF)", sharp)):
        output.say(f"{name:<28}{2:>7}{judged(row, true, sigma, 2, width)}")
    shown = {}
    for (name, method), factor in [(each, factor) for each in pair_methods().items() for factor in (2, 3, 5)]:
        start = time.process_time()
        try:
            result = superresolve(image, factor=factor, method=method, seed=args.seed)
        except ValueError as error:
            if factor == 2:
                raise
            output.say(f"{name:<28}{factor:>7}  refused: {str(error).partition(':')[0]}")
            continue
        seconds = time.process_time() - start
        true = truth.at(result.image.wcs, result.image.data.shape)
        row = judged(result.image.data, true, sigma, factor, width)
        output.say(
            f"{name:<28}{factor:>7}{row}{result.chi2:7.2f}{seconds:9.2f}  {', '.join(result.flags) or 'none'}"
        )
        if factor == 2:
            shown[name] = result.image, true
    output.say()
    if args.pictures is not None:
        draw_pair(image, shown, sigma).savefig(args.pictures / "pair.png", dpi=90)


def pair_methods() -> dict:
    return {
        **{f"interpolation, {kernel}": Interpolation(kernel) for kernel in ("bicubic", "lanczos", "spline")},
        "rcan-supervised, model 3": RcanSupervised(weights="rcan-supervised-3"),
    }


def hsc_image(folder: Path) -> NDData:
    """Without variance: it is that of the empty sky."""
    cube, header = fits.getdata(folder / "Cut_HSC.fits", header=True)
    plane, kernel = cube[BAND].astype(float), fits.getdata(folder / "PSF_HSC.fits")[BAND].astype(float)
    variance = VarianceUncertainty(np.full(plane.shape, background_sigma(plane) ** 2))
    return NDData(plane, uncertainty=variance, wcs=celestial(header), psf=kernel / kernel.sum())


def hst_truth(folder: Path) -> Truth:
    data, header = fits.getdata(folder / "Cut_HST.fits", header=True)
    own = fits.getdata(folder / "PSF_HST.fits").astype(float)
    goal = fits.getdata(folder / "PSF_HSC.fits")[BAND].astype(float)
    goal = finer_psf(goal / goal.sum(), HSC_PIXEL / HST_PIXEL)
    border = len(goal) // 2
    side = data.shape[0] + 2 * border
    # Its brightest pixel is one beside its middle.
    middle = np.unravel_index(own.argmax(), own.shape)
    narrow, wide = spectrum(own / own.sum(), middle, side), spectrum(goal, (border, border), side)
    ratio = wide * narrow.conj() / np.maximum(np.abs(narrow) ** 2, LEAST_POWER)
    padded = np.pad(data.astype(float), border)
    image = np.fft.ifft2(np.fft.fft2(padded) * ratio).real[border:-border, border:-border]
    return Truth(image, celestial(header))


def sharp_hst(folder: Path, truth: Truth) -> Truth:
    """The same before HSC's PSF, averaged over pixels half the size of HSC's."""
    data = fits.getdata(folder / "Cut_HST.fits").astype(float)
    return replace(truth, image=uniform_filter(data, round(HSC_PIXEL / 2 / HST_PIXEL)))


def spectrum(kernel: np.ndarray, middle: tuple[int, int], side: int) -> np.ndarray:
    frame = np.zeros((side, side))
    frame[:kernel.shape[0], :kernel.shape[1]] = kernel
    return np.fft.fft2(np.roll(frame, [-n for n in middle], (0, 1)))


def registered(truth: Truth, image: NDData) -> Truth:
    """One flux scale and one shift."""
    inside = np.isfinite(truth.at(image.wcs, image.data.shape))

    def seen(shift) -> np.ndarray:
        return replace(truth, shift=tuple(shift)).at(image.wcs, image.data.shape)[inside]

    def factor(model: np.ndarray) -> float:
        return float(model @ image.data[inside] / (model @ model))

    def left(shift) -> np.ndarray:
        model = seen(shift)
        return factor(model) * model - image.data[inside]

    best = least_squares(left, (0.0, 0.0), diff_step=1e-2, x_scale=1.0).x
    return replace(truth, factor=factor(seen(best)), shift=tuple(best))


def judged(found: np.ndarray, true: np.ndarray, sigma: float, factor: int, width: float) -> str:
    """The columns of one finer image, on the square that HST tells of."""
    rows, columns = (np.nonzero(np.isfinite(true).any(axis))[0] for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    true, found = (values[box] * factor**2 / sigma for values in (true, found))
    holes = ~np.isfinite(true)
    true, found = np.where(holes, 0.0, true), np.where(holes, 0.0, found)
    peak, off = true.max(), found - true
    lit = footprint(true)
    rings = powers(found, true, HSC_PIXEL / factor, width)
    return (
        f"{psnr(found / peak, true / peak, data_range=1):7.2f}"
        f"{psnr(found / peak, true / peak, data_range=1, where=lit):10.2f}"
        f"{np.corrcoef(found[lit], true[lit])[0, 1]:8.4f}{np.sqrt(np.mean(off**2)):7.2f}{np.abs(off).max():7.1f}"
        + "".join(f"{power:8.2f}{f' ({share:.2f})' if share is not None else '':>6}" for power, share in rings[:3])
        + f"{rings[3][0]:8.2f}{spots(found, true, factor, lit):>7}"
    )


def powers(found: np.ndarray, true: np.ndarray, scale: float, width: float) -> list:
    """Power and correlation with the truth in the rings; images in units of the noise of HSC's pixels."""
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in true.shape))
    taper /= np.sqrt(np.mean(taper**2))
    own, other = (np.fft.fft2((image - image.mean()) * taper) for image in (found, true))
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, scale) for n in true.shape), indexing="ij"))
    nyquist = 0.5 / HSC_PIXEL
    # White noise of variance 1 on HSC's pixels, as so dense a set of samples of it would have it.
    noise = true.size * (HSC_PIXEL / scale) ** 2
    told = []
    for low, high in ((0, 0.5 / width), (0.5 / width, 1 / width), (1 / width, nyquist), (nyquist, np.inf)):
        ring = (frequency > low) & (frequency <= high)
        power, true_power = (np.mean(np.abs(part[ring]) ** 2) for part in (own, other))
        cross = np.mean((own[ring] * other[ring].conj()).real) / np.sqrt(power * true_power)
        told.append((power / (true_power if high <= 1 / width else noise), cross if high <= nyquist else None))
    return told


def spots(found: np.ndarray, true: np.ndarray, factor: int, lit: np.ndarray) -> str:
    """How many peaks are there that are not in the truth: where it has light, and where not."""
    wide = 1.5 * factor
    own, other = (image - gaussian_filter(image, wide, mode="nearest") for image in (found, true))
    peaks = (own == maximum_filter(own, 2 * factor + 1)) & (own > SPOT)
    there = maximum_filter(other, 2 * factor + 1) > own / 2
    alone = peaks & ~there
    return f"{np.count_nonzero(alone & lit)}+{np.count_nonzero(alone & ~lit)}"


def celestial(header) -> WCS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(header, naxis=2)


def draw_pair(image: NDData, shown: dict, sigma: float):
    """HSC, the truth, and what was found, each with what it is off by in sigma of HSC's pixels."""
    figure, axes = panels.blank_figure(2, 1 + len(shown))
    (first, true), *_ = shown.values()
    seen = on_grid(first, np.nan_to_num(true), pixel_scale=HSC_PIXEL / 2 * u.arcsec)
    norm = panels.stretch(seen)
    for (top, bottom), (title, finer) in zip(axes.T, [("HST at HSC's resolution", seen), *(
        (name, each) for name, (each, _) in shown.items()
    )]):
        panels.draw_image(top, finer, title, norm=norm, label="flux per finer pixel")
        if finer is seen:
            panels.draw_image(bottom, image, "HSC")
        else:
            off = like(finer, (finer.data - true) * 4 / sigma, unit=u.dimensionless_unscaled)
            panels.draw_difference(bottom, off, r"found $-$ true", r"$\sigma$ of HSC's pixels")
    return figure


@dataclass(frozen=True)
class Known(Reconstructor):
    """A fit that was made already."""

    fit: Reconstruction

    def reconstruct(self, image: NDData, rng: np.random.Generator) -> Reconstruction:
        return self.fit


def one_lens(args, output: Report) -> None:
    folder = args.data / "euclid_lens"
    image = read_image(
        folder / "data.fits", std=folder / "noise_map.fits", psf=folder / "psf.fits", pixel_scale=0.1 * u.arcsec
    )
    output.say("A lens seen by Euclid VIS, 0.1 arcsec; the data's noise map, which is larger than the noise")
    start = time.process_time()
    fit = reconstruct(image, method=Fit(samples=0), seed=args.seed)
    fitted = time.process_time()
    result = superresolve(image, method=Forward(reconstructor=Known(fit)), seed=args.seed)
    good = ~fit.residual.mask
    row = result.parameters[0]
    output.say(
        f"forward, factor 2: {good.sum()} pixels, {fit.meta['sources']} + {fit.meta['lens_lights']} profiles of source "
        f"+ lens light, {fitted - start:.0f} CPU seconds for the fit, {time.process_time() - fitted:.0f} to draw it"
    )
    left = fit.residual.data[good]
    arc = (fit.model.data - fit.meta["sky"] - fit.lens_light.data - 2 * np.sqrt(fit.image.uncertainty.array))[good] > 0
    output.say(
        f"  reduced chi-square {result.chi2:.3f}; residual {left.std():.2f} sigma rms, {left[arc].std():.2f} on the "
        f"{arc.sum()} pixels of the arc, at most {np.abs(left[arc]).max():.1f} there; scatter {mad_std(left):.2f}"
    )
    output.say("  " + ", ".join(
        f"{name} {u.Quantity(row[name]).value:+.3f} +- {u.Quantity(row[f'{name}_err']).value:.3f}"
        for name in ("theta_E", "gamma", "e1", "e2", "gamma1", "gamma2")
    ))
    output.say(f"  the finer image, gathered, is at most {result.meta['rebinned']:.2f} sigma from the model")
    output.say(f"  flags: {', '.join(result.flags)}")
    stamp, told = told_by_network(image, fit, args.seed, output)
    if args.pictures is not None:
        drawn = {"forward": draw_lens(image, fit.model, fit.residual, result)}
        model = like(stamp, FinePixels(stamp, 2).gathered(told.image.data))
        sigma = np.sqrt(stamp.uncertainty.represent_as(VarianceUncertainty).array)
        left = like(stamp, (stamp.data - model.data) / sigma, mask=stamp.mask, unit=u.dimensionless_unscaled)
        drawn["physics"] = draw_lens(stamp, model, left, told)
        for name, figure in drawn.items():
            figure.savefig(args.pictures / f"lens_{name}.png", dpi=90)


def told_by_network(image: NDData, fit: Reconstruction, seed: int, output: Report):
    """What the physics method sees, the image less the fitted lens light and sky, and what it says of that."""
    row, (ny, nx) = fit.parameters[0], image.data.shape
    bare = like(
        image, image.data - fit.meta["sky"] - fit.lens_light.data, uncertainty=image.uncertainty,
        mask=fit.residual.mask,
    )
    place = [
        u.Quantity(row[name]).value / 0.1 + (n - 1) / 2 for name, n in (("center_x", nx), ("center_y", ny))
    ]
    stamp = cutout(bare, place, 64)
    output.say()
    output.say("physics, factor 2, on 64 pixels a side about the fitted lens, its light and the sky taken off, all "
               "that the fit did not look at masked")
    told = superresolve(stamp, method=Physics(leftover=False), seed=seed)
    row = told.parameters[0]
    output.say(
        f"  weights {told.meta['weights']}: reduced chi-square {told.chi2:.3f}, "
        + ", ".join(f"{n} {u.Quantity(row[n]).value:+.3f}" for n in ("theta_E", "e1", "e2", "gamma1", "gamma2"))
    )
    output.say(f"    flags: {', '.join(told.flags) or 'none'}")
    return stamp, told


def draw_lens(image: NDData, model: NDData, residual: NDData, result):
    """Data, model and residual; what the finer pixels show; the maps."""
    figure, axes = panels.blank_figure(2, 4)
    axes = list(axes.flat)
    held = like(image, np.where(residual.mask, np.nan, image.data), uncertainty=image.uncertainty)
    view = panels.Frame.of(image)
    ys, xs = np.nonzero(~residual.mask)
    x, y = view.position(np.array([xs.min(), xs.max()]), np.array([ys.min(), ys.max()]))
    norm = panels.stretch(held)
    for title, one in (("data", held), ("model", model)):
        panels.draw_image(axes.pop(0), one, title, norm=norm)
    panels.draw_residual(axes.pop(0), residual, f"residual, reduced chi-square {result.chi2:.2f}")
    finer = panels.stretch(result.image)
    panels.draw_image(axes.pop(0), result.image, "finer, through the PSF", norm=finer, label="flux per finer pixel")
    panels.draw_image(axes.pop(0), result.intrinsic, "finer, before the PSF", norm=finer, label="flux per finer pixel")
    source = axes.pop(0)
    panels.draw_image(source, result.source, "source", label="flux per source pixel")
    panels.draw_map(axes.pop(0), result.convergence, "convergence", r"$\kappa$", upper=2.0)
    strength = like(result.magnification, np.abs(result.magnification.data))
    panels.draw_map(axes.pop(0), strength, "magnification", r"$|\mu|$", upper=20.0)
    for panel in figure.axes:
        if panel is not source and panel.images:
            panel.set(xlim=x, ylim=y)
    return figure


if __name__ == "__main__":
    main()

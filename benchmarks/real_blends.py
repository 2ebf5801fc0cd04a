"""Deblenders on real sky: a blend that HSC saw in five bands, and a patch that HST saw as well.

    python benchmarks/real_blends.py DATA
    python benchmarks/real_blends.py DATA --methods joint,photutils --pictures FOLDER --dry

DATA has the folders hsc_blend (hsc_cosmos_35.npz: images, variance, mask, psfs, catalog) and hsc_hst_pair
(Cut_HSC.fits, Cut_HST.fits, PSF_HSC.fits), both from scarlet's repository. There is no truth: of the blend, the
catalogue's positions stand for it; of the pair, what photutils finds in the HST image, whose PSF is six times narrower.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import numpy as np
import torch
from astropy.io import fits
from astropy.nddata import NDData, VarianceUncertainty
from astropy.visualization import make_lupton_rgb
from astropy.wcs import WCS, FITSFixedWarning

from lensdeblend import deblend
from lensdeblend.cli.evaluations import chosen_methods
from lensdeblend.evaluation.blend_judging import matched
from lensdeblend.evaluation.detectors import default_detectors, summed
from lensdeblend.images import prepare
from lensdeblend.io.planes import background_sigma
from lensdeblend.results.panels import blank_figure

BANDS = "grizy"
HSC_PIXEL, HST_PIXEL = 0.168, 0.03
# Of HSC's mask planes: BAD, SAT, NO_DATA. Pixels interpolated in some of many exposures (INTRP, CR) are good.
BAD_BITS = 1 << 0 | 1 << 1 | 1 << 8
NEAR = 5
MATCH = 0.4
# With less contrast, spiral arms count as galaxies.
HST_WIDTH, HST_THRESHOLD, HST_PIXELS, HST_CONTRAST, HST_LIMIT = 5.0, 3.0, 20, 0.05, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the images")
    parser.add_argument("--methods", default="joint,photutils")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.OPTION=VALUE")
    parser.add_argument("--pictures", type=Path, help="folder for pictures")
    parser.add_argument("--dry", action="store_true", help="write no results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = chosen_methods("deblender", args.methods, args.set)
    output = Report(
        "real_blends", "one CPU thread; seconds are CPU time; DATA is the folder of the images",
        ("lensdeblend", "torch", "photutils", "numpy"),
    )
    # The folders are others everywhere.
    for folder, name in ((args.pictures, "FOLDER"), (args.data, "DATA")):
        output.lines[0] = output.lines[0].replace(str(folder), name)
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    one_blend(args, methods, output)
    one_patch(args, methods, output)
    if not args.dry:
        output.save()


def one_blend(args, methods, output: Report) -> None:
    image, places = hsc_blend(args.data / "hsc_blend" / "hsc_cosmos_35.npz")
    output.say(f"A blend of {len(places)} catalogued galaxies, HSC {BANDS}, {image['g'].data.shape} pixels")
    output.say("chi2 a pixel: of all pixels, and of those within five pixels of the catalogue's positions")
    output.say(f"{'method':<12}{'positions':<11}{'galaxies':>8} " + "".join(f"{b:>7}" for b in BANDS)
               + "  near:" + "".join(f"{b:>7}" for b in BANDS) + f"{'seconds':>9}  flags")
    found = {}
    for label, method in methods.items():
        for mode, positions in (("given", places), ("found", None)):
            seconds, result = timed(image, method, positions)
            found[label, mode] = result
            near = within(places, image["g"].data.shape)
            chi2 = [np.mean(result.residual[band].data**2) for band in BANDS]
            close = [np.mean(result.residual[band].data[near] ** 2) for band in BANDS]
            output.say(
                f"{label:<12}{mode:<11}{len(result.catalog):>8} " + "".join(f"{v:7.2f}" for v in chi2) + "       "
                + "".join(f"{v:7.2f}" for v in close) + f"{seconds:9.2f}  {', '.join(result.meta['flags'])}"
            )
            if args.pictures is not None:
                result.plot(args.pictures / f"hsc_blend_{label}_{mode}.png", overwrite=True)
    output.say()
    for (label, mode), result in found.items():
        say_galaxies(output, f"{label}, positions {mode}", result, places)


def say_galaxies(output: Report, title: str, result, places) -> None:
    """A line a catalogued galaxy: where it was found, its flux a band, and what is left of it."""
    own = np.stack([result.catalog["x"], result.catalog["y"]], 1)
    partner = matched(own, places, MATCH / HSC_PIXEL)
    output.say(
        f"{title}: {np.count_nonzero(partner >= 0)} of {len(places)} within {MATCH} arcsec, "
        f"{len(own) - np.count_nonzero(partner >= 0)} others"
    )
    output.say(f"{'galaxy':>6}{'x':>6}{'y':>6}{'offset':>9}" + "".join(f"{f'flux {b}':>18}" for b in BANDS)
               + f"{'rms left':>10}{'worst':>8}  flags")
    for number, (place, row) in enumerate(zip(places, partner), start=1):
        line = f"{number:>6}{place[0]:6.0f}{place[1]:6.0f}"
        near = within(place[None], result.residual["g"].data.shape)
        left = np.array([result.residual[band].data[near] for band in BANDS])
        rest = f"{np.sqrt(np.mean(left**2)):10.2f}{left.flat[np.argmax(np.abs(left))]:8.1f}"
        if row < 0:
            output.say(f"{line}{'-':>9}" + f"{'-':>18}" * len(BANDS) + rest)
            continue
        offset = np.hypot(*(own[row] - place)) * HSC_PIXEL
        fluxes = "".join(
            f"{value(result, 'flux', b, row):.2f} +- {value(result, 'flux_err', b, row):.2f}".rjust(18) for b in BANDS
        )
        output.say(f"{line}{offset:9.3f}{fluxes}{rest}  {result.catalog['flags'][row]}")
    output.say()


def one_patch(args, methods, output: Report) -> None:
    folder = args.data / "hsc_hst_pair"
    image, hst = hsc_patch(folder), hst_patch(folder)
    positions, signal, sky = hst_detections(hst)
    bright = signal > HST_LIMIT
    true = np.stack(image["g"].wcs.world_to_pixel(sky), 1)
    output.say("A patch of sky seen by HSC and by HST")
    output.say(
        f"HST: photutils at {HST_THRESHOLD:g} sigma behind a Gaussian of {HST_WIDTH * HST_PIXEL:.2f} arcsec, "
        f"{HST_PIXELS} pixels, contrast {HST_CONTRAST:g}: {len(signal)} detections, of which {bright.sum()} with "
        f"a flux of more than {HST_LIMIT:g} times its error. These are to be found, within {MATCH} arcsec; a detection "
        "that is an HST detection of any brightness is right, one outside of the HST image is not counted."
    )
    output.say("One of them may be no galaxy of its own but the end of the disc that is seen edge-on (lowest S/N).")
    output.say(f"{'HST':>5}{'x HSC':>8}{'y HSC':>8}{'S/N':>8}")
    for number in np.nonzero(bright)[0]:
        output.say(f"{number + 1:>5}{true[number, 0]:8.2f}{true[number, 1]:8.2f}{signal[number]:8.1f}")
    output.say()
    answers, seconds = {}, {}
    for label, method in methods.items():
        seconds[label], result = timed(image, method, None)
        answers[label] = np.stack([result.catalog["x"], result.catalog["y"]], 1)
        chi2 = " ".join(f"{np.mean(result.residual[band].data**2):.2f}" for band in BANDS)
        output.say(f"{label}: chi2 a pixel in {BANDS} {chi2}; flags: {', '.join(result.meta['flags']) or 'none'}")
        if args.pictures is not None:
            result.plot(args.pictures / f"pair_{label}.png", overwrite=True)
    for label, detect in default_detectors().items():
        start = time.process_time()
        answers[label] = detect(*summed({band: prepare(one) for band, one in image.items()}))[0]
        seconds[label] = time.process_time() - start
    output.say()
    output.say(f"{'method':<30}{'found':>6}{'recall':>9}{'precision':>11}{'offset, median':>16}{'largest':>9}"
               f"{'seconds':>9}   offset of each")
    for label, own in answers.items():
        seen = own[inside(image["g"].wcs, own, hst)]
        partner, any_partner = matched(seen, true[bright], MATCH / HSC_PIXEL), matched(seen, true, MATCH / HSC_PIXEL)
        offset = np.full(len(partner), np.nan)
        held = partner >= 0
        offset[held] = np.hypot(*(seen[partner[held]] - true[bright][held]).T) * HSC_PIXEL
        precision = np.count_nonzero(any_partner >= 0) / max(len(seen), 1)
        known = offset[held] if held.any() else np.array([np.nan])
        output.say(
            f"{label:<30}{len(seen):>6}{held.mean():9.1%}{precision:11.1%}"
            f"{np.median(known):15.3f}\"{known.max():8.3f}\""
            f"{seconds[label]:9.2f}   " + " ".join("-" if np.isnan(one) else f"{one:.3f}" for one in offset)
        )
    if args.pictures is not None:
        draw_patch(image, hst, positions[bright], answers).savefig(args.pictures / "pair.png")


def hsc_blend(path: Path) -> tuple[dict[str, NDData], np.ndarray]:
    with np.load(path) as held:
        image = {
            band: NDData(
                held["images"][k].astype(float), uncertainty=VarianceUncertainty(held["variance"][k].astype(float)),
                mask=(held["mask"][k] & BAD_BITS) != 0, psf=held["psfs"][k], meta={"PIXSCALE": HSC_PIXEL},
            ) for k, band in enumerate(BANDS)
        }
        return image, np.stack([held["catalog"]["x"], held["catalog"]["y"]], 1).astype(float)


def hsc_patch(folder: Path) -> dict[str, NDData]:
    """Without variance: it is that of the empty sky."""
    cube, header = fits.getdata(folder / "Cut_HSC.fits", header=True)
    kernels = fits.getdata(folder / "PSF_HSC.fits")
    return {
        band: NDData(
            plane.astype(float), uncertainty=VarianceUncertainty(np.full(plane.shape, background_sigma(plane) ** 2)),
            wcs=celestial(header), psf=kernel.astype(float),
        ) for band, plane, kernel in zip(BANDS, cube, kernels)
    }


def hst_patch(folder: Path) -> NDData:
    data, header = fits.getdata(folder / "Cut_HST.fits", header=True)
    return NDData(data.astype(float), wcs=celestial(header))


def celestial(header) -> WCS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(header, naxis=2)


def hst_detections(hst: NDData):
    """Positions on HST's pixels, flux over its error, positions on the sky."""
    from astropy.convolution import convolve
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources, make_2dgaussian_kernel

    kernel = make_2dgaussian_kernel(HST_WIDTH, size=11)
    smooth = convolve(hst.data, kernel)
    segments = detect_sources(smooth, HST_THRESHOLD * background_sigma(smooth), n_pixels=HST_PIXELS)
    segments = deblend_sources(smooth, segments, n_pixels=HST_PIXELS, contrast=HST_CONTRAST, progress_bar=False)
    # Neighbouring pixels share their noise; what the smoothed image has left of it tells how much.
    sigma = background_sigma(smooth) / np.sqrt((kernel.array**2).sum())
    catalog = SourceCatalog(hst.data, segments, error=np.full(hst.data.shape, sigma), convolved_data=smooth)
    places = np.stack([catalog.x_centroid, catalog.y_centroid], 1)
    return places, catalog.segment_flux / catalog.segment_flux_err, hst.wcs.pixel_to_world(*places.T)


def inside(wcs: WCS, places: np.ndarray, hst: NDData) -> np.ndarray:
    if not len(places):
        return np.zeros(0, bool)
    x, y = hst.wcs.world_to_pixel(wcs.pixel_to_world(*places.T))
    ny, nx = hst.data.shape
    return (x > 0) & (x < nx - 1) & (y > 0) & (y < ny - 1)


def timed(image, method, positions):
    start = time.process_time()
    result = deblend(image, method=method, positions=positions, seed=1)
    return time.process_time() - start, result


def value(result, name: str, band: str, row: int) -> float:
    return float(result.catalog[f"{name}_{band}"][row].value)


def within(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    row, column = np.indices(shape)
    return np.any([(column - x) ** 2 + (row - y) ** 2 <= NEAR**2 for x, y in places], axis=0)


def draw_patch(image, hst: NDData, positions: np.ndarray, answers):
    """HST, then HSC in colours, with what each found."""
    figure, axes = blank_figure(1, 2 + len(answers))
    first = axes[0, 0]
    sigma = background_sigma(hst.data)
    first.imshow(np.arcsinh(hst.data / sigma), origin="lower", cmap="gray", vmin=-1)
    first.plot(*positions.T, "+", color="tab:red", markersize=12)
    first.set_title("HST, detections to be found", fontsize="medium")
    channels = [image[band].data / background_sigma(image[band].data) for band in "zig"]
    colours = make_lupton_rgb(*channels, stretch=8, Q=6)
    own = np.stack(image["g"].wcs.world_to_pixel(hst.wcs.pixel_to_world(*positions.T)), 1)
    for axis, (label, found) in zip(axes[0, 1:], [("HSC z, i, g", np.zeros((0, 2))), *answers.items()]):
        axis.imshow(colours, origin="lower")
        axis.set_autoscale_on(False)
        axis.plot(*own.T, "+", color="tab:red", markersize=12)
        axis.plot(*found.T, "o", color="white", markerfacecolor="none", markersize=10)
        axis.set_title(label, fontsize="medium")
    return figure


if __name__ == "__main__":
    main()

"""Two galaxies blended by the published rule, taken apart again: PSNR and SSIM of both, on pictures never seen.

    python benchmarks/published_blends.py --images FOLDER -n 100
    python benchmarks/published_blends.py --images FOLDER -n 10 --methods gan-paper --dry      a quick look

Pictures (424 pixels a side, red, green and blue in [0, 1] as they are) of the test split are blended by the pixelwise
maximum on 80 x 80 pixels, the second turned, mirrored and moved by 10 to 50 of the picture's pixels along each axis;
from whole pictures, from the 240 pixels in their middle, where galaxies are larger and overlap more, and from these
with the second galaxy 0.37 to 1.65 times as large, as the examples of the related study look. Centres are given; the
sky that a method takes off is put back on both galaxies. The range of the data is 1; PSNR is over the three channels
together, SSIM their mean.

"symmetry" is the network of gan-paper before it has learned anything. "galaxies known" has the true galaxy within a
quarter of the picture of its centre and gan-paper's beyond: what is lost there are stars and neighbours of which
nothing says on whose picture they are.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import numpy as np
import torch
from astropy.nddata import NDData, StdDevUncertainty
from astropy.stats import mad_std

from lensdeblend import deblend
from lensdeblend.deblenders.gan import Gan, GanPaper
from lensdeblend.evaluation.metrics import psnr, ssim
from lensdeblend.networks.deblending import Generator, Overlap
from lensdeblend.training.blend_pairs import PublishedPairs, read_pictures

_MIDDLE = 240 / 424
GEOMETRIES = {
    "whole pictures": (1.0, (1.0, 1.0)), "pictures, their middle": (_MIDDLE, (1.0, 1.0)),
    "pictures, their middle, the second magnified": (_MIDDLE, (np.exp(-1), np.exp(0.5))),
}
PSF_FWHM = 2.0
# Galaxies blended by the maximum do not sum to the blend: no amplitudes are solved for.
METHODS = {
    "gan-paper": GanPaper(solve=False, background="none"), "gan": Gan(solve=False),
    "joint": "joint", "photutils": "photutils",
}


def as_images(blend: np.ndarray) -> dict[str, NDData]:
    steps = np.arange(-7, 8)
    line = np.exp(-0.5 * (steps / (PSF_FWHM / np.sqrt(8 * np.log(2)))) ** 2)
    psf = line[:, None] * line / line.sum() ** 2
    border = np.concatenate([blend[:, :6].reshape(3, -1), blend[:, -6:].reshape(3, -1)], 1)
    return {
        name: NDData(
            channel, psf=psf, meta={"PIXSCALE": 1.0},
            uncertainty=StdDevUncertainty(np.full(channel.shape, max(float(mad_std(sky)), 1 / 255))),
        ) for name, channel, sky in zip("rgb", blend, border)
    }


def galaxies(blend: np.ndarray, where: np.ndarray, method) -> list[np.ndarray]:
    """As the pictures show them: with the sky that a method takes off."""
    found = deblend(as_images(blend), positions=where, method=method, seed=1)
    sky = found.meta["background"]
    return [np.stack([source[band].data + sky[band] for band in "rgb"]) for source in found.sources]


def by_symmetry(blend: np.ndarray, where: np.ndarray) -> np.ndarray:
    twice = torch.as_tensor(np.stack([blend, blend]), dtype=torch.float32)
    centres, zeros = torch.as_tensor(where, dtype=torch.float32), torch.zeros(2, 4)
    with torch.no_grad():
        network = Generator(rule="maximum").eval()
        return network(Overlap(twice, zeros[:, 1:], zeros[:, 0], centres, centres.flip(0)[:, None])).double().numpy()


def judged(image: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    return psnr(image, truth, data_range=1), np.mean([ssim(a, b, data_range=1) for a, b in zip(image, truth)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of Galaxy Zoo pictures")
    parser.add_argument("-n", type=int, default=100, help="blends (100)")
    parser.add_argument("--methods", default="gan-paper,gan,joint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="write no results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    packages = "lensdeblend", "torch", "photutils", "numpy"
    report = Report("published_blends", "one CPU thread; seconds are CPU time a blend", packages)
    pictures = read_pictures([args.images], "test")
    for name, (crop, scale) in GEOMETRIES.items():
        batch = PublishedPairs(pictures, crop=(crop, crop), scale=scale).draw(2 * args.n, (args.seed, 9))
        blends, truths, centres = (
            part.double().numpy() for part in (batch.seen.image[::2], batch.truth, batch.seen.center)
        )
        report.say(f"{args.n} blends of {len(pictures)} {name}")
        report.say(
            f"{'':20}{'PSNR':>8}{'SSIM':>8}{'PSNR first':>12}{'second':>8}{'PSNR 16%':>10}{'84%':>8}{'seconds':>9}"
        )
        answers = {
            "the blend itself": lambda blend, *_: [blend, blend],
            "symmetry": lambda blend, where, _: by_symmetry(blend, where),
        }
        for method in args.methods.split(","):
            answers[method] = lambda blend, where, _, method=METHODS[method]: galaxies(blend, where, method)
        if "gan-paper" in answers:
            answers["galaxies known"] = lambda blend, where, truth, reach=80 / crop / 4: [
                np.where(np.hypot(*(np.indices(blend.shape[1:])[::-1] - place[:, None, None])) < reach, true, drawn)
                for place, true, drawn in zip(where, truth, answers["gan-paper"](blend, where, truth))
            ]
        for label, answer in answers.items():
            began, figures = time.process_time(), []
            for number, blend in enumerate(blends):
                own = slice(2 * number, 2 * number + 2)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = answer(blend, centres[own], truths[own])
                figures.append([judged(image, truth) for image, truth in zip(found, truths[own])])
            seconds, figures = (time.process_time() - began) / args.n, np.array(figures)
            (first, second), spread = figures[..., 0].mean(0), np.percentile(figures[..., 0], [16, 84])
            report.say(
                f"{label:20}{figures[..., 0].mean():8.2f}{figures[..., 1].mean():8.3f}{first:12.2f}{second:8.2f}"
                f"{spread[0]:10.2f}{spread[1]:8.2f}{seconds:9.3f}"
            )
        report.say()
    if not args.dry:
        report.save()


if __name__ == "__main__":
    main()

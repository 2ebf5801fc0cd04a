"""The verbs that take images: their options, and the work on one input after the other."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from lensdeblend.cli.common import each_input, output_paths, picture_paths, refuse_existing
from lensdeblend.io import read_bands, read_image

__all__ = ["add_image_options", "read_input", "run_on_images"]

_PLANES = {
    "--image": "the image", "--variance": "the variance", "--std": "the standard deviation",
    "--inverse-variance": "the inverse variance", "--weight": "weights", "--mask": "the mask", "--psf": "the PSF",
}


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """The inputs, and the options of `lensdeblend.io.read_image`."""
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IMAGE.fits")
    group = parser.add_argument_group("reading", "Planes are named by EXTNAME, number, FILE or FILE[EXTNAME].")
    for option, what in _PLANES.items():
        names = (option, "--noise") if option == "--std" else (option,)
        group.add_argument(*names, metavar="PLANE", help=f"where {what} is")
    group.add_argument("--mask-bits", metavar="NAME,...", help="the mask bits that mean bad, by name or number")
    group.add_argument("--unit", help="unit of the image, instead of BUNIT")
    group.add_argument("--pixel-scale", type=float, metavar="ARCSEC", help="angle per pixel, where there is no WCS")
    bands = group.add_mutually_exclusive_group()
    bands.add_argument("--band", help="one band of a file that holds several")
    bands.add_argument("--bands", action="store_true", help="all bands of a file that holds several")
    group.add_argument(
        "--cutout", nargs=3, type=float, metavar=("X", "Y", "SIZE"), help="only SIZE pixels around pixel X, Y (from 0)"
    )


def read_input(path: Path, args: argparse.Namespace):
    """Read one input as `lensdeblend.io.read_image` would."""
    from lensdeblend.images import cutout

    settings = {name: getattr(args, name) for name in ("variance", "std", "inverse_variance", "weight", "mask", "psf")}
    settings = {name: _plane(text) for name, text in (settings | {"image": args.image}).items()}
    settings |= {"unit": args.unit, "pixel_scale": args.pixel_scale}
    if args.mask_bits is not None:
        bits = [bit.strip() for bit in args.mask_bits.split(",") if bit.strip()]
        settings["mask_bits"] = "all" if bits == ["all"] else [int(bit) if bit.isdigit() else bit for bit in bits]
    image = read_bands(path, **settings) if args.bands else read_image(path, band=args.band, **settings)
    if args.cutout is None:
        return image
    x, y, size = args.cutout
    if args.bands:
        return {band: cutout(plane, (x, y), size) for band, plane in image.items()}
    return cutout(image, (x, y), size)


def run_on_images(args: argparse.Namespace, suffix: str, verb: Callable, report: Callable) -> int:
    """Read each input, call ``verb(number, image)``, write and draw what it returns, ``report(path, result)``."""
    inputs = args.inputs
    outputs = output_paths(inputs, args.output, f"_{suffix}.fits")
    pictures = picture_paths(inputs, args.plot, f"_{suffix}.png")
    refuse_existing(outputs, args.overwrite, pictures=pictures, inputs=[*inputs, *_plane_files(args)])

    def work(number: int, path: Path) -> None:
        result = verb(number, read_input(path, args))
        result.write(outputs[number], overwrite=args.overwrite)
        if pictures:
            result.plot(pictures[number], overwrite=args.overwrite)
        report(path, result)

    return each_input(args, inputs, work)


def _plane_files(args: argparse.Namespace) -> list[Path]:
    named = (getattr(args, option[2:].replace("-", "_")) for option in _PLANES)
    return [Path(text.partition("[")[0]) for text in named if text is not None]


def _plane(text: str | None):
    return int(text) if text is not None and text.isdigit() else text

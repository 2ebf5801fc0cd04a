"""From the FITS cut-out of a strong lens to its source, its lens and a picture.

    python reconstruct_one_lens.py cutout.fits --position 150 150 --size 90

The cut-out should have a variance (or a noise map, an inverse variance, a weight) and a PSF: without the first, one
noise for all pixels is estimated from the background, with a warning. It may have a mask, and has a celestial WCS or is
given its pixel scale.
"""

import argparse
from pathlib import Path

from lensdeblend import cutout, reconstruct
from lensdeblend.io import read_image


def main(args=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cutout", type=Path)
    parser.add_argument("--noise", type=Path, help="file with the standard deviation, where it is not in the cut-out's")
    parser.add_argument("--psf", type=Path, help="file with the PSF, where it is not in the cut-out's")
    parser.add_argument("--pixel-scale", type=float, help="arcsec, where there is no WCS")
    parser.add_argument("--position", type=float, nargs=2, metavar=("X", "Y"), help="pixel of the lens, counted from 0")
    parser.add_argument("--size", type=int, default=80, help="pixels around the position that are used")
    parser.add_argument("--output", type=Path, help="FITS file for the result (default: beside the cut-out)")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(args)

    image = read_image(options.cutout, std=options.noise, psf=options.psf, pixel_scale=options.pixel_scale)
    if options.position:
        image = cutout(image, tuple(options.position), options.size)
    result = reconstruct(image, seed=1)

    output = options.output or options.cutout.with_name(f"{options.cutout.stem}_result.fits")
    result.write(output, overwrite=options.overwrite)
    result.plot(output.with_suffix(".png"), overwrite=options.overwrite)

    row = result.parameters[0]
    for name in ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2"):
        print(f"{name:10} {row[name]:9.4f} +- {row[name + '_err']:.4f}")
    print(f"reduced chi-square {result.chi2:.3f}; flags: {', '.join(result.flags) or 'none'}")
    return result


if __name__ == "__main__":
    main()

"""Write one image to FITS."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

from astropy.nddata import NDData

from lensdeblend.io.contents import write_contents

__all__ = ["write_image"]


def write_image(image: NDData | Mapping[str, NDData], path: str | PathLike, *, overwrite: bool = False) -> None:
    """Write an image, or ``{band: NDData}``, to a FITS file that `~lensdeblend.io.read_image` reads.

    Parameters
    ----------
    image : `~astropy.nddata.NDData` or mapping
        Data go to ``SCI``, the uncertainty to ``VAR``, ``ERR`` or ``IVAR``, the mask to ``DQ``, the PSF to ``PSF``.
    path : path
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OSError
        Where the file exists and may not be replaced, or cannot be written.
    TypeError
        Where it is no image, or holds what FITS cannot.
    ValueError
        Where there is no band.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import NDData, VarianceUncertainty
    >>> from lensdeblend.io import read_image, write_image
    >>> image = NDData(np.ones((16, 16)), uncertainty=VarianceUncertainty(np.ones((16, 16))), unit="nJy")
    >>> write_image(image, "image.fits")
    >>> read_image("image.fits").unit
    Unit("nJy")
    """
    images = [image]
    if isinstance(image, Mapping):
        images = list(image.values())
        if not images:
            raise ValueError("the mapping of bands is empty: give at least one {band: NDData}")
    for item in images:
        if not isinstance(item, NDData):
            raise TypeError(f"write_image needs an NDData, or {{band: NDData}}; got {type(item).__name__}")
    write_contents({"image": image}, path, overwrite=overwrite)

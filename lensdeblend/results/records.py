"""What the five verbs return.

Images are `~astropy.nddata.NDData` of the input's class. ``meta`` holds the provenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from astropy.nddata import NDData
from astropy.table import QTable

from lensdeblend.results.base import Result
from lensdeblend.scenes import Observation, Scene

__all__ = ["Deblending", "Generation", "Reconstruction", "Simulation", "SuperResolution"]

BandedImage = NDData | Mapping[str, NDData]


@dataclass(frozen=True, eq=False)
class Simulation(Result):
    """A simulated image with its truth.

    Attributes
    ----------
    image : NDData
        What the telescope would record, with variance and PSF.
    noiseless : NDData
        The same without noise.
    scene, observation
        What was simulated, and how.
    sources : list of NDData
        Each galaxy alone, as seen (lensed where there is a lens) through the PSF, without noise.
    source : NDData or None
        The source plane before the PSF, on its own finer grid (lens scenes).
    unlensed : NDData or None
        The source as it would be seen without the lens: input grid and PSF (lens scenes).
    catalog : QTable
        True values, one row a source; the columns are those of `lensdeblend.scenes.catalog.true_catalog`.
    meta : mapping
        Provenance: verb, method, options, seed, date, versions.
    """

    image: BandedImage
    noiseless: BandedImage
    scene: Scene
    observation: Observation
    sources: list[BandedImage]
    source: BandedImage | None = None
    unlensed: BandedImage | None = None
    catalog: QTable | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Reconstruction(Result):
    """The unlensed source, the lens, and how well they explain the data.

    Attributes
    ----------
    source : NDData
        The source plane before the PSF, on its own finer grid and WCS.
    unlensed : NDData
        That source as it would be seen unlensed: input grid, input PSF.
    parameters : QTable
        One row: ``theta_E``, ``gamma``, ``e1``, ``e2``, ``center_x``, ``center_y``, ``gamma1``, ``gamma2`` and what
        else the method fits, each with a ``_err`` column (NaN where the method has no error).
    covariance : ndarray or None
        Of the parameters, in the order of ``parameters`` (without the ``_err`` columns), angles in arcsec.
    samples : QTable or None
        Posterior samples.
    model, residual : NDData
        Forward model; (data - model) / sigma.
    lens_light : NDData or None
        The lens galaxy alone, through the PSF.
    chi2 : float
        Reduced chi-square over unmasked pixels.
    flags : tuple of str
        Empty when nothing is wrong.
    curves : QTable or None
        Critical curves (``x``, ``y``) and caustics (``source_x``, ``source_y``) in arcsec, numbered by ``curve``.
    image : NDData or None
        The data as they were fitted: after `~lensdeblend.prepare`, with the mask and the variance that the method used.
    meta : mapping
        Provenance, and what the method notes.
    """

    source: BandedImage
    unlensed: BandedImage
    parameters: QTable
    covariance: np.ndarray | None
    samples: QTable | None
    model: BandedImage
    residual: BandedImage
    lens_light: BandedImage | None
    chi2: float
    flags: tuple[str, ...] = ()
    curves: QTable | None = None
    image: BandedImage | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Deblending(Result):
    """One image and one catalogue row a galaxy.

    Attributes
    ----------
    sources : list of NDData or of {band: NDData}
        Noise-free model of each galaxy on the input's grid, through its PSF.
    shares : list of NDData or of {band: NDData}
        The data divided among the sources; they sum to the data.
    catalog : QTable
        ``id``, ``x``, ``y``, ``sky`` where there is a WCS, ``flux``, ``flux_err``, ``e1``, ``e2``, ``radius``,
        ``blendedness``, ``flags``; one row a source; ``flux`` is a column a band for several bands.
    segmentation : photutils.segmentation.SegmentationImage or None
    model, residual : NDData
        Forward model; (data - model) / sigma.
    chi2 : float
        Reduced chi-square over unmasked pixels.
    image : NDData or None
        The data as they were fitted.
    samples : QTable or None
        Of the posterior: a row a sample and galaxy, ``sample`` and ``id`` with columns of ``catalog``.
    meta : mapping
        Provenance, and what the method notes.
    """

    sources: list[BandedImage]
    shares: list[BandedImage]
    catalog: QTable
    segmentation: Any
    model: BandedImage
    residual: BandedImage
    chi2: float
    image: BandedImage | None = None
    samples: QTable | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Generation(Result):
    """Galaxies and their properties.

    Attributes
    ----------
    images : list of NDData or of {band: NDData}
        PSF-free unless a PSF was asked for.
    catalog : QTable
        Wished and measured properties, one row a galaxy.
    meta : mapping
        Provenance, and what the method notes.
    """

    images: list[BandedImage]
    catalog: QTable
    meta: Mapping[str, Any] = field(default_factory=dict)

    def write(
        self, path: str | PathLike, overwrite: bool = False, *, layout: str = "mef", band: str | None = None
    ) -> None:
        """Write galaxies and catalogue; `read` tells the layouts apart.

        Parameters
        ----------
        path : path
            A file; a folder for the layouts ``files`` and ``galsim``. It appears whole or not at all.
        overwrite : bool
            Whether what exists may be replaced; a folder only where there is nothing in it but such files.
        layout : {"mef", "cube", "files", "galsim"}
            One FITS file with extensions for every galaxy, as `Result.write` describes; one file with a cube a band,
            for stamps of one shape and without WCS; a folder with one file a galaxy and ``catalog.fits``; a folder that
            GalSim opens as a ``RealGalaxyCatalog`` (``catalog.fits``, its fits in ``catalog_fits.fits``), for galaxies
            with a PSF. The catalogue is the first extension of its file, where ``galsim.Catalog`` reads it.
        band : str, optional
            Of the layout ``galsim``: which of several bands; of one band its name.

        Raises
        ------
        OSError
            Where the path exists and may not be replaced, or cannot be written.
        TypeError, ValueError
            For an unknown layout, and galaxies that it cannot hold: stamps that differ in a cube, no PSF for GalSim.

        Examples
        --------
        >>> from lensdeblend import generate
        >>> from lensdeblend.generators.sersic import Sersic
        >>> from lensdeblend.results import Generation
        >>> made = generate(2, method=Sersic(pixels=32), conditions={"n": 1}, seed=1)
        >>> made.write("cube.fits", layout="cube")
        >>> len(Generation.read("cube.fits").images)
        2
        """
        from lensdeblend.results.files import write_generation

        write_generation(self, path, layout=layout, band=band, overwrite=overwrite)


@dataclass(frozen=True, eq=False)
class SuperResolution(Result):
    """A finer image of a strong lens.

    Attributes
    ----------
    image : NDData
        Noise-free, through the input's PSF, WCS refined by the factor; flux per finer pixel.
    intrinsic : NDData or None
        The same before the PSF; None where the method knows of no PSF, as an interpolation.
    source : NDData or None
        The source plane before the PSF, on its own finer grid.
    deflection : tuple of NDData or None
        (x, y), arcsec, on the pixels of ``image`` (for bands, of the first).
    convergence : NDData or None
        On the same pixels, in units of the critical surface density.
    parameters : QTable or None
        Of the lens, as in `Reconstruction`.
    chi2 : float
        Reduced chi-square of the model on the pixels of the input.
    flags : tuple of str
        Empty when nothing is wrong.
    magnification : NDData or None
        On the same pixels, negative where an image is mirrored.
    substructure : NDData or None
        Convergence beside the smooth lens, on the same pixels; ``convergence`` and all else have it in them. None where
        the method looks for none.
    meta : mapping
        Provenance, and what the method notes.
    """

    image: BandedImage
    intrinsic: BandedImage | None
    source: BandedImage | None
    deflection: tuple[NDData, NDData] | None
    convergence: NDData | None
    parameters: QTable | None
    chi2: float
    flags: tuple[str, ...] = ()
    magnification: NDData | None = None
    substructure: NDData | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

r"""What galaxies there are: magnitude, size, Sérsic index and ellipticity as the published COSMOS fits have them.

A Gaussian copula: each property :math:`x_k` has a marginal distribution :math:`F_k`, given by quantiles, and the scores
:math:`z_k = \Phi^{-1}(F_k(x_k))` are normal
with one correlation matrix :math:`C`. With any subset :math:`a` given, the rest :math:`b` is normal with mean
:math:`C_{ba} C_{aa}^{-1} z_a` and covariance :math:`C_{bb} - C_{ba} C_{aa}^{-1} C_{ab}`.
Position angles are isotropic.

The numbers are those of the 100 galaxies brighter than magnitude 22.5 of
``real_galaxy_catalog_23.5_example_fits.fits``, which GalSim distributes (Rowe et al. 2015, 2015A&C....10..121R): one
Sérsic profile each, fitted to HST/ACS F814W images (Lackner & Gunn 2012, 2012MNRAS.421.2277L; Mandelbaum et al. 2014,
2014ApJS..212....5M). ``benchmarks/cosmos_population.py`` prints them. Fits stop at an index of 6, where
some of them lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy.special import ndtri

__all__ = ["COSMOS", "LEVELS", "PROPERTIES", "ZERO_POINT", "Population", "fitted_properties"]

#: AB magnitude of one count a second in HST/ACS F814W, as GalSim's ``COSMOSCatalog`` states it.
ZERO_POINT = 25.94
#: Magnitude (AB, F814W), logarithms of the circularised half-light radius (arcsec) and of the index, (1-q)/(1+q).
PROPERTIES = ("magnitude", "log_radius", "log_n", "ellipticity")
#: Shares of the galaxies below each of the tabulated numbers.
LEVELS = (0.005, 0.05, 0.15, 0.25, 0.35, 0.5, 0.65, 0.75, 0.85, 0.95, 0.995)

_GRID = 4001
# GalSim draws no lower index, and takes lower fits for this one.
_LOWEST_N = 0.3


@dataclass(frozen=True)
class Population:
    """A joint distribution of `PROPERTIES`, of which any subset may be given.

    Parameters
    ----------
    quantiles : mapping
        A property to its increasing values at `LEVELS`.
    correlation : (4, 4) tuple
        Of the normal scores, in the order of `PROPERTIES`.

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.generators.population import COSMOS
    >>> faint = COSMOS.draw(2000, {"magnitude": np.full(2000, 22.3)}, np.random.default_rng(1))
    >>> bright = COSMOS.draw(2000, {"magnitude": np.full(2000, 19.0)}, np.random.default_rng(1))
    >>> bool(np.median(bright["log_radius"]) > np.median(faint["log_radius"]))
    True
    """

    quantiles: Mapping[str, tuple[float, ...]]
    correlation: tuple[tuple[float, ...], ...]

    def scores(self, name: str, values: np.ndarray) -> np.ndarray:
        """Normal scores of ``values``; beyond the table, those of its ends."""
        return np.interp(values, self.quantiles[name], ndtri(LEVELS))

    def values(self, name: str, scores: np.ndarray) -> np.ndarray:
        """The property at normal ``scores``; beyond the table, its ends."""
        found = np.interp(scores, ndtri(LEVELS), self.quantiles[name])
        # The table's last digit must not ask for an index that cannot be drawn.
        return np.maximum(found, np.nextafter(np.log(_LOWEST_N), 0)) if name == "log_n" else found

    def outside(self, known: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether any of the given properties lies beyond the table (n,)."""
        known = {**known}
        e1, e2 = known.pop("e1", 0.0), known.pop("e2", 0.0)
        known["ellipticity"] = np.maximum(np.hypot(e1, e2), self.quantiles["ellipticity"][0])
        beyond = [(here < self.quantiles[name][0]) | (here > self.quantiles[name][-1]) for name, here in known.items()]
        return np.any(np.broadcast_arrays(*beyond), axis=0)

    def draw(self, n: int, known: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw what is not known, given what is.

        Galaxy ``i`` depends on the seed and on its own known properties, not on ``n``.

        Parameters
        ----------
        n : int
        known : mapping
            Arrays (n,) of ``magnitude``, ``log_radius``, ``log_n``, ``e1`` and ``e2``, any of them.
        rng : `numpy.random.Generator`

        Returns
        -------
        dict
            All five, (n,) each; the known ones unchanged.
        """
        children = rng.spawn(n)
        normals = np.array([child.standard_normal(len(PROPERTIES)) for child in children])
        uniforms = np.array([child.random() for child in children])
        scores = {name: self.scores(name, known[name]) for name in PROPERTIES if name in known}
        components = {name: known[name] for name in ("e1", "e2") if name in known}
        if len(components) == 1:
            (given, value), = components.items()
            mean, deviation = self._conditional("ellipticity", scores, n)
            other = [self._other_component(*one) for one in zip(value, mean, deviation, uniforms)]
            components["e2" if given == "e1" else "e1"] = np.array(other)
        if components:
            scores["ellipticity"] = self.scores("ellipticity", np.hypot(components["e1"], components["e2"]))
        for k, name in enumerate(PROPERTIES):
            if name not in scores:
                mean, deviation = self._conditional(name, scores, n)
                scores[name] = mean + deviation * normals[:, k]
        drawn = {name: known.get(name, self.values(name, scores[name])) for name in PROPERTIES[:3]}
        if not components:
            modulus, phase = self.values("ellipticity", scores["ellipticity"]), 2 * np.pi * uniforms
            components = {"e1": modulus * np.cos(phase), "e2": modulus * np.sin(phase)}
        return {**drawn, "e1": components["e1"], "e2": components["e2"]}

    def _conditional(self, name: str, scores: Mapping[str, np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of one score given others, (n,) each."""
        correlation = np.array(self.correlation)
        own, given = PROPERTIES.index(name), [PROPERTIES.index(other) for other in scores]
        if not given:
            return np.zeros(n), np.ones(n)
        weights = np.linalg.solve(correlation[np.ix_(given, given)], correlation[given, own])
        variance = 1 - weights @ correlation[given, own]
        return weights @ np.array([scores[other] for other in scores]), np.full(n, np.sqrt(variance))

    def _other_component(self, known: float, mean: float, deviation: float, uniform: float) -> float:
        """The second component given the first: at one modulus all position angles are as likely."""
        table = self.quantiles["ellipticity"]
        reach = np.sqrt(max(table[-1] ** 2 - known**2, 0))
        edges = np.linspace(-reach, reach, _GRID)
        middle = (edges[1:] + edges[:-1]) / 2
        modulus = np.maximum(np.hypot(known, middle), table[0])
        step = np.diff(table)
        slope = np.diff(ndtri(LEVELS)) / step
        density = slope[np.clip(np.searchsorted(table, modulus) - 1, 0, len(step) - 1)]
        density = density * np.exp(-0.5 * ((self.scores("ellipticity", modulus) - mean) / deviation) ** 2) / modulus
        below = np.concatenate([[0], np.cumsum(density)])
        return float(np.interp(uniform, below / below[-1], edges)) if reach and below[-1] > 0 else 0.0


def fitted_properties(file) -> dict[str, np.ndarray]:
    """`PROPERTIES` of the viable Sérsic fits in the table of a GalSim COSMOS catalogue.

    Parameters
    ----------
    file : str, path or `~astropy.table.Table`

    Raises
    ------
    ValueError
        Where a column is missing, with its name.
    """
    table = file if isinstance(file, Table) else Table.read(file)
    missing = [name for name in ("sersicfit", "hlr", "flux", "viable_sersic") if name not in table.colnames]
    if missing:
        raise ValueError(f"a table of COSMOS fits lacks the column {', '.join(missing)}")
    table = table[np.asarray(table["viable_sersic"]) == 1]
    index, axis_ratio = np.asarray(table["sersicfit"], dtype=float)[:, 2:4].T
    flux, radius = (np.asarray(table[name], dtype=float)[:, 0] for name in ("flux", "hlr"))
    index = np.maximum(index, _LOWEST_N)
    return {
        "magnitude": ZERO_POINT - 2.5 * np.log10(flux), "log_radius": np.log(radius), "log_n": np.log(index),
        "ellipticity": (1 - axis_ratio) / (1 + axis_ratio),
    }


#: Of the galaxies brighter than magnitude 22.5 in GalSim's COSMOS example.
COSMOS = Population(
    {
        "magnitude": (16.649, 18.264, 20.020, 20.782, 21.183, 21.652, 22.025, 22.171, 22.263, 22.385, 22.624),
        "log_radius": (-2.667, -1.617, -1.332, -1.130, -0.992, -0.872, -0.620, -0.413, -0.274, 0.412, 0.831),
        "log_n": (-1.204, -0.585, -0.320, -0.102, 0.087, 0.348, 0.759, 1.229, 1.544, 1.791, 1.792),
        "ellipticity": (0.018, 0.044, 0.085, 0.123, 0.166, 0.282, 0.356, 0.412, 0.497, 0.600, 0.666),
    },
    (
        (1.00, -0.54, -0.46, 0.22),
        (-0.54, 1.00, 0.02, -0.20),
        (-0.46, 0.02, 1.00, -0.27),
        (0.22, -0.20, -0.27, 1.00),
    ),
)

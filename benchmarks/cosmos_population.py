"""The joint distribution of the published COSMOS fits, as the numbers of ``lensdeblend/generators/population.py``.

FILE is the table of fits of a GalSim COSMOS catalogue, such as ``real_galaxy_catalog_23.5_example_fits.fits``::

    python benchmarks/cosmos_population.py FILE
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import norm, rankdata

from lensdeblend.generators.population import LEVELS, PROPERTIES, fitted_properties

# Between numbers of the table that would be equal: fits stop at an index of 6.
_APART = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    fits = fitted_properties(parser.parse_args().file)
    count = len(fits["magnitude"])
    print(f"{count} galaxies with a viable fit")
    below = (np.arange(count) + 0.5) / count
    for name in PROPERTIES:
        table = np.interp(LEVELS, below, np.sort(fits[name]))
        steps = np.arange(len(table))
        table = np.minimum.accumulate((table - _APART * steps)[::-1])[::-1] + _APART * steps
        print(f"{name}: {', '.join(f'{number:.3f}' for number in table)}")
    scores = norm.ppf([(rankdata(fits[name]) - 0.5) / count for name in PROPERTIES])
    for row in np.corrcoef(scores):
        print(", ".join(f"{number:.2f}" for number in row))


if __name__ == "__main__":
    main()

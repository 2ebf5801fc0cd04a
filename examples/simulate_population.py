"""Draw scenes from a population, simulate them, and write one FITS file each and a table of what was drawn.

    python simulate_population.py lens-benchmark lenses/ --n 20 --seed 1

``python simulate_population.py --list`` prints the populations, and each with its priors.
"""

import argparse
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lensdeblend import simulate
from lensdeblend.scenes.populations import population, populations
from lensdeblend.simulators.sampling import observed


def draw(name, n, seed, method="lenstronomy"):
    """Yield the simulations, one after the other."""
    drawn_from = population(name)
    for rng in np.random.default_rng(seed).spawn(n):
        simulation = simulate(drawn_from.draw(rng), drawn_from.observation, method=method, seed=seed)
        # The noise may follow from the brightest pixel of the sources, which only an image shows.
        yield observed(simulation, drawn_from, rng)


def main(args=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("population", nargs="?")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--n", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the populations with their priors")
    options = parser.parse_args(args)
    if options.list:
        print("\n\n".join(str(population(name)) for name in populations()))
        return
    if options.folder is None:
        parser.error("give a population and a folder, or --list")

    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, simulation in enumerate(draw(options.population, options.n, options.seed), start=1):
        path = options.folder / f"{options.population}_{number:04d}.fits"
        simulation.write(path)
        scene = simulation.scene
        theta_E = scene.mass[0].theta_E.to_value(u.arcsec) if scene.is_lens else np.nan
        noise = np.sqrt(np.median(simulation.image.uncertainty.array))
        rows.append((path.name, theta_E, np.max(simulation.noiseless.data) / noise))
    table = QTable(rows=rows, names=("file", "theta_E", "peak_snr"), units={"theta_E": u.arcsec})
    table.write(options.folder / f"{options.population}.ecsv")
    print(table)


if __name__ == "__main__":
    main()

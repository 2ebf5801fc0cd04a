"""Populations through a simulator."""

from __future__ import annotations

import numpy as np

from lensdeblend.interfaces import Simulator
from lensdeblend.results import Simulation
from lensdeblend.scenes.populations import Population
from lensdeblend.simulators.assembly import with_noise
from lensdeblend.simulators.generated import generated

__all__ = ["observed", "sample"]


def sample(population: Population, n: int, simulator: Simulator, rng: np.random.Generator) -> list[Simulation]:
    """Draw ``n`` scenes, simulate them and observe each as the population says.

    The scenes are simulated without noise as one batch; the noise of each is set once its brightest pixel is known.

    Parameters
    ----------
    population : `~lensdeblend.scenes.populations.Population`
    n : int
    simulator : `~lensdeblend.interfaces.Simulator`
    rng : `numpy.random.Generator`

    Examples
    --------
    >>> import numpy as np
    >>> from lensdeblend.scenes.populations import population
    >>> from lensdeblend.simulators.lenstronomy import Lenstronomy
    >>> from lensdeblend.simulators.sampling import sample
    >>> one, = sample(population("lens-benchmark"), 1, Lenstronomy(), np.random.default_rng(1))
    >>> bool(10 <= one.catalog["peak_snr"][0] <= 100)
    True
    """
    for_scenes, for_images, for_noise = rng.spawn(3)
    scenes = [generated(population.draw(child)) for child in for_scenes.spawn(n)]
    simulations = simulator.simulate_batch(scenes, population.observation, for_images)
    return [observed(simulation, population, child) for simulation, child in zip(simulations, for_noise.spawn(n))]


def observed(simulation: Simulation, population: Population, rng: np.random.Generator) -> Simulation:
    """Give a simulation the noise of its population, which may depend on the brightest pixel of the sources."""
    peak = max(float(np.sum([source.data for source in simulation.sources], axis=0).max()), 0.0)
    return with_noise(simulation, population.observe(rng, peak), rng)

"""``lensdeblend simulate``: make images of scenes, from YAML files or drawn from a population."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from lensdeblend.cli.common import (
    add_common_options, chosen_method, each_input, output_paths, picture_paths, refuse_existing,
)
from lensdeblend.cli.options import parse_options, parse_wishes
from lensdeblend.interfaces import Simulator
from lensdeblend.plugins import method_class
from lensdeblend.results import Simulation
from lensdeblend.scenes import Observation, Scene
from lensdeblend.scenes.populations import Population, population, read_population
from lensdeblend.simulators.generated import chosen_generator
from lensdeblend.simulators.sampling import observed
from lensdeblend.verbs import simulate

__all__ = ["add_options", "run"]

log = logging.getLogger(__name__)

# Scenes of a population that are simulated together: fewer where images are large, so that memory stays flat.
_MOST_TOGETHER = 64
_PIXELS_TOGETHER = 2**20


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenes", nargs="*", type=Path, metavar="SCENE.yaml", help="scenes, as Scene.write makes them")
    parser.add_argument(
        "--population", metavar="NAME|FILE.yaml", help="draw the scenes from this population instead: a known one, or "
        "what Population.write makes",
    )
    parser.add_argument("--n", type=int, default=1, help="how many scenes to draw (1)")
    parser.add_argument(
        "--observation", metavar="NAME|FILE.yaml",
        help="a preset such as euclid-vis, or what Observation.write makes; a population has its own",
    )
    parser.add_argument(
        "--generator", metavar="NAME", help="a generator of `lensdeblend methods` that makes the population's sources",
    )
    parser.add_argument(
        "--generator-set", action="append", default=[], metavar="OPTION=VALUE", help="an option of the generator",
    )
    parser.add_argument(
        "--condition", action="append", default=[], metavar="NAME=VALUE",
        help="a wish to the generator in place of the population's own, such as n=1; with the value none it is left to "
        "the generator",
    )
    parser.add_argument("--shape", type=int, nargs=2, metavar=("NY", "NX"), help="size of a preset's image (64 64)")
    add_common_options(
        parser, simulate, "simulator", output="file, or folder for several scenes (SCENE_simulation.fits)"
    )


def run(args: argparse.Namespace) -> int:
    if bool(args.scenes) == bool(args.population):
        raise ValueError("give either scene files or --population NAME")
    if args.generator is None and (args.generator_set or args.condition):
        raise ValueError("--generator-set and --condition go with --generator NAME")
    if args.generator is not None and not args.population:
        raise ValueError("--generator goes with --population; a scene names its generators itself, as GeneratedSource")
    method = chosen_method("simulator", args)
    names, made = _from_population(args, method) if args.population else _from_files(args, method)
    outputs = output_paths(names, args.output, "_simulation.fits")
    pictures = picture_paths(names, args.plot, "_simulation.png")
    refuse_existing(outputs, args.overwrite, pictures=pictures, inputs=args.scenes)

    def work(number: int, name: Path) -> None:
        result = made(number)
        result.write(outputs[number], overwrite=args.overwrite)
        if pictures:
            result.plot(pictures[number], overwrite=args.overwrite)
        if len(names) == 1:
            print(f"{outputs[number]} written")

    return each_input(args, names, work)


def _from_files(args: argparse.Namespace, method: Simulator) -> tuple[list[Path], Callable[[int], Simulation]]:
    if args.observation is None:
        raise ValueError("--observation is needed: a preset's name, or a YAML file")
    observation = _observation(args)
    seeds = _seeds(args.seed, len(args.scenes))
    return args.scenes, lambda number: simulate(
        Scene.read(args.scenes[number]), observation, method=method, seed=seeds[number]
    )


def _from_population(args: argparse.Namespace, method: Simulator) -> tuple[list[Path], Callable[[int], Simulation]]:
    if args.n < 1:
        raise ValueError(f"--n must be at least 1; got {args.n}")
    drawn_from = _population(args)
    if args.observation is not None:
        drawn_from = replace(drawn_from, observation=_observation(args))
    generators = np.random.default_rng(args.seed).spawn(args.n)
    size = int(np.clip(_PIXELS_TOGETHER // np.prod(drawn_from.observation.shape), 1, _MOST_TOGETHER))
    seeds = _seeds(args.seed, -(-args.n // size))

    @lru_cache(maxsize=1)
    def block(index: int) -> list[Scene | Simulation]:
        """Consecutive scenes, simulated together; as they are where that fails, for the error to name its scene."""
        scenes = [drawn_from.draw(rng) for rng in generators[index * size:(index + 1) * size]]
        try:
            return simulate(scenes, drawn_from.observation, method=method, seed=seeds[index])
        except Exception as error:
            log.debug("simulating one scene at a time: %s", error)
            return scenes

    def made(number: int) -> Simulation:
        one = block(number // size)[number % size]
        if isinstance(one, Scene):
            one = simulate(one, drawn_from.observation, method=method, seed=seeds[number // size])
        return observed(one, drawn_from, generators[number])

    width = len(str(args.n))
    names = [Path(f"{drawn_from.name}_{number:0{width}d}") for number in range(1, args.n + 1)]
    return names if args.n > 1 else [Path(drawn_from.name)], made


def _population(args: argparse.Namespace) -> Population:
    path = Path(args.population)
    drawn_from = read_population(path) if path.suffix in (".yaml", ".yml") else population(args.population)
    if args.generator is not None:
        left = {text.removesuffix("=none"): None for text in args.condition if text.endswith("=none")}
        drawn_from = drawn_from.with_generator(
            args.generator, options=parse_options(
                method_class("generator", args.generator), args.generator_set, flag="--generator-set",
            ),
            conditions=left | parse_wishes([text for text in args.condition if not text.endswith("=none")]),
        )
    if drawn_from.generator is not None:
        # What is wrong with the generator is said once, not for every scene.
        chosen_generator(drawn_from.generator)
    return drawn_from


def _seeds(seed: int | None, count: int) -> list[int | None]:
    """One a call of the simulator; where there is only one, the user's own."""
    return [seed] if count == 1 else [int(state) for state in np.random.SeedSequence(seed).generate_state(count)]


def _observation(args: argparse.Namespace) -> Observation:
    path = Path(args.observation)
    if path.suffix in (".yaml", ".yml"):
        if args.shape:
            raise ValueError("--shape goes with a preset; an observation file has its own")
        return Observation.read(path)
    return Observation.preset(args.observation, shape=tuple(args.shape or (64, 64)))

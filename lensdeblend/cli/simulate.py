"""``lensdeblend simulate``: make images of scenes, from YAML files or drawn from a population."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from lensdeblend.cli.common import (
    add_common_options, chosen_method, each_input, output_paths, picture_paths, refuse_existing,
)
from lensdeblend.scenes import Observation, Scene
from lensdeblend.scenes.populations import population
from lensdeblend.simulators.sampling import observed
from lensdeblend.verbs import simulate

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenes", nargs="*", type=Path, metavar="SCENE.yaml", help="scenes, as Scene.write makes them")
    parser.add_argument("--population", metavar="NAME", help="draw the scenes from this population instead")
    parser.add_argument("--n", type=int, default=1, help="how many scenes to draw (1)")
    parser.add_argument(
        "--observation", metavar="NAME|FILE.yaml",
        help="a preset such as euclid-vis, or what Observation.write makes; a population has its own",
    )
    parser.add_argument("--shape", type=int, nargs=2, metavar=("NY", "NX"), help="size of a preset's image (64 64)")
    add_common_options(
        parser, simulate, "simulator", output="file, or folder for several scenes (SCENE_simulation.fits)"
    )


def run(args: argparse.Namespace) -> int:
    if bool(args.scenes) == bool(args.population):
        raise ValueError("give either scene files or --population NAME")
    method = chosen_method("simulator", args)
    names, draw = _from_population(args) if args.population else _from_files(args)
    outputs = output_paths(names, args.output, "_simulation.fits")
    pictures = picture_paths(names, args.plot, "_simulation.png")
    refuse_existing(outputs, args.overwrite, pictures=pictures, inputs=args.scenes)
    seeds = np.random.SeedSequence(args.seed).generate_state(len(names))

    def work(number: int, name: Path) -> None:
        scene, observation, observe = draw(number)
        seed = args.seed if len(names) == 1 else int(seeds[number])
        result = observe(simulate(scene, observation, method=method, seed=seed))
        result.write(outputs[number], overwrite=args.overwrite)
        if pictures:
            result.plot(pictures[number], overwrite=args.overwrite)
        if len(names) == 1:
            print(f"{outputs[number]} written")

    return each_input(args, names, work)


def _from_files(args: argparse.Namespace):
    if args.observation is None:
        raise ValueError("--observation is needed: a preset's name, or a YAML file")
    observation = _observation(args)
    return args.scenes, lambda number: (Scene.read(args.scenes[number]), observation, lambda simulation: simulation)


def _from_population(args: argparse.Namespace):
    if args.n < 1:
        raise ValueError(f"--n must be at least 1; got {args.n}")
    drawn_from = population(args.population)
    if args.observation is not None:
        drawn_from = replace(drawn_from, observation=_observation(args))
    generators = np.random.default_rng(args.seed).spawn(args.n)

    def draw(number: int):
        rng = generators[number]
        scene = drawn_from.draw(rng)
        return scene, drawn_from.observation, lambda simulation: observed(simulation, drawn_from, rng)

    width = len(str(args.n))
    names = [Path(f"{args.population}_{number:0{width}d}") for number in range(1, args.n + 1)]
    return names if args.n > 1 else [Path(args.population)], draw


def _observation(args: argparse.Namespace) -> Observation:
    path = Path(args.observation)
    if path.suffix in (".yaml", ".yml"):
        if args.shape:
            raise ValueError("--shape goes with a preset; an observation file has its own")
        return Observation.read(path)
    return Observation.preset(args.observation, shape=tuple(args.shape or (64, 64)))

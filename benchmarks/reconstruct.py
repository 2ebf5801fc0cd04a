"""How well and how fast the forward method recovers lenses: errors against their bound, coverage, chi-square, time.

    python benchmarks/reconstruct.py                          100 lenses without lens light
    python benchmarks/reconstruct.py --population lens-benchmark-light --name reconstruct-light
    python benchmarks/reconstruct.py --peer 3                 beside lenstronomy's particle swarm on three of them
"""

from __future__ import annotations

import argparse
import time

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import numpy as np
import torch
from tqdm import tqdm

from lensdeblend import reconstruct
from lensdeblend.evaluation.cramer_rao import cramer_rao_bound
from lensdeblend.lensing.parametric import LENS_NAMES
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.reconstructors.lenstronomy import Lenstronomy as ParticleSwarm
from lensdeblend.scenes.populations import population
from lensdeblend.simulators.lenstronomy import Lenstronomy
from lensdeblend.simulators.sampling import sample


def _numbers(table) -> np.ndarray:
    return np.array([float(getattr(table[name][0], "value", table[name][0])) for name in LENS_NAMES])


def _errors(table) -> np.ndarray:
    return np.array([float(getattr(table[f"{name}_err"][0], "value", table[f"{name}_err"][0])) for name in LENS_NAMES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--population", default="lens-benchmark")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer", type=int, default=0, help="on how many images to run lenstronomy's particle swarm")
    parser.add_argument("--name", default="reconstruct", help="of the file under results/")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report = Report(
        args.name,
        f"{args.n} lenses of population {args.population}, seed {args.seed}; truth by the lenstronomy simulator; "
        "one CPU thread",
        ("lensdeblend", "torch", "lenstronomy", "numpy"),
    )
    rng = np.random.default_rng(args.seed)
    simulations = sample(population(args.population), args.n, Lenstronomy(precision=1e-5), rng)
    method = Forward(samples=0)
    reconstruct(simulations[0].image, method=method, seed=0)
    rows = []
    for index, simulation in enumerate(tqdm(simulations, unit="lens")):
        start = time.process_time()
        result = reconstruct(simulation.image, method=method, seed=args.seed + index)
        seconds = time.process_time() - start
        truth = _numbers(simulation.scene.lens_parameters)
        freedom = result.meta["degrees_of_freedom"]
        rows.append((
            _numbers(result.parameters) - truth, _errors(result.parameters), _numbers(cramer_rao_bound(simulation)),
            (result.chi2 - 1) / np.sqrt(2 / freedom), result.chi2, seconds, result.flags,
        ))
    *numbers, flags = zip(*rows)
    error, claimed, bound, chi, chi2, seconds = map(np.array, numbers)
    report.say(
        f"{'parameter':10} {'RMSE':>8} {'rms err/CRB':>12} {'med |err|/CRB':>14} {'bias/CRB':>9} "
        f"{'68% holds':>10} {'95% holds':>10}"
    )
    ratio = error / bound
    pull = np.abs(error / claimed)
    for i, name in enumerate(LENS_NAMES):
        report.say(
            f"{name:10} {np.sqrt(np.mean(error[:, i]**2)):8.4f} {np.sqrt(np.mean(ratio[:, i]**2)):12.3f} "
            f"{np.median(np.abs(ratio[:, i])):14.3f} {np.mean(ratio[:, i]):+9.3f} {np.mean(pull[:, i] < 0.9945):10.1%} "
            f"{np.mean(pull[:, i] < 1.96):10.1%}"
        )
    report.say(
        f"{'all':10} {'':8} {np.sqrt(np.mean(ratio**2)):12.3f} {np.median(np.abs(ratio)):14.3f} "
        f"{np.mean(ratio):+9.3f} {np.mean(pull < 0.9945):10.1%} {np.mean(pull < 1.96):10.1%}"
    )
    worst_last = np.argsort(np.sqrt(np.mean(ratio**2, axis=1)))
    best = worst_last[:int(np.ceil(0.9 * len(ratio)))]
    report.say(
        f"{'best 90%':10} {'':8} {np.sqrt(np.mean(ratio[best]**2)):12.3f} {np.median(np.abs(ratio[best])):14.3f} "
        f"{np.mean(ratio[best]):+9.3f} {np.mean(pull[best] < 0.9945):10.1%} {np.mean(pull[best] < 1.96):10.1%}"
    )
    report.say("(best 90%: without the tenth of the lenses whose errors exceed their bound most;")
    report.say(" a median of |error|/bound of 0.674, an rms of 1, and 68% and 95% are what ideal errors give)")
    report.say("")
    report.say(f"reduced chi-square within 3 sigma of 1: {np.mean(np.abs(chi) < 3):.0%} of the lenses")
    names, counts = np.unique([f for some in flags for f in some] or ["none"], return_counts=True)
    report.say("flags: " + (", ".join(f"{n} ({c})" for n, c in zip(names, counts)) if any(flags) else "none"))
    report.say(
        f"CPU seconds a lens: median {np.median(seconds):.2f}, mean {np.mean(seconds):.2f}, "
        f"largest {np.max(seconds):.2f}"
    )
    if args.peer:
        report.say("")
        report.say("lenstronomy FittingSequence, PSO of 60 particles x 150 iterations, and forward on the same images:")
        peer = ParticleSwarm(particles=60, iterations=150)
        for index in range(args.peer):
            start = time.process_time()
            found = reconstruct(simulations[index].image, method=peer, seed=args.seed)
            peer_seconds = time.process_time() - start
            off = _numbers(found.parameters) - _numbers(simulations[index].scene.lens_parameters)
            report.say(
                f"  lens {index}: PSO {peer_seconds:6.1f} s, chi2 {found.chi2:6.3f}, "
                f"theta_E off by {abs(off[0]):.4f}, gamma by {abs(off[1]):.3f}; "
                f"forward {seconds[index]:5.2f} s, chi2 {chi2[index]:.3f}, "
                f"off by {abs(error[index, 0]):.4f} and {abs(error[index, 1]):.3f}"
            )
    report.save()


if __name__ == "__main__":
    main()

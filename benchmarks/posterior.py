"""Whether the posterior is calibrated, what re-weighting is worth, and what forward gains by starting from it.

    python benchmarks/posterior.py -o posterior.png           1,000 fresh lenses, 50 fits from either kind of start
    python benchmarks/posterior.py -o p.png -n 100 --fits 5 --reweighted 5 --name posterior-small

Calibration is simulation-based (Talts et al. 2018arXiv180406788T): lenses and images are drawn from the population that
the network learned from, and the rank of the truth among the samples must be uniform.
"""

from __future__ import annotations

import argparse
import time

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from lensdeblend import reconstruct
from lensdeblend.lensing.parametric import LENS_NAMES
from lensdeblend.networks.orientations import ORIENTATIONS
from lensdeblend.networks.posterior import NAMES, Oriented
from lensdeblend.networks.weights import load_weights
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.reconstructors.posterior import Posterior
from lensdeblend.scenes.populations import population
from lensdeblend.simulators.lenstronomy import Lenstronomy
from lensdeblend.simulators.sampling import sample
from lensdeblend.training.recipe import Recipe, from_mapping
from lensdeblend.training.tasks import task

_FRESH = 10
_BATCH = 50
_BINS = 20
_SHARES = (0.68, 0.95)
_LEVELS = np.linspace(0.05, 0.95, 19)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", required=True, help="the figure, a PNG")
    parser.add_argument("-n", type=int, default=1000, help="lenses for the calibration")
    parser.add_argument("--samples", type=int, default=399, help="of the posterior of each")
    parser.add_argument("--fits", type=int, default=50, help="lenses fitted from either kind of start")
    parser.add_argument("--reweighted", type=int, default=20, help="lenses whose samples are re-weighted")
    parser.add_argument("--population", default="lens-benchmark", help="of the lenses that are fitted")
    parser.add_argument("--weights", default="posterior")
    parser.add_argument("--images", action="append", default=[], help="folder of real galaxies, if there are some")
    parser.add_argument("--symmetrise", action="store_true", help="draw from eight orientations of each image")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="posterior", help="of the file under results/")
    args = parser.parse_args()
    torch.set_num_threads(1)
    network, card = load_weights(args.weights)
    report = Report(
        args.name,
        f"weights {card.name}, {card.length.get('steps')} steps, sha256 {card.sha256[:12]}; seed {args.seed}; one CPU "
        "thread", ("lensdeblend", "torch", "zuko", "lenstronomy", "numpy"),
    )
    truth, samples = fresh(network, card, args)
    calibration(report, truth, samples, args.output)
    fits(report, args)
    report.save()


def fresh(network, card, args) -> tuple[np.ndarray, np.ndarray]:
    """Truth (n, 11) and samples (n, samples, 11) of lenses that were not trained on; lengths in pixels."""
    recipe = from_mapping(Recipe, card.recipe, "the card's recipe")
    drawn = task(recipe.task)(recipe, images=args.images)
    truth, samples = [], []
    orientations = ORIENTATIONS if args.symmetrise else ORIENTATIONS[:1]
    generator = torch.Generator().manual_seed(args.seed)
    with torch.no_grad(), tqdm(total=args.n, unit="lens") as bar:
        for number in range(-(-args.n // _BATCH)):
            count = min(_BATCH, args.n - number * _BATCH)
            batch = drawn.draw(count, (args.seed, _FRESH, number), torch.device("cpu"), "test")
            truth.append(torch.cat([batch.lens, batch.place, batch.radius[:, None]], 1))
            for index in range(count):
                oriented = Oriented(network, batch.seen[index:index + 1], orientations)
                samples.append(oriented.sample(args.samples, generator))
                bar.update()
    return torch.cat(truth).numpy(), torch.stack(samples).numpy()


def calibration(report: Report, truth: np.ndarray, samples: np.ndarray, path: str) -> None:
    count, each, _ = samples.shape
    ranks = (samples < truth[:, None]).sum(1)
    report.say(f"{count} fresh lenses of the population learned from, {each} samples each; lengths in pixels")
    report.say(
        f"{'parameter':14} {'RMSE':>8} {'prior sd':>9} {'mean sd':>8} {'68% holds':>10} {'95% holds':>10} "
        f"{'uniform: p':>11}"
    )
    all_held, worst = [], 0.0
    for i, name in enumerate(NAMES):
        held = [held_within(ranks[:, i], each, share) for share in _SHARES]
        all_held.append(held)
        worst = max(worst, *(abs(h - share) for h, share in zip(held, _SHARES)))
        # Spread over its step, a rank that is uniform is uniform on 0 to 1.
        spread = (ranks[:, i] + np.random.default_rng(i).random(count)) / (each + 1)
        own = samples[:, :, i]
        rmse = np.sqrt(np.mean((own.mean(1) - truth[:, i]) ** 2))
        report.say(
            f"{name:14} {rmse:8.4f} {truth[:, i].std():9.4f} {own.std(1).mean():8.4f} "
            f"{held[0]:10.1%} {held[1]:10.1%} {stats.kstest(spread, 'uniform').pvalue:11.3f}"
        )
    mean = np.mean(all_held, 0)
    report.say(f"{'all':14} {'':8} {'':9} {'':8} {mean[0]:10.1%} {mean[1]:10.1%}")
    chance = [np.sqrt(share * (1 - share) / count) for share in _SHARES]
    report.say(
        f"largest departure from 68% or 95%: {100 * worst:.1f} points (by chance alone one sigma is "
        f"{100 * chance[0]:.1f} and {100 * chance[1]:.1f})"
    )
    report.say("")
    draw(ranks, each, path)


def held_within(ranks: np.ndarray, each: int, share: float) -> float:
    """How often the central interval that holds ``share`` of the posterior holds the truth."""
    place = (ranks + 0.5) / (each + 1)
    return float(np.mean(np.abs(place - 0.5) <= share / 2))


def draw(ranks: np.ndarray, each: int, path: str) -> None:
    from matplotlib.figure import Figure

    count = len(ranks)
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(3, 4).flat
    low, high = stats.binom(count, 1 / _BINS).interval(0.99)
    for i, name in enumerate(NAMES):
        panel = next(axes)
        panel.hist((ranks[:, i] + 0.5) / (each + 1), bins=_BINS, range=(0, 1), alpha=0.6)
        panel.axhspan(low, high, color="gray", alpha=0.3)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("rank of the truth", fontsize=8)
    panel = next(axes)
    panel.plot([0, 1], [0, 1], color="gray")
    for i, name in enumerate(NAMES):
        panel.plot(_LEVELS, [held_within(ranks[:, i], each, level) for level in _LEVELS], linewidth=1)
    panel.set_xlabel("share of the posterior", fontsize=8)
    panel.set_ylabel("share of the truths", fontsize=8)
    figure.savefig(path, dpi=100)


def fits(report: Report, args) -> None:
    """Forward from blind starts and from the posterior's, turn by turn on the same images; then re-weighting."""
    count = max(args.fits, args.reweighted)
    if not count:
        return
    rng = np.random.default_rng(args.seed)
    simulations = sample(population(args.population), count, Lenstronomy(precision=1e-5), rng)
    methods = {start: Forward(start=start, samples=0) for start in ("blind", "posterior")}
    for method in methods.values():
        reconstruct(simulations[0].image, method=method, seed=0)
    report.say(f"forward on {args.fits} lenses of population {args.population}, truth by the lenstronomy simulator")
    found = {start: [] for start in methods}
    for index, simulation in enumerate(tqdm(simulations[:args.fits], unit="lens")):
        for start, method in methods.items():
            before = time.process_time()
            result = reconstruct(simulation.image, method=method, seed=args.seed + index)
            found[start].append((
                time.process_time() - before, result.chi2 * result.meta["degrees_of_freedom"],
                "poor fit" in result.flags, bool(result.flags),
            ))
    for start, rows in found.items():
        seconds, chi2, poor, flagged = map(np.array, zip(*rows))
        other = np.array([row[1] for row in found["blind" if start == "posterior" else "posterior"]])
        report.say(
            f"{start:10} CPU seconds a lens: median {np.median(seconds):.2f}, mean {np.mean(seconds):.2f}, "
            f"largest {np.max(seconds):.2f}; poor fits {poor.sum()}, flagged {flagged.sum()}, "
            f"worse than the other by more than 9 in chi-square {int((chi2 > other + 9).sum())}"
        )
    if found["blind"]:
        ratio = np.sum([row[0] for row in found["blind"]]) / np.sum([row[0] for row in found["posterior"]])
        report.say(f"blind starts take {ratio:.2f} times as long")
    report.say("")
    if args.reweighted:
        reweighted(report, simulations[:args.reweighted], args)


def reweighted(report: Report, simulations, args) -> None:
    method = Posterior(weights=args.weights, samples=2000, reweight=True)
    rows = []
    for index, simulation in enumerate(tqdm(simulations, unit="lens")):
        before = time.process_time()
        result = reconstruct(simulation.image, method=method, seed=args.seed + index)
        truth = simulation.scene.lens_parameters
        pulls = [
            float((result.parameters[name][0] - truth[name][0]) / result.parameters[f"{name}_err"][0])
            for name in LENS_NAMES
        ]
        rows.append((
            time.process_time() - before, result.meta["effective_samples"], result.meta["effective_samples_network"],
            np.mean(np.abs(pulls) < 0.9945), np.mean(np.abs(pulls) < 1.96),
        ))
    seconds, effective, network, one, two = map(np.array, zip(*rows))
    report.say(f"re-weighted, {method.samples} samples, {len(simulations)} lenses of {args.population}:")
    report.say(
        f"effective samples: median {np.median(effective):.0f}, least {np.min(effective):.0f}; of the network's own "
        f"half alone: median {np.median(network):.1f}; CPU seconds a lens: median {np.median(seconds):.1f}"
    )
    report.say(f"lens parameters within one standard deviation {np.mean(one):.1%}, within 1.96 {np.mean(two):.1%}")


if __name__ == "__main__":
    main()

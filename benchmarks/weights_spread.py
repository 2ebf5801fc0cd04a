"""How far trainings of one recipe from other seeds lie from each other; with --card, noted on the card of the weights.

    lensdeblend train unet --budget cpu --set seed=1 --set length.steps=500 -o run1      and so on, then
    python benchmarks/weights_spread.py run1/unet.json run2/unet.json --card lensdeblend/networks/shipped/unet.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import Report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="CARD", help="of trainings that differ in their seed")
    parser.add_argument("--card", type=Path, help="the card that the spread is written to")
    args = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in args.runs]
    names, lengths = {run["name"] for run in runs}, {run["length"]["images"] for run in runs}
    seeds = [run["seed"] for run in runs]
    if len(names) != 1 or len(lengths) != 1 or len(set(seeds)) < 2:
        parser.error("the runs must be of one recipe and one length, and of at least two seeds")
    name, length = names.pop(), lengths.pop()
    report = Report(f"weights_spread_{name}", f"{name}: seeds {', '.join(map(str, seeds))}; {length} images each", ("lensdeblend", "torch"))
    spread = {}
    for metric in runs[0]["metrics"]:
        values = [run["metrics"][metric] for run in runs]
        spread[metric] = max(values) - min(values)
        report.say(f"{metric:24} " + " ".join(f"{value:10.5f}" for value in values) + f"   apart by {spread[metric]:.5f}")
    if args.card is not None:
        card = json.loads(args.card.read_text())
        share = length / card["length"]["images"]
        card["spread"] = {"measured": f"seeds {', '.join(map(str, seeds))}, {share:.0%} of the length", **spread}
        args.card.write_text(json.dumps(card, indent=1) + "\n")
    report.save()


if __name__ == "__main__":
    main()

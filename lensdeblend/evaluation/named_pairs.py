"""The sets of lenses on coarse and fine pixels that are known by name."""

from __future__ import annotations

from collections.abc import Sequence

from lensdeblend.evaluation.pairs import PairSet
from lensdeblend.spelling import advice

__all__ = ["pair_set", "pair_sets"]

_PIXELS = {1: "75 pixels of 0.05 arcsec", 2: "64 pixels of 0.101 arcsec", 3: "64 pixels of 0.08 arcsec"}
_MODELS = tuple(_PIXELS)
_CORRECTED = "-corrected"


def pair_sets() -> list[str]:
    """List the names that `pair_set` knows."""
    return [name + variant for variant in ("", _CORRECTED) for name in _models()]


def pair_set(name: str) -> PairSet:
    """Return the set called ``name``.

    ``deeplense-1``, ``deeplense-2`` and ``deeplense-3`` have the lenses of one DeepLense model in its classes ``none``
    (no substructure), ``cdm`` and ``axion``, with the pixels of the published super-resolution study; ``deeplense`` has
    all three models. Einstein radii and subhalo masses are as published, those of ``...-corrected`` are as
    `lensdeblend.scenes.populations.deeplense` has them right.

    Raises
    ------
    ValueError
        For an unknown name; the message gives the nearest and all known ones.

    Examples
    --------
    >>> from lensdeblend.evaluation import pair_set
    >>> pair_set("deeplense-2").populations["2", "axion"].observation.pixel_scale
    <Quantity 0.101 arcsec>
    """
    known = pair_sets()
    if name not in known:
        raise ValueError(f"unknown set of lenses {name!r}; {advice(name, known)}")
    return _deeplense(name, _models()[name.removesuffix(_CORRECTED)], published=not name.endswith(_CORRECTED))


def _models() -> dict[str, Sequence[int]]:
    return {"deeplense": _MODELS, **{f"deeplense-{model}": (model,) for model in _MODELS}}


def _deeplense(name: str, models: Sequence[int], *, published: bool) -> PairSet:
    from lensdeblend.simulators.lenstronomy import Lenstronomy
    from lensdeblend.training.deeplense_pairs import DeepLensePairs

    populations = {
        (str(model), kind): population
        for model in models for kind, population in DeepLensePairs(model, published).populations.items()
    }
    which = f"DeepLense model {models[0]}" if len(models) == 1 else "the DeepLense models"
    pixels = "; ".join(_PIXELS[model] for model in models)
    variant = "as published" if published else "corrected"
    # By a code whose deflections and profiles are not those of the methods; pixels where that matters are cut further.
    return PairSet(name, f"{which}, {variant}: {pixels}", populations, Lenstronomy(supersampling=3), published)

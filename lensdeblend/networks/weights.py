"""Weight files: safetensors beside a JSON card that says what made them, for what they hold, and their checksum.

A name is looked for in the user's own folder first (``LENSDEBLEND_WEIGHTS``, or ``lensdeblend/weights`` in the cache
directory of astropy's choosing), then among those that come with the package.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lensdeblend.networks.architectures import build
from lensdeblend.spelling import advice

__all__ = ["Card", "cards", "find_weights", "has_weights", "load_weights", "save_weights", "weight_folders"]

_SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class Card:
    """What is known of a weight file.

    Attributes
    ----------
    name, architecture : str
    options : dict
        Of the architecture.
    recipe : dict
        What made the weights, whole: population, sources, loss, length.
    priors : dict
        The population's priors as text.
    domain : dict
        What the network was trained for: ``pixels``, and ranges ``[low, high]`` of ``pixel_scale`` (arcsec),
        ``psf_fwhm`` (pixels), ``noise`` (of the brightness scale) and so on.
    metrics : dict
        Measured on images never seen in training.
    seed : int
    commit, device, licence, data : str
        ``data`` names what galaxies it learned from.
    length : dict
        ``steps``, ``images``, ``seconds``.
    spread : dict
        By metric, how far runs of the recipe from other seeds lie from each other; as ``measured``, in words, on which.
    sha256 : str
        Of the safetensors file.
    """

    name: str
    architecture: str
    options: dict[str, Any]
    recipe: dict[str, Any]
    priors: dict[str, str]
    domain: dict[str, Any]
    metrics: dict[str, Any]
    seed: int
    commit: str
    device: str
    licence: str
    data: str
    length: dict[str, Any] = field(default_factory=dict)
    spread: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""


def weight_folders() -> list[Path]:
    """Where weights are looked for, first the user's own folder."""
    own = os.environ.get("LENSDEBLEND_WEIGHTS")
    if own is None:
        from astropy.config.paths import get_cache_dir_path

        own = get_cache_dir_path("lensdeblend") / "weights"
    return [Path(own), _SHIPPED]


def cards() -> list[tuple[Path, Card]]:
    """Every card with its file, those that hide another of the same name first.

    Raises
    ------
    ValueError
        For a card that is no card.
    """
    found: dict[str, tuple[Path, Card]] = {}
    for folder in weight_folders():
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            found.setdefault(path.stem, (path.with_suffix(".safetensors"), _read_card(path)))
    return list(found.values())


def has_weights(name: str | os.PathLike) -> bool:
    """Whether `find_weights` finds a file."""
    path = Path(name)
    if path.suffix == ".safetensors":
        return path.is_file()
    return any((folder / f"{name}.safetensors").is_file() for folder in weight_folders())


def find_weights(name: str | os.PathLike) -> Path:
    """The safetensors file of a name, or a path as it is.

    Raises
    ------
    ValueError
        For an unknown name, and for a file that is not safetensors: pickled weights can run code and are never read.
    """
    path = Path(name)
    if path.suffix in (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin"):
        raise ValueError(f"{path} is a pickled file, which may run code when read; only .safetensors are loaded")
    if path.suffix == ".safetensors":
        return path
    for folder in weight_folders():
        file = folder / f"{name}.safetensors"
        if file.is_file():
            return file
    known = [card.name for _, card in cards()]
    raise ValueError(
        f"there are no weights called {name!r}; {advice(name, known)}; looked in "
        f"{', '.join(map(str, weight_folders()))}"
    )


def load_weights(name: str | os.PathLike, *, device: str = "cpu") -> tuple[nn.Module, Card]:
    """Build the network of a weight file, in evaluation mode and float32.

    Parameters
    ----------
    name : str or path
        A name of `cards`, or a path to a safetensors file whose card lies beside it.
    device : str

    Returns
    -------
    network, card

    Raises
    ------
    ValueError
        For an unknown name, a pickled or broken file, a wrong checksum, weights that do not fit the architecture.

    Examples
    --------
    >>> from lensdeblend.networks.weights import load_weights
    >>> load_weights("model.pt")
    Traceback (most recent call last):
        ...
    ValueError: model.pt is a pickled file, which may run code when read; only .safetensors are loaded
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = find_weights(name)
    card_path = path.with_suffix(".json")
    for needed in (path, card_path):
        if not needed.is_file():
            raise ValueError(f"{needed} does not exist: weights are a .safetensors file and the .json card beside it")
    card = _read_card(card_path)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise ValueError(f"the checksum of {path} is not the one on its card: a damaged file, or not the card's own")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    network = build(card.architecture, card.options)
    state = network.state_dict()
    wrong = sorted(state.keys() ^ tensors.keys()) or [k for k in state if state[k].shape != tensors[k].shape]
    if wrong:
        raise ValueError(
            f"the weights in {path} do not fit the architecture {card.architecture!r} of their card: {wrong[0]} differs"
        )
    network.load_state_dict({key: tensors[key].to(state[key].dtype) for key in state})
    return network.to(device).eval(), card


def save_weights(network: nn.Module, card: Card, folder: str | os.PathLike, *, half: bool = True) -> Path:
    """Write ``NAME.safetensors`` and ``NAME.json``.

    Parameters
    ----------
    network : torch.nn.Module
    card : Card
        Its checksum is filled in.
    folder : path
    half : bool
        Store the trained parameters in half precision; buffers, such as the running means of batch norm, stay as they
        are.

    Returns
    -------
    Path
        Of the safetensors file.
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trained = {name for name, _ in network.named_parameters()}
    content = save({
        name: value.detach().cpu().to(torch.float16 if half and name in trained else value.dtype).contiguous()
        for name, value in network.state_dict().items()
    })
    path = folder / f"{card.name}.safetensors"
    record = {**asdict(card), "sha256": hashlib.sha256(content).hexdigest()}
    for file, data in ((path, content), (path.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())):
        partial = file.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(file)
    return path


def _read_card(path: Path) -> Card:
    try:
        record = json.loads(path.read_text())
        known = {f.name for f in fields(Card)}
        if not isinstance(record, dict) or (record.keys() ^ known) - {"length", "spread", "sha256"}:
            raise ValueError("its keys are not those of a card")
        return Card(**record)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not the card of a weight file: {error}") from error

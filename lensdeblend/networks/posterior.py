r"""The posterior of lens and source given an image: a neural spline flow on a convolutional embedding.

A residual network reads the image, its noise and the width of its PSF, and gives a Gaussian about the likeliest
parameters, with all correlations, and a context. In units of that Gaussian the parameters are what a flow of coupling
layers with rational-quadratic splines (Durkan et al. 2019arXiv190604032D) makes of white noise, given the context:

.. math::

    u = g(\theta), \qquad r = A(x)\,\big(u - \mu(x)\big), \qquad
    \log q(\theta | x) = \log f\big(r | c(x)\big) + \log |A| + \log |g'(\theta)|.

So the flow need not learn how sharp an image of little noise is, only how the posterior departs from a Gaussian.
Trained on the negative logarithm of that density it is neural posterior estimation (Papamakarios & Murray
2016arXiv160506376P). The map :math:`g` takes what is positive or bounded to the whole line, so that every sample is a
lens.
"""

from __future__ import annotations

import math

import torch
import zuko
from torch import Tensor, nn
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import Flow, UnconditionalDistribution

from lensdeblend.networks.orientations import ORIENTATIONS, Orientation, turned, turned_lens, turned_place
from lensdeblend.networks.unlenser import Regressor, brightness_scale, views
from lensdeblend.networks.unlensing import Seen

__all__ = ["NAMES", "LensPosterior", "Oriented", "standardisation", "to_line", "turned_theta"]

#: What the columns of ``theta`` are; lengths in pixels, the source's position in the source plane.
NAMES = (
    "theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2", "source_x", "source_y", "source_radius",
)
_COUNT = len(NAMES)
_LOGARITHMIC = (0, 10)
_BOUNDED = {1: (1.1, 2.9), 2: (-0.7, 0.7), 3: (-0.7, 0.7), 6: (-0.6, 0.6), 7: (-0.6, 0.6)}
# How close to a bound a parameter may come, as a share of half the interval.
_CLOSEST = 1e-4
_SMALLEST_LENGTH = 1e-3
_SHARPEST, _WIDEST = 6.0, -1.5
_FARTHEST = 8.0


class LensPosterior(nn.Module):
    """Density of, and samples from, the eleven `NAMES` given images.

    Parameters
    ----------
    size : int
        Pixels a side of the images, a multiple of 8.
    width : int
        Channels of the embedding's first level.
    blocks : int
        Its residual blocks a level.
    context : int
        Numbers that the flow is told of the image.
    transforms : int
        Coupling layers of the flow.
    hidden : int
        Neurons in each of the two hidden layers of a coupling.
    bins : int
        Of its splines.
    center, spread : sequence of 11 floats
        Mean and standard deviation of `to_line` of the parameters over the population.
    """

    def __init__(
        self, size: int = 64, width: int = 32, blocks: int = 1, context: int = 32, transforms: int = 6,
        hidden: int = 64, bins: int = 8, center=(0.0,) * _COUNT, spread=(1.0,) * _COUNT,
    ):
        super().__init__()
        self.parts = (_COUNT, _COUNT, _COUNT * (_COUNT - 1) // 2, context)
        self.embedding = Regressor(size, width, sum(self.parts), blocks)
        layers = [
            GeneralCouplingTransform(
                _COUNT, context, mask, zuko.transforms.MonotonicRQSTransform, ((bins,), (bins,), (bins - 1,)),
                hidden_features=(hidden, hidden),
            )
            for mask in _masks(transforms)
        ]
        white = UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(_COUNT), torch.ones(_COUNT), buffer=True
        )
        self.flow = Flow(layers, white)
        center, spread = (torch.tensor(values, dtype=torch.float32) for values in (center, spread))
        if center.shape != (_COUNT,) or spread.shape != (_COUNT,) or not bool((spread > 0).all()):
            raise ValueError(f"center must be {_COUNT} numbers, spread {_COUNT} positive ones")
        self.register_buffer("center", center)
        self.register_buffer("spread", spread)

    def forward(self, seen: Seen) -> tuple[Tensor, Tensor, Tensor]:
        """What the images say: mean (batch, 11) and root precision (batch, 11, 11) in standard units, context."""
        out = self.embedding(views(seen, brightness_scale(seen))).float()
        mean, sharpness, mixing, context = out.split(self.parts, 1)
        sharpness = _WIDEST + (_SHARPEST - _WIDEST) * torch.sigmoid(sharpness - 1.4)
        row, column = torch.tril_indices(_COUNT, _COUNT, -1, device=out.device)
        unit = torch.eye(_COUNT, device=out.device).expand(len(out), -1, -1).clone()
        unit[:, row, column] = mixing
        return mean, sharpness.exp()[:, :, None] * unit, context

    def log_prob(self, seen: Seen, theta: Tensor) -> Tensor:
        """Logarithm of the density at ``theta`` (batch, 11) or (n, batch, 11), per unit of theta: (batch,) or (n,
        batch)."""
        return self.log_prob_given(self(seen), theta)

    def log_prob_given(self, read: tuple[Tensor, Tensor, Tensor], theta: Tensor) -> Tensor:
        """The same for images that were read by calling the network."""
        mean, root, context = read
        with torch.autocast(mean.device.type, enabled=False):
            standard, slope = self.standardise(theta)
            white = torch.einsum("bij,...bj->...bi", root, standard - mean)
            sharpness = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            return self.flow(context).log_prob(white) + sharpness + slope

    def sample(self, seen: Seen, count: int, generator: torch.Generator) -> Tensor:
        """Samples (count, batch, 11); the same state of the generator gives the same."""
        return self.sample_given(self(seen), count, generator)

    def sample_given(self, read: tuple[Tensor, Tensor, Tensor], count: int, generator: torch.Generator) -> Tensor:
        """The same for images that were read by calling the network."""
        mean, root, context = read
        noise = torch.randn(count, len(mean), _COUNT, generator=generator, device=generator.device).to(mean)
        with torch.autocast(mean.device.type, enabled=False):
            white = self.flow(context).transform.inv(noise)
            off = torch.linalg.solve_triangular(root, white[..., None], upper=False)[..., 0]
            return self.unstandardise(mean + off)

    def standardise(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters in units of the population, and the logarithm of how much that stretches volume."""
        line, slope = to_line(theta)
        return (line - self.center) / self.spread, slope.sum(-1) - self.spread.log().sum()

    def unstandardise(self, standard: Tensor) -> Tensor:
        """Parameters (..., 11) from those in units of the population; what no galaxy has is drawn back."""
        return _from_line(self.center + self.spread * standard.clamp(-_FARTHEST, _FARTHEST))


def to_line(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Parameters (..., 11) mapped to the whole line, and the logarithm of the slope of each."""
    line, slope = list(theta.unbind(-1)), [torch.zeros_like(column) for column in theta.unbind(-1)]
    for index in _LOGARITHMIC:
        line[index] = line[index].clamp_min(_SMALLEST_LENGTH).log()
        slope[index] = -line[index]
    for index, (low, high) in _BOUNDED.items():
        half = 0.5 * (high - low)
        share = ((line[index] - low) / half - 1).clamp(_CLOSEST - 1, 1 - _CLOSEST)
        line[index] = half * share.atanh()
        slope[index] = -torch.log1p(-share.square())
    return torch.stack(line, -1), torch.stack(slope, -1)


def _from_line(line: Tensor) -> Tensor:
    theta = list(line.unbind(-1))
    for index in _LOGARITHMIC:
        theta[index] = theta[index].exp()
    for index, (low, high) in _BOUNDED.items():
        half = 0.5 * (high - low)
        theta[index] = low + half * (1 + (theta[index] / half).tanh())
    return torch.stack(theta, -1)


def standardisation(theta: Tensor) -> tuple[list[float], list[float]]:
    """``center`` and ``spread`` of a population (many, 11)."""
    line, _ = to_line(theta.double())
    return line.mean(0).tolist(), line.std(0).clamp_min(1e-6).tolist()


def turned_theta(theta: Tensor, orientation: Orientation, *, back: bool = False) -> Tensor:
    """Parameters (..., 11) of a turned image, or of the image behind one that was turned."""
    lens, place, radius = theta.split((8, 2, 1), -1)
    parts = turned_lens(lens, orientation, back=back), turned_place(place, orientation, back=back), radius
    return torch.cat(parts, -1)


class Oriented:
    """One image seen in several orientations: the equal mixture of what the network says of each.

    Parameters
    ----------
    network : LensPosterior
    seen : Seen
        Of one image.
    orientations : sequence of Orientation
    """

    def __init__(self, network: LensPosterior, seen: Seen, orientations=ORIENTATIONS):
        self.network, self.orientations = network, tuple(orientations)
        views_of_it = [turned(seen, orientation) for orientation in self.orientations]
        self.read = network(Seen(*(
            torch.cat([getattr(view, name) for view in views_of_it]) for name in ("image", "sigma", "used", "psf_fwhm")
        )))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Samples (count, 11), as many from each orientation but for the remainder, in random order."""
        each = -(-count // len(self.orientations))
        drawn = self.network.sample_given(self.read, each, generator)
        back = [turned_theta(drawn[:, i], o, back=True) for i, o in enumerate(self.orientations)]
        order = torch.randperm(each * len(back), generator=generator, device=generator.device)
        return torch.cat(back)[order[:count].to(drawn.device)]

    def log_prob(self, theta: Tensor) -> Tensor:
        """Logarithm of the density at ``theta`` (n, 11)."""
        turned_each = torch.stack([turned_theta(theta, orientation) for orientation in self.orientations], 1)
        each = self.network.log_prob_given(self.read, turned_each)
        return each.logsumexp(1) - math.log(len(self.orientations))


def _masks(count: int) -> list[Tensor]:
    """Which parameters stand still in each layer: patterns that part any two of them in some layer."""
    index = torch.arange(_COUNT)
    return [(index // 2 ** ((layer // 2) % 4)) % 2 == layer % 2 for layer in range(count)]

"""What lenstronomy fits: profiles, where they start, how far they may go, and their parameters under our names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_linear_solve import ImageLinearFit
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel

from lensdeblend.lensing.parametric import LENS_NAMES
from lensdeblend.lensing.subdivision import PixelGrid
from lensdeblend.reconstructors.frame import Frame
from lensdeblend.scenes.catalog import sersic_b

__all__ = ["LENS", "LIGHT", "SOURCE", "LenstronomyModel", "Values", "band", "borders", "padded"]

LENS, SOURCE, LIGHT = "kwargs_lens", "kwargs_source", "kwargs_lens_light"
Values = dict[str, list[dict]]

_SERSIC = {"x": "center_x", "y": "center_y", "radius": "R_sersic", "n": "n_sersic", "e1": "e1", "e2": "e2"}
_SHAPELETS = {"x": "center_x", "y": "center_y", "beta": "beta"}
# A Gaussian, the first shapelet, holds half its light within this many beta.
_HALF_LIGHT_BETAS = np.sqrt(2 * np.log(2))


@dataclass(frozen=True)
class LenstronomyModel:
    """An EPL with shear before one source, behind ``lens_lights`` Sérsics.

    Values are lenstronomy's: a list of keyword arguments each for lens, source and lens light.
    """

    source: str
    n_max: int
    lens_lights: int

    @property
    def profiles(self) -> dict[str, list[str]]:
        """lenstronomy's ``kwargs_model``."""
        return {
            "lens_model_list": ["EPL", "SHEAR"],
            "source_light_model_list": ["SHAPELETS" if self.source == "shapelets" else "SERSIC_ELLIPSE"],
            "lens_light_model_list": ["SERSIC_ELLIPSE"] * self.lens_lights,
        }

    @property
    def names(self) -> list[str]:
        """Of the parameters, as `numbers` orders them."""
        return [*LENS_NAMES, *(f"{prefix}_{n}" for prefix, theirs in self._lights() for n in [*theirs, "flux"])]

    @property
    def count(self) -> int:
        """Fitted numbers, amplitudes included."""
        return len(self.names) - 1 + (self.basis_size if self.source == "shapelets" else 1)

    @property
    def basis_size(self) -> int:
        """Shapelets up to order ``n_max``."""
        return (self.n_max + 1) * (self.n_max + 2) // 2

    def _lights(self) -> list[tuple[str, dict[str, str]]]:
        source = _SHAPELETS if self.source == "shapelets" else _SERSIC
        prefixes = ["light"] if self.lens_lights == 1 else [f"light{k + 1}" for k in range(self.lens_lights)]
        return [("source", source), *((prefix, _SERSIC) for prefix in prefixes)]

    def unpack(self, vector: np.ndarray) -> Values:
        """From a parameter vector as `~lensdeblend.lensing.parametric.SersicLens` has it: logarithms of radius and n.

        A shapelet source takes position and radius from its Sérsic.
        """
        lens = dict(zip(LENS_NAMES, map(float, vector)))
        shear = {name: lens.pop(name) for name in LENS_NAMES[6:]}
        lights = []
        for x, y, log_radius, log_n, e1, e2 in np.asarray(vector[8:], dtype=float).reshape(-1, 6):
            own = (x, y, np.exp(log_radius), np.exp(log_n), e1, e2)
            lights.append(dict(zip(_SERSIC.values(), map(float, own))))
        source = lights[0]
        if self.source == "shapelets":
            beta = source["R_sersic"] / _HALF_LIGHT_BETAS
            source = {"beta": beta, "center_x": source["center_x"], "center_y": source["center_y"]}
        return {LENS: [lens, shear], SOURCE: [source], LIGHT: lights[1:]}

    def widths(self, start: Values, scale: float) -> Values:
        """Half-widths of the box that the swarm begins in."""
        lens, shear = start[LENS]
        wide = {"e1": 0.15, "e2": 0.15, "n_sersic": 0.7}

        def of_light(values: dict, centre: float) -> dict:
            own = {"center_x": centre, "center_y": centre} | wide
            own |= {name: 0.5 * values[name] for name in ("R_sersic", "beta") if name in values}
            return {name: own[name] for name in values}

        source = start[SOURCE][0]
        centre = max(source.get("R_sersic", source.get("beta")), scale)
        return {
            LENS: [
                {"theta_E": 0.15 * lens["theta_E"], "gamma": 0.2, "e1": 0.15, "e2": 0.15, "center_x": max(0.05, scale),
                 "center_y": max(0.05, scale)},
                dict.fromkeys(shear, 0.1),
            ],
            SOURCE: [of_light(source, centre)],
            LIGHT: [of_light(values, scale) for values in start[LIGHT]],
        }

    def fixed(self) -> Values:
        """What is not fitted."""
        source = {"n_max": self.n_max} if self.source == "shapelets" else {}
        return {LENS: [{}, {"ra_0": 0, "dec_0": 0}], SOURCE: [source], LIGHT: [{} for _ in range(self.lens_lights)]}

    def simulator(
        self, data: np.ndarray, sigma: np.ndarray, used: np.ndarray, kernel: np.ndarray | None, scale: float,
        centre: tuple[float, float], supersampling: int,
    ) -> ImageLinearFit:
        """lenstronomy's image of the model on the pixels of ``data``."""
        image, psf, numerics = band(data, sigma, kernel, scale, centre, supersampling)
        names = self.profiles
        return ImageLinearFit(
            ImageData(**image), PSF(**psf), LensModel(names["lens_model_list"]),
            LightModel(names["source_light_model_list"]), LightModel(names["lens_light_model_list"]),
            kwargs_numerics=numerics, likelihood_mask=used,
        )

    def with_amplitudes(self, values: Values, amplitudes: np.ndarray) -> Values:
        """The values with ``amp`` from the solution of the linear equations, source first."""
        split = self.basis_size if self.source == "shapelets" else 1
        amp = np.asarray(amplitudes[:split]) if self.source == "shapelets" else float(amplitudes[0])
        source = {**values[SOURCE][0], **self.fixed()[SOURCE][0], "amp": amp}
        lights = [{**own, "amp": float(a)} for own, a in zip(values[LIGHT], amplitudes[split:])]
        return {LENS: values[LENS], SOURCE: [source], LIGHT: lights}

    def fitted(self, values: Values) -> dict[str, float]:
        """What is not linear, in lenstronomy's own numbers under our names."""
        lens, shear = values[LENS]
        result = {name: (lens | shear)[name] for name in LENS_NAMES}
        for (prefix, theirs), own in zip(self._lights(), [*values[SOURCE], *values[LIGHT]]):
            result |= {f"{prefix}_{ours}": own[name] for ours, name in theirs.items()}
        return result

    def numbers(self, values: Values) -> np.ndarray:
        """The parameters in the order of `names`; ``radius`` holds exactly half of the light."""
        result = self.fitted(values)
        for (prefix, theirs), own in zip(self._lights(), [*values[SOURCE], *values[LIGHT]]):
            result[f"{prefix}_flux"] = _flux(own)
            if "radius" in theirs:
                result[f"{prefix}_radius"] = _half_light_radius(own)
        return np.array([result[name] for name in self.names], dtype=float)

    def extent(self, values: Values) -> float:
        """Radius in arcsec of what is to be shown of the source."""
        source = values[SOURCE][0]
        if self.source == "shapelets":
            return source["beta"] * (np.sqrt(2 * self.n_max + 1) + 1.5)
        return 4 * source["R_sersic"]

    def source_brightness(self, values: Values) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Surface brightness of the unlensed source, from flat x and y in arcsec to (1, N)."""
        light = LightModel(self.profiles["source_light_model_list"])
        return lambda x, y: light.surface_brightness(x, y, values[SOURCE])[None]


def padded(frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, float, tuple[float, float]]:
    """Data, noise, used pixels, PSF, pixel scale and centre, with a masked border as wide as the PSF reaches: light
    comes in from beyond the edge."""
    pads, centre = borders(frame.grid)
    data, sigma = (np.pad(part.double().numpy(), pads, mode="edge") for part in (frame.data, frame.sigma))
    kernel = None if frame.kernel is None else frame.kernel.double().numpy()
    return data, sigma, np.pad(frame.used.numpy(), pads), kernel, frame.grid.scale, centre


def borders(grid: PixelGrid) -> tuple[list[tuple[int, int]], tuple[float, float]]:
    """Rows and columns to add before and after, and where the centre comes to lie; lenstronomy 1.14 takes squares."""
    side, border = max(grid.shape), grid.border
    rows, columns = (side - length for length in grid.shape)
    centre = grid.centre[0] + columns / 2 * grid.scale, grid.centre[1] + rows / 2 * grid.scale
    return [(border, border + rows), (border, border + columns)], centre


def band(
    data: np.ndarray, sigma: np.ndarray, kernel: np.ndarray | None, scale: float, centre: tuple[float, float],
    supersampling: int,
) -> tuple[dict, dict, dict]:
    """One image as lenstronomy takes it: data, PSF, numerics; ``centre`` (x, y) is that of the array, in arcsec."""
    ny, nx = data.shape
    image = {
        "image_data": data, "noise_map": sigma, "background_rms": None, "exposure_time": None,
        "ra_at_xy_0": centre[0] - (nx - 1) / 2 * scale, "dec_at_xy_0": centre[1] - (ny - 1) / 2 * scale,
        "transform_pix2angle": np.eye(2) * scale,
    }
    psf = {"psf_type": "NONE"} if kernel is None else {"psf_type": "PIXEL", "kernel_point_source": _square(kernel)}
    return image, psf, {"supersampling_factor": int(supersampling), "supersampling_convolution": False}


def _square(kernel: np.ndarray) -> np.ndarray:
    side = max(kernel.shape)
    return np.pad(kernel, [((side - length) // 2,) * 2 for length in kernel.shape])


def _half_light_radius(sersic: dict) -> float:
    # lenstronomy's constant is an approximation: its radius holds nearly half of the light.
    n = sersic["n_sersic"]
    theirs = max(1.9992 * n - 0.3271, 1e-5)
    return sersic["R_sersic"] * (sersic_b(n) / theirs) ** n


def _flux(light: dict) -> float:
    if "n_max" not in light:
        return LightModel(["SERSIC_ELLIPSE"]).total_flux([light])[0]
    orders = [(total - second, second) for total in range(light["n_max"] + 1) for second in range(total + 1)]
    return light["beta"] ** 2 * float(np.dot(light["amp"], [_integral(m) * _integral(n) for m, n in orders]))


def _integral(order: int) -> float:
    """Of a one-dimensional shapelet of unit scale: 0 for odd orders (Refregier 2003MNRAS.338...35R)."""
    return 0.0 if order % 2 else np.sqrt(2 * np.sqrt(np.pi) * comb(order, order // 2) / 2**order)

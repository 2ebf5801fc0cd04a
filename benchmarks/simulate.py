"""Images a second of EPL + shear + Sérsic + PSF by torch, lenstronomy's EPL_NUMBA and caustics, and their agreement.

    python benchmarks/simulate.py
"""

from __future__ import annotations

import argparse
import time
import warnings

from common import Report  # noqa: I001 (sets the number of threads before numpy is loaded)

import astropy.units as u
import numpy as np
import torch
from scipy.special import gamma as gamma_function

from lensdeblend.lensing.epl import epl, series_terms
from lensdeblend.lensing.imaging import LensImager
from lensdeblend.scenes import GaussianPSF
from lensdeblend.scenes.catalog import sersic_b
from lensdeblend.scenes.populations import population

SHAPE, SCALE, FWHM, SUPERSAMPLING = (64, 64), 0.08, 0.1, 2
_SERSIC_NAMES = ("amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y")


def draws(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lens (count, 8) and source (count, 7) parameters of the benchmark population."""
    chosen = population("lens-benchmark")
    lens, source = [], []
    for child in np.random.default_rng(seed).spawn(count):
        scene = chosen.draw(child)
        table = scene.lens_parameters
        lens.append([float(getattr(table[n][0], "value", table[n][0])) for n in (
            "theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")])
        one = scene.sources[0]
        source.append([
            1.0, one.radius.to_value(u.arcsec), one.n, one.e1, one.e2, one.center_x.to_value(u.arcsec),
            one.center_y.to_value(u.arcsec),
        ])
    return np.array(lens), np.array(source)


def lenstronomy_imager(kernel: np.ndarray):
    """lenstronomy's ImageModel with EPL_NUMBA."""
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    ny, nx = SHAPE
    data = ImageData(
        image_data=np.zeros(SHAPE), ra_at_xy_0=-(nx - 1) / 2 * SCALE, dec_at_xy_0=-(ny - 1) / 2 * SCALE,
        transform_pix2angle=np.eye(2) * SCALE,
    )
    light = LightModel(["SERSIC_ELLIPSE"])
    model = ImageModel(
        data, PSF(psf_type="PIXEL", kernel_point_source=kernel), LensModel(["EPL_NUMBA", "SHEAR"]), light,
        kwargs_numerics={"supersampling_factor": SUPERSAMPLING, "supersampling_convolution": False},
    )

    def image(lens: np.ndarray, source: np.ndarray, amplitude: float) -> np.ndarray:
        mass = dict(zip(("theta_E", "gamma", "e1", "e2", "center_x", "center_y"), lens))
        shine = dict(zip(_SERSIC_NAMES, source)) | {"amp": amplitude}
        return model.image([mass, {"gamma1": lens[6], "gamma2": lens[7]}], [shine], unconvolved=False)

    def amplitude(source: np.ndarray) -> float:
        values = dict(zip(_SERSIC_NAMES, source))
        return source[0] / light.total_flux([values | {"amp": 1.0}])[0]

    return image, amplitude


def caustics_imager(kernel: np.ndarray, dtype, terms: int):
    """caustics' LensSource with EPL and external shear.

    It convolves the upsampled image before averaging it, so that the PSF is given to it with zeros between its pixels:
    the two orders are then equal.
    """
    import caustics

    cosmology = caustics.FlatLambdaCDM(name="cosmo")
    mass = caustics.EPL(cosmology=cosmology, name="epl", z_l=0.5, z_s=1.0, n_iter=terms)
    tide = caustics.ExternalShear(cosmology=cosmology, name="shear", z_l=0.5, z_s=1.0, x0=0.0, y0=0.0)
    lens = caustics.SinglePlane(cosmology=cosmology, lenses=[mass, tide], name="lens", z_l=0.5, z_s=1.0)
    source = caustics.Sersic(name="source")
    spread = np.zeros(tuple((n - 1) * SUPERSAMPLING + 1 for n in kernel.shape))
    spread[::SUPERSAMPLING, ::SUPERSAMPLING] = kernel
    simulator = caustics.LensSource(
        lens=lens, source=source, pixelscale=SCALE, pixels_x=SHAPE[1], pixels_y=SHAPE[0],
        psf=torch.as_tensor(spread, dtype=dtype), name="sim", upsample_factor=SUPERSAMPLING,
    )
    return simulator, mass, tide, source


def clock(function, least: float = 1.5) -> float:
    """Seconds a call: the best of three stretches of at least ``least`` seconds in all."""
    function()
    best = np.inf
    for _ in range(3):
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < least / 3:
            function()
            calls += 1
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="simulate")
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    report = Report(
        args.name,
        f"{SHAPE[0]}x{SHAPE[1]} pixels of {SCALE} arcsec, supersampling {SUPERSAMPLING}, PSF FWHM {FWHM} arcsec, "
        f"population lens-benchmark, seed {args.seed}; one CPU thread",
        ("lensdeblend", "torch", "lenstronomy", "caustics", "numba"),
    )
    kernel = GaussianPSF(FWHM * u.arcsec).kernel(SCALE * u.arcsec)
    lens, source = draws(args.batch, args.seed)

    their_image, amplitude = lenstronomy_imager(kernel)
    amplitudes = [amplitude(s) for s in source]
    counter = iter(range(10**9))

    def one_of_theirs():
        i = next(counter) % len(lens)
        return their_image(lens[i], source[i], amplitudes[i])

    rates = {"lenstronomy EPL_NUMBA": 1 / clock(one_of_theirs)}

    report.say(f"{'':34} {'images/s':>9} {'max |image - lenstronomy|/peak':>32}")
    report.say(f"{'lenstronomy EPL_NUMBA':34} {rates['lenstronomy EPL_NUMBA']:9.0f} {'-':>32}")
    theirs = np.array([their_image(a, b, c) for a, b, c in zip(lens, source, amplitudes)])

    for label, images, rate in _caustics(lens, source, kernel):
        rates[label] = rate
        report.say(f"{label:34} {rate:9.0f} {max(map(agreement, images, theirs)):32.1e}")

    ours = _ours_with_their_radius(source)
    for dtype in (torch.float32, torch.float64):
        imager = LensImager(
            SHAPE, SCALE, torch.as_tensor(kernel), supersampling=SUPERSAMPLING, dtype=dtype, device=args.device,
            max_ellipticity=_most_elliptic(lens), border=0,
        )
        tensors = [torch.as_tensor(v, dtype=dtype, device=args.device) for v in (lens, ours)]
        images = imager(*tensors).cpu().double().numpy()
        worst = max(map(agreement, images, theirs))
        for batch in (1, args.batch):
            position = iter(range(10**9))

            def call(batch=batch):
                i = 0 if batch > 1 else next(position) % len(lens)
                image = imager(tensors[0][i:i + batch], tensors[1][i:i + batch])
                if args.device != "cpu":
                    torch.cuda.synchronize()
                return image

            label = f"torch {str(dtype)[6:]}, batch {batch}"
            rates[label] = batch / clock(call)
            report.say(f"{label:34} {rates[label]:9.0f} {worst:32.1e}")
    peer = max(rate for label, rate in rates.items() if not label.startswith("torch"))
    report.say("")
    best = max(rates[f"torch float32, batch {b}"] for b in (1, args.batch))
    report.say(f"torch float32 over the faster peer: {best / peer:.2f}")
    report.say(
        f"time an image at batch {args.batch} over batch 1: "
        f"{rates['torch float32, batch 1'] / rates[f'torch float32, batch {args.batch}']:.2f}"
    )
    report.say("")
    _deflections(report, args.seed)
    report.save()


def _most_elliptic(lens: np.ndarray) -> float:
    """Largest ellipticity: all codes sum as many terms of the series as it needs."""
    return float(np.hypot(*lens[:, 2:4].T).max())


def _ours_with_their_radius(source: np.ndarray) -> np.ndarray:
    """lenstronomy's Sérsic constant is an approximation; the same profile has a slightly other half-light radius."""
    ours = source.copy()
    for row in ours:
        row[1] *= (sersic_b(row[2]) / (1.9992 * row[2] - 0.3271)) ** row[2]
    return ours


def _caustics(lens: np.ndarray, source: np.ndarray, kernel: np.ndarray):
    dtype = torch.float32
    simulator, mass, tide, light = caustics_imager(kernel, dtype, series_terms(_most_elliptic(lens), dtype))
    simulator.to(dtype=dtype)
    rows = []
    for mass_row, light_row in zip(lens, _ours_with_their_radius(source)):
        theta_E, gamma, e1, e2, cx, cy, g1, g2 = mass_row
        flux, radius, n, f1, f2, sx, sy = light_row
        e, f = np.hypot(e1, e2), np.hypot(f1, f2)
        q, qs = (1 - e) / (1 + e), (1 - f) / (1 + f)
        b = sersic_b(n)
        at_radius = flux * b ** (2 * n) * np.exp(-b) / (2 * np.pi * n * radius**2 * gamma_function(2 * n)) * SCALE**2
        rows.append({
            "epl": dict(x0=cx, y0=cy, q=q, phi=np.arctan2(e2, e1) / 2, Rein=theta_E, t=gamma - 1),
            "shear": dict(gamma_1=g1, gamma_2=g2),
            "source": dict(x0=sx, y0=sy, q=qs, phi=np.arctan2(f2, f1) / 2, n=n, Re=radius / np.sqrt(qs), Ie=at_radius),
        })
    blocks = {"epl": mass, "shear": tide, "source": light}

    def vector(row) -> torch.Tensor:
        values = []
        for param in simulator.dynamic_params:
            for name, block in blocks.items():
                if param in block.dynamic_params:
                    values.append(row[name][param.name])
                    break
            else:
                raise LookupError(param.name)
        return torch.tensor(values, dtype=dtype)

    vectors = torch.stack([vector(row) for row in rows])
    with torch.no_grad():
        images = np.array([simulator(v).numpy() for v in vectors], dtype=float)
        counter = iter(range(10**9))
        yield "caustics float32, batch 1", images, 1 / clock(lambda: simulator(vectors[next(counter) % len(vectors)]))
        together = torch.func.vmap(simulator)
        images = together(vectors).numpy().astype(float)
        yield f"caustics float32, batch {len(vectors)}", images, len(vectors) / clock(lambda: together(vectors))


def _deflections(report: Report, seed: int) -> None:
    from lenstronomy.LensModel.Profiles.epl import EPL

    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-2.5, 2.5, (2, 4000))
    worst = 0.0
    for _ in range(200):
        modulus, angle = rng.uniform(0, 0.5), rng.uniform(0, 2 * np.pi)
        values = (
            rng.uniform(0.4, 2), rng.uniform(1.5, 2.8), modulus * np.cos(angle), modulus * np.sin(angle),
            *rng.normal(0, 0.1, 2),
        )
        expected = EPL().derivatives(x, y, *values)
        found = epl(torch.as_tensor(x), torch.as_tensor(y), *(torch.tensor(v, dtype=torch.float64) for v in values))
        worst = max(worst, *(np.max(np.abs(f.numpy() - e)) for f, e in zip(found, expected)))
    report.say(
        "deflection of 200 EPLs (e to 0.5, gamma 1.5 to 2.8), float64, against lenstronomy's EPL: "
        f"{worst:.1e} arcsec at most"
    )


if __name__ == "__main__":
    main()

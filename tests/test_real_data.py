"""The forward reconstructor on a Euclid image, and on images that another code simulated.

Truths of the latter as in lenstronomy's convention, from the parameters that PyAutoLens was given.
"""

from functools import cache

import astropy.units as u
import numpy as np
import pytest
from astropy.stats import mad_std
from scipy.ndimage import gaussian_filter

from lensdeblend import reconstruct
from lensdeblend.io import read_image
from lensdeblend.reconstructors.forward import Forward

# theta_E, modulus of the ellipticity, its angle, modulus of the shear.
SIMULATED = {
    "mass_sie__source_sersic": (1.5978, (1 - 0.9) / (1 + 0.9), 45.0, 0.0707, 0.1),
    "light_sersic__mass_sie__source_sersic": (1.5978, (1 - 0.9) / (1 + 0.9), 45.0, 0.0707, 0.1),
    "euclid": (1.5901, (1 - 0.8) / (1 + 0.8), 45.0, 0.0, 1.0),
}


def read(folder, data="image.fits"):
    if not (folder / data).is_file():
        pytest.skip(f"needs {folder.name}/{data}")
    return read_image(
        folder / data, std=folder / "noise_map.fits", psf=folder / "psf.fits", pixel_scale=0.1 * u.arcsec
    )


@pytest.mark.parametrize("name", SIMULATED)
def test_lenses_of_another_code(shared_data, name):
    theta_E, modulus, angle, shear, radius = SIMULATED[name]
    result = reconstruct(read(shared_data / "simulated_lenses" / name), method=Forward(samples=0), seed=1)
    found = {column: u.Quantity(result.parameters[column][0]).value for column in result.parameters.colnames}
    assert result.flags == ()
    assert abs(result.chi2 - 1) < 3 * np.sqrt(2 / result.meta["degrees_of_freedom"])
    assert found["theta_E"] == pytest.approx(theta_E, rel=0.005)
    assert abs(found["gamma"] - 2) < 5 * found["gamma_err"]
    e = modulus * np.exp(2j * np.deg2rad(angle))
    assert abs(found["e1"] - e.real) < 5 * found["e1_err"] and abs(found["e2"] - e.imag) < 5 * found["e2_err"]
    shear_error = np.hypot(found["gamma1_err"], found["gamma2_err"])
    assert abs(np.hypot(found["gamma1"], found["gamma2"]) - shear) < 5 * shear_error
    assert found["source_radius"] == pytest.approx(radius, abs=5 * found["source_radius_err"])
    assert (result.lens_light is not None) == name.startswith("light")
    assert result.image.wcs is None and result.meta["sources"] == 1


@cache
def euclid(folder):
    image = read(folder / "euclid_lens", "data.fits")
    return image, reconstruct(image, seed=1)


def test_the_euclid_lens(shared_data):
    image, result = euclid(shared_data)
    parameters = result.parameters
    assert 1.2 < parameters["theta_E"][0].to_value(u.arcsec) < 2.0
    assert 0 < parameters["theta_E_err"][0] < 0.1 * parameters["theta_E"][0]
    assert 1.5 < parameters["gamma"][0] < 2.6
    assert np.hypot(parameters["center_x"][0], parameters["center_y"][0]).to_value(u.arcsec) < 0.5
    assert result.meta["lens_lights"] >= 1 and result.meta["sources"] >= 1
    assert result.model.data.shape == image.data.shape == (300, 300)
    for picture in (result.model, result.source, result.unlensed, result.lens_light, result.residual):
        assert np.isfinite(picture.data).all()


def test_neighbours_of_the_euclid_lens_are_masked(shared_data):
    image, result = euclid(shared_data)
    mask = result.residual.mask
    y, x = np.indices(mask.shape)
    distance = np.hypot(x - 149.5, y - 149.5) * 0.1
    radius = result.meta["radius"]
    assert 2 < radius < 6
    assert mask[distance > 1.5 * radius].all()
    assert not mask[distance < 1.5].any()
    kept = gaussian_filter(np.where(mask, 0, result.residual.data), 1.0) * 2 * np.sqrt(np.pi)
    beyond = ~mask & (distance > radius)
    assert beyond.sum() > 300
    # No galaxy is left beside the lens: none of the smoothed pixels stands out by more than a few sigma.
    assert np.percentile(kept[beyond], 99) < 5
    np.testing.assert_array_equal(result.image.mask, mask)


def test_the_residual_of_the_euclid_lens_is_clean(shared_data):
    image, result = euclid(shared_data)
    good = ~result.residual.mask
    residual = result.residual.data[good]
    # The noise map overstates the noise of the sky by some 40%; the residual is to be as quiet as the sky is.
    y, x = np.indices(image.data.shape)
    sky = (result.image.data / np.sqrt(result.image.uncertainty.array))[np.hypot(x - 149.5, y - 149.5) > 80]
    assert 0.6 < mad_std(sky) < 0.8
    assert mad_std(residual) == pytest.approx(mad_std(sky), rel=0.15)
    assert result.chi2 < 1
    sigma = np.sqrt(result.image.uncertainty.array)
    arcs = good & (result.model.data - result.lens_light.data > 3 * sigma)
    assert arcs.sum() > 60
    with_arcs = np.mean(result.residual.data[arcs] ** 2)
    light_alone = np.mean(((result.image.data - result.lens_light.data) / sigma)[arcs] ** 2)
    assert with_arcs < 0.1 * light_alone

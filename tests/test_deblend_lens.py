"""The lens galaxy apart from the arcs, and a reconstruction that begins with it."""

import astropy.units as u
import numpy as np
import pytest
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend import deblend, prepare, reconstruct, simulate
from lensdeblend.deblenders.lens import Lens
from lensdeblend.reconstructors.forward import Forward
from lensdeblend.results import Deblending, Reconstruction
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
from lensdeblend.testing.common import (
    Untouched, require_fit, require_round_trip, require_same_grid, require_same_unit,
)

LIGHT = 150.0


def seen(flux=LIGHT, pixel=0.1, size=50, rms=0.05, seed=1):
    scene = Scene(
        mass=[EPL(1.2 * u.arcsec, e1=0.1, e2=-0.05)],
        lens_light=[Sersic(flux, 0.5 * u.arcsec, 3.0, e1=0.1)] if flux else [],
        sources=[Sersic(30, 0.15 * u.arcsec, 1.0, center_x=0.1 * u.arcsec, center_y=0.05 * u.arcsec)],
    )
    observation = Observation(pixel * u.arcsec, (size, size), GaussianPSF(0.15 * u.arcsec), background_rms=rms)
    return simulate(scene, observation, seed=seed)


@pytest.fixture(scope="module")
def truth():
    return seen()


@pytest.fixture(scope="module")
def found(truth):
    return deblend(truth.image, method="lens", seed=1)


def test_both_lights_come_out(truth, found):
    galaxy, arcs = found.catalog
    assert abs(galaxy["flux"].value - LIGHT) < 3 * galaxy["flux_err"].value < 30
    true_arcs = truth.sources[0].data
    assert abs(arcs["flux"].value - true_arcs.sum()) < 4 * arcs["flux_err"].value < 10
    assert (galaxy["x"], galaxy["y"]) == pytest.approx((24.5, 24.5), abs=0.1)
    assert galaxy["e1"] == pytest.approx(0.1, abs=0.03) and galaxy["radius"].value == pytest.approx(0.5, rel=0.2)
    # Where the arcs are bright and where the galaxy is, each pixel within a noise of the truth.
    np.testing.assert_allclose(found.sources[1].data, true_arcs, atol=0.15)
    assert found.chi2 == pytest.approx(1, abs=0.1) and found.meta["flags"] == ()


def test_nothing_is_lost(truth, found):
    np.testing.assert_allclose(sum(share.data for share in found.shares), truth.image.data, atol=1e-12)
    np.testing.assert_allclose(sum(source.data for source in found.sources), found.model.data, atol=1e-12)
    np.testing.assert_array_equal(found.shares[0].data, found.sources[0].data)
    # The ring, and the galaxy in it.
    assert found.segmentation.data[25, 24] == 1 and found.segmentation.data[24, 12] == 2


def test_keeps_the_contract_but_for_positions(truth, found):
    """`check_deblender` gives positions, which this method refuses."""
    image = prepare(truth.image)
    with Untouched(image):
        again = Lens().deblend(image, None, None, np.random.default_rng(1))
        same = Lens().deblend(image, None, None, np.random.default_rng(1))
    require_fit(again, image)
    np.testing.assert_array_equal(same.model.data, again.model.data)
    for item in (*again.sources, *again.shares):
        require_same_grid(item, image, "lens")
        require_same_unit(item, image, "lens")
    require_round_trip(found)


def test_a_reconstruction_begins_with_it(truth, found, tmp_path):
    result = reconstruct(truth.image, method=Forward(light=found, samples=0), seed=1)
    assert result.parameters["theta_E"][0].value == pytest.approx(1.2, abs=0.003)
    assert result.parameters["light_flux"][0].value == pytest.approx(found.catalog["flux"][0].value, rel=0.02)
    np.testing.assert_allclose(result.lens_light.data, found.sources[0].data, atol=0.02)
    assert result.flags == () and result.meta["options"]["light"] == "Deblending"
    result.write(tmp_path / "result.fits")
    assert Reconstruction.read(tmp_path / "result.fits").meta["options"]["light"] == "Deblending"


def test_a_deblending_from_a_file_will_do(truth, found, tmp_path):
    found.write(tmp_path / "lens.fits")
    result = reconstruct(
        truth.image, method=Forward(light=Deblending.read(tmp_path / "lens.fits"), samples=0), seed=1
    )
    assert result.parameters["theta_E"][0].value == pytest.approx(1.2, abs=0.003)


def test_bands():
    bands = {"g": seen().image, "r": seen(pixel=0.2, size=26, rms=0.2, seed=2).image}
    result = deblend(bands, method="lens", seed=1)
    for band in "gr":
        galaxy = result.catalog[0]
        assert abs(galaxy[f"flux_{band}"].value - LIGHT) < 3 * galaxy[f"flux_err_{band}"].value
        np.testing.assert_allclose(sum(share[band].data for share in result.shares), bands[band].data, atol=1e-12)
    with pytest.raises(ValueError, match="light is for one image: leave it out for bands"):
        reconstruct(bands, method=Forward(light=result), seed=1)


def test_no_lens_galaxy():
    image = seen(flux=0).image
    result = deblend(image, method="lens", seed=1)
    galaxy, arcs = result.catalog
    assert galaxy["flux"] == 0 and galaxy["flags"] == "no flux" and arcs["flags"] == ""
    # A reconstruction that begins with no light invents none.
    fit = reconstruct(image, method=Forward(light=result, samples=0), seed=1)
    assert fit.lens_light is None and "light_flux" not in fit.parameters.colnames
    assert arcs["flux"].value > 400 and np.isfinite(result.catalog["radius"].value).all()


def test_what_it_refuses(truth, found):
    for given in ({"positions": [(24, 24)]}, {"segmentation": np.ones((50, 50), int)}):
        with pytest.raises(ValueError, match="leave positions and segmentation out"):
            deblend(truth.image, method="lens", **given)
    with pytest.raises(ValueError, match="unknown reconstructor 'forwad'"):
        deblend(truth.image, method=Lens(reconstructor="forwad"))
    with pytest.raises(ValueError, match="threshold must be a positive number"):
        Lens(threshold=-1)
    with pytest.raises(ValueError, match=r"light is of an image of \(50, 50\) pixels, this one has \(40, 40\)"):
        reconstruct(seen(size=40).image, method=Forward(light=found))
    with pytest.raises(ValueError, match="light must be a Deblending with a source, or None; got ndarray"):
        Forward(light=np.zeros((50, 50)))
    with pytest.raises(ValueError, match="leave lens_light=1 out"):
        Forward(light=found, lens_light=1)


def test_a_batch_goes_on():
    image = seen().image
    with pytest.warns(AstropyUserWarning, match="image 0 of the list"):
        bad, good = deblend([image, image], positions=[[(3, 3)], None], method="lens", seed=1)
    assert len(bad.catalog) == 0 and len(good.catalog) == 2

"""What every built-in deblender does, whatever its way."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyUserWarning

from lensdeblend import deblend, methods, simulate
from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.catalog import flags_of, half_light_radius, moments, shape
from lensdeblend.deblenders.photutils import Photutils
from lensdeblend.images import like, prepare
from lensdeblend.scenes import GaussianPSF, Observation, Scene, Sersic

NAMES = [
    row["name"] for row in methods("deblender")
    # That one takes images of lenses only.
    if row["distribution"] == "lensdeblend" and row["available"] and row["name"] != "lens"
]
POSITIONS = np.array([[16.0, 24.0], [30.0, 25.0], [24.0, 38.0]])
FLUXES = np.array([300.0, 200.0, 100.0])


@pytest.fixture(scope="module")
def truth():
    galaxies = [
        Sersic(flux, 0.4 * u.arcsec, 1.0, center_x=(x - 23.5) * 0.2 * u.arcsec, center_y=(y - 23.5) * 0.2 * u.arcsec)
        for (x, y), flux in zip(POSITIONS, FLUXES)
    ]
    observation = Observation(0.2 * u.arcsec, (48, 48), GaussianPSF(0.7 * u.arcsec), background_rms=0.2)
    return simulate(Scene(sources=galaxies), observation, method="galsim", seed=1)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def found(truth, name):
    return deblend(truth.image, method=name, seed=1)


def test_finds_well_separated_galaxies(found):
    apart = np.hypot(*(np.stack([found.catalog["x"], found.catalog["y"]], 1)[:, None] - POSITIONS).transpose(2, 0, 1))
    assert len(found.catalog) == 3 and (apart.min(0) < 0.5).all()
    fluxes = found.catalog["flux"].value[apart.argmin(0)]
    np.testing.assert_allclose(fluxes, FLUXES, rtol=0.1)


def test_nothing_is_lost(truth, found):
    np.testing.assert_allclose(sum(share.data for share in found.shares), truth.image.data, rtol=1e-9)
    background = found.meta["background"]
    np.testing.assert_allclose(sum(s.data for s in found.sources) + background, found.model.data, atol=1e-9)


def test_segments_are_numbered_as_the_catalogue(found):
    for row in found.catalog:
        assert found.segmentation.data[round(row["y"]), round(row["x"])] == row["id"]


def test_rows_are_in_the_order_of_the_positions(truth, name):
    result = deblend(truth.image, positions=POSITIONS[::-1], method=name, seed=1)
    np.testing.assert_allclose(result.catalog["x"], POSITIONS[::-1, 0], atol=0.5)


def test_positions_on_the_sky_need_a_wcs(truth, name):
    from astropy.coordinates import SkyCoord

    with pytest.raises(ValueError, match="celestial WCS"):
        deblend(truth.image, positions=SkyCoord([150, 150], [2, 2], unit="deg"), method=name)


def test_bands(truth, name):
    image = prepare(truth.image)
    brighter = NDData(
        3 * image.data, uncertainty=StdDevUncertainty(3 * np.sqrt(image.uncertainty.array)), unit=image.unit,
        psf=image.psf, meta=image.meta,
    )
    table = deblend({"g": image, "r": brighter}, positions=POSITIONS, method=name, seed=1).catalog
    np.testing.assert_allclose(table["flux_r"].value, 3 * table["flux_g"].value, rtol=0.01)


def test_an_empty_sky(name):
    image = NDData(np.zeros((32, 32)), uncertainty=StdDevUncertainty(np.ones((32, 32))), meta={"PIXSCALE": 0.2})
    with pytest.warns(AstropyUserWarning, match="no galaxy was found"):
        result = deblend(image, method=name, seed=1)
    assert len(result.catalog) == 0 and "nothing found" in result.meta["flags"]


def test_a_list_is_the_images_one_by_one(truth, found, name):
    """A descent in single precision stops elsewhere in company, by far less than its errors."""
    flux, error = (found.catalog[key].value for key in ("flux", "flux_err"))
    allowed = 1e-6 * np.abs(flux) + 0.01 * np.nan_to_num(error)
    for result in deblend([truth.image, truth.image], method=name, seed=1):
        assert np.all(np.abs(result.catalog["flux"].value - flux) <= allowed)


def test_a_picture(found, tmp_path):
    found.plot().savefig(tmp_path / "picture.png")


@pytest.mark.parametrize("options, complaint", [
    ({"threshold": -1}, "threshold"), ({"contrast": 2.0}, "contrast"), ({"n_pixels": 0}, "n_pixels"),
    ({"n_levels": 0.5}, "n_levels"), ({"background": None}, "background"),
])
def test_bad_options_of_photutils(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Photutils(**options)


def test_half_of_the_light_of_a_bulge_and_a_disc():
    assert half_light_radius([(1.0, 2.0, 4.0)]) == pytest.approx(2.0)
    assert half_light_radius([(0.0, 9.0, 4.0), (3.0, 2.5, 1.0)]) == pytest.approx(2.5)
    assert 1.0 < half_light_radius([(1.0, 1.0, 1.0), (1.0, 3.0, 1.0)]) < 3.0
    assert half_light_radius([(0.0, 1.0, 1.0)]) == 0


@pytest.mark.parametrize("position, fluxes, flags", [
    ((20.0, 15.0), (0.0, 3.0), []), ((20.0, 15.0), (0.0, -1.0), ["no flux"]), ((1.4, 15.0), (1.0,), ["at the edge"]),
    ((37.6, 15.0), (1.0,), ["at the edge"]), ((39.5, 15.0), (1.0,), ["off the image"]),
    ((20.0, 30.0), (0.0,), ["no flux", "off the image"]),
])
def test_flags_of_a_galaxy(position, fluxes, flags):
    noise = StdDevUncertainty(np.ones((30, 40)))
    blend = Blend.of(prepare(NDData(np.ones((30, 40)), uncertainty=noise, meta={"PIXSCALE": 0.2})))
    assert flags_of(np.array(position), np.array(fluxes), blend) == flags


def masked(image, mask):
    image = prepare(image)
    return like(image, np.where(mask, 1e6, image.data), uncertainty=image.uncertainty, mask=mask)


class TestMasked:
    """A galaxy that no pixel shows has the flag in every method, its neighbours do not."""

    @pytest.fixture
    def hidden(self, truth):
        row, column = np.indices(truth.image.data.shape)
        return np.hypot(column - POSITIONS[2, 0], row - POSITIONS[2, 1]) < 5

    @pytest.fixture
    def image(self, truth, hidden):
        return masked(truth.image, hidden)

    def test_at_a_given_position(self, image, name):
        flags = deblend(image, positions=POSITIONS, method=name, seed=1).catalog["flags"]
        assert ["masked" in flag for flag in flags] == [False, False, True]

    def test_in_a_given_segment(self, image, hidden, name):
        labels = np.where(hidden, 3, 0)
        for label, (x, y) in enumerate(POSITIONS[:2].astype(int), start=1):
            labels[y - 3:y + 4, x - 3:x + 4] = label
        rows = deblend(image, segmentation=labels, method=name, seed=1).catalog
        nearest = np.hypot(rows["x"] - POSITIONS[2, 0], rows["y"] - POSITIONS[2, 1]).argmin()
        assert ["masked" in flag for flag in rows["flags"]] == [row == nearest for row in range(3)]

    def test_not_where_another_band_shows_it(self, truth, image, name):
        rows = deblend({"g": image, "r": truth.image}, positions=POSITIONS, method=name, seed=1).catalog
        assert not any("masked" in flag for flag in rows["flags"])

    @pytest.mark.parametrize("radius, flagged", [(3.0, False), (4.0, True)])
    def test_within_the_width_of_the_psf(self, truth, radius, flagged):
        """FWHM of 3.5 pixels."""
        row, column = np.indices(truth.image.data.shape)
        mask = np.hypot(column - 24, row - 38) <= radius
        blend = Blend.of(masked(truth.image, mask))
        assert ("masked" in flags_of(POSITIONS[2], np.ones(1), blend)) == flagged


def test_the_shape_of_a_blurred_gaussian():
    row, column = np.indices((61, 61)) - 30.0
    image = np.exp(-0.5 * (column**2 / (5.0**2 + 2.0**2) + row**2 / (3.0**2 + 2.0**2)))
    e1, e2, radius = shape(image, 2.0)
    assert e1 == pytest.approx(0.25, abs=0.01) and e2 == pytest.approx(0, abs=1e-6)
    assert radius == pytest.approx(np.sqrt(2 * np.log(2) * 15), abs=0.5)


def test_moments_of_a_gaussian():
    row, column = np.indices((41, 41))
    image = np.exp(-0.5 * ((column - 20.3) ** 2 / 9 + (row - 19.6) ** 2 / 4))
    np.testing.assert_allclose(moments(image), [20.3, 19.6, 9, 4, 0], atol=0.05)

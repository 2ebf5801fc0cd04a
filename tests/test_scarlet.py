"""scarlet2 and scarlet_lite as methods; what needs them is skipped where they are not installed."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty

from lensdeblend import deblend, methods, simulate
from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.scarlet import Scarlet
from lensdeblend.deblenders.scarlet_common import Cube, Found, told
from lensdeblend.deblenders.scarlet_lite import ScarletLite
from lensdeblend.deblenders.detection import Detector
from lensdeblend.images import like, prepare
from lensdeblend.plugins import MissingDependencyError, lookup, resolve
from lensdeblend.scenes import GaussianPSF, Observation, Scene, Sersic

INSTALLED = {row["name"]: row["available"] for row in methods("deblender")}
NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(not INSTALLED[name], reason=f"what {name} needs is not installed"))
    for name in ("scarlet", "scarlet-lite")
]
POSITIONS = np.array([[15.0, 20.0], [24.0, 21.0]])
FLUXES = np.array([[300.0, 100.0], [150.0, 200.0]])


@pytest.fixture(scope="module")
def image():
    """Two galaxies in two bands, each with its own PSF, whose sizes in pixels differ."""
    bands = {}
    for number, (name, fwhm) in enumerate([("g", 0.9), ("r", 0.6)]):
        galaxies = [
            Sersic(flux, 0.5 * u.arcsec, 1.0, e1=e1, center_x=(x - 19.5) * 0.2 * u.arcsec,
                   center_y=(y - 19.5) * 0.2 * u.arcsec)
            for (x, y), flux, e1 in zip(POSITIONS, FLUXES[:, number], (0.3, -0.3))
        ]
        seen = Observation(0.2 * u.arcsec, (40, 40), GaussianPSF(fwhm * u.arcsec), background_rms=0.05)
        bands[name] = simulate(Scene(sources=galaxies), seen, method="galsim", seed=number).image
    assert bands["g"].psf.shape != bands["r"].psf.shape
    return bands


@pytest.fixture(scope="module", params=NAMES)
def found(request, image):
    return deblend(image, positions=POSITIONS, method=request.param, seed=1)


def test_fluxes_shapes_and_places(found):
    table = found.catalog
    for band, true in zip("gr", FLUXES.T):
        # Free images share the light between two galaxies as they like; of the whole, nothing is lost.
        np.testing.assert_allclose(table[f"flux_{band}"].value, true, rtol=0.15)
        assert table[f"flux_{band}"].value.sum() == pytest.approx(true.sum(), rel=0.03)
        assert np.isnan(table[f"flux_err_{band}"].value).all()
    np.testing.assert_allclose(table["e1"], [0.3, -0.3], atol=0.1)
    np.testing.assert_allclose(np.stack([table["x"], table["y"]], 1), POSITIONS, atol=0.5)
    np.testing.assert_allclose(table["radius"].to_value(u.arcsec), 0.5, rtol=0.25)


def test_the_residual_is_noise(found):
    assert found.chi2 == pytest.approx(1, abs=0.12)
    for residual in found.residual.values():
        assert 0.85 < residual.data.std() < 1.15
        assert "poor fit" not in found.meta["flags"]


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_pixel_and_a_position_off_the_image(image, name):
    spoilt = prepare(image["r"])
    data, mask = spoilt.data.copy(), np.zeros(spoilt.data.shape, bool)
    data[24, 15], mask[24, 15] = 1e4, True
    result = deblend(
        like(spoilt, data, uncertainty=spoilt.uncertainty, mask=mask), positions=[*POSITIONS, (-30.0, 5.0)],
        method=name, seed=1,
    )
    np.testing.assert_allclose(result.catalog["flux"].value[:2], FLUXES[:, 1], rtol=0.15)
    assert list(result.catalog["flags"]) == ["", "", "no flux; off the image"]
    assert not result.sources[2].data.any()


@pytest.mark.skipif(not INSTALLED["scarlet"], reason="what scarlet needs is not installed")
def test_free_pixels_and_a_switch_put_back(image):
    from scarlet2 import parameter_registry, validation_utils

    before, kept = validation_utils.VALIDATION_SWITCH, len(parameter_registry)
    result = deblend(image, positions=POSITIONS, method=Scarlet(morphology="free", iterations=60), seed=1)
    np.testing.assert_allclose(result.catalog["flux_r"].value, FLUXES[:, 1], rtol=0.2)
    assert validation_utils.VALIDATION_SWITCH is before and len(parameter_registry) == kept


@pytest.mark.parametrize("name, command", [
    ("scarlet", r'needs scarlet2, .*: pip install "lensdeblend\[scarlet\]"'),
    ("scarlet-lite", 'lsst.scarlet.lite, .*: pip install "lsst.scarlet.lite @ git.https://github.com/lsst/scarlet'),
])
@pytest.mark.parametrize("instance", [False, True])
def test_without_the_peer_the_error_has_the_pip_command(monkeypatch, name, command, instance):
    method = {"scarlet": Scarlet, "scarlet-lite": ScarletLite}[name]() if instance else name
    present = lookup.find_spec
    monkeypatch.setattr(
        lookup, "find_spec", lambda module: None if module.startswith(("scarlet2", "lsst")) else present(module)
    )
    with pytest.raises(MissingDependencyError, match=command):
        resolve("deblender", method)


def test_a_package_of_the_same_family_is_not_enough(monkeypatch, tmp_path):
    """Other packages live in ``lsst``, too."""
    (tmp_path / "family_unheard").mkdir()
    (tmp_path / "family_unheard" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert lookup._installed("family_unheard") and not lookup._installed("family_unheard.deep.deeper")


@pytest.mark.parametrize("method", [Scarlet, ScarletLite])
@pytest.mark.parametrize("options", [
    {"iterations": 0}, {"tolerance": 0.0}, {"sigma": None}, {"threshold": -1}, {"background": "some"},
])
def test_bad_options(method, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        method(**options)


def test_options_of_one_alone():
    with pytest.raises(ValueError, match="morphology"):
        Scarlet(morphology="wavelets")
    with pytest.raises(ValueError, match="components"):
        ScarletLite(components=3)
    with pytest.raises(TypeError, match="positional"):
        ScarletLite(100)


def test_bands_of_different_grids_are_refused(image):
    g, r = (prepare(image[band]) for band in "gr")
    smaller = NDData(
        r.data[:-2], uncertainty=StdDevUncertainty(np.sqrt(r.uncertainty.array[:-2])), unit=r.unit, psf=r.psf,
        meta=r.meta,
    )
    blend = Blend.of({"g": g, "r": prepare(smaller)})
    with pytest.raises(ValueError, match="pixels of 'r' are not those of 'g'.*method='joint'"):
        Cube.of(blend, [0, 0], 1)


def test_a_psf_is_needed(image):
    r = prepare(image["r"])
    blend = Blend.of(like(r, r.data, uncertainty=r.uncertainty, psf=None))
    with pytest.raises(ValueError, match="needs the PSF, and the image has none: set psf="):
        Cube.of(blend, [0], 1)


def test_the_cube(image):
    blend = Blend.of({band: prepare(one) for band, one in image.items()})
    cube = Cube.of(blend, [0.5, 0.0], 1)
    np.testing.assert_allclose(cube.data[0], image["g"].data - 0.5)
    np.testing.assert_allclose(cube.psfs.sum((1, 2)), 1, rtol=1e-6)
    peak = [np.unravel_index(psf.argmax(), psf.shape) for psf in cube.psfs]
    assert peak[0] == peak[1] == (cube.psfs.shape[1] // 2,) * 2
    # 0.6 arcsec over pixels of 0.2: a standard deviation of 1.3 pixels, and a little for the pixel's own width.
    assert cube.narrow(0.8) == 0.8 and cube.narrow(5.0) == pytest.approx(0.8 * 1.3, rel=0.05)


def test_shapes_are_without_the_psf_of_the_model(image):
    blend = Blend.of({band: prepare(one) for band, one in image.items()})
    detection = Detector().around(blend, POSITIONS)
    row, column = np.indices(blend.shape)
    light = np.array([
        np.exp(-0.5 * ((column - x) ** 2 / (9 + 1) + (row - y) ** 2 / (4 + 1))) for x, y in POSITIONS
    ])
    light = np.stack([light, light], 1)
    found = Found(light, light, light.sum((2, 3)), 1.0, converged=False)
    result = told(blend, detection, [0, 0], found, 4.0)
    np.testing.assert_allclose(result.catalog["e1"], 0.2, atol=0.01)
    assert "not converged" in result.meta["flags"]

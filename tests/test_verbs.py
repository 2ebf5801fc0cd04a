"""The five verbs: find the method, open the door, keep class and seed, stamp the provenance."""

import json
import re
from datetime import datetime

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData, NDData, StdDevUncertainty
from astropy.table import Table
from astropy.wcs import WCS
from fake_packages import packages, toys  # noqa: F401
from toy_methods import ToyDeblender, ToyReconstructor, ToySimulator

from lensdeblend import deblend, generate, reconstruct, simulate, superresolve
from lensdeblend.scenes import EPL, Observation, Scene, Sersic

pytestmark = pytest.mark.usefixtures("toys")

OBSERVATION = Observation(0.1 * u.arcsec, (20, 24), background_rms=0.1)
BLEND = Scene(sources=[Sersic(50.0, 0.3 * u.arcsec)])


def image(kind=NDData, **settings):
    rng = np.random.default_rng(3)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (150, 2), (12.5, 10.5), (-0.1 / 3600, 0.1 / 3600)
    settings = dict(uncertainty=StdDevUncertainty(np.full((20, 24), 0.1)), wcs=wcs, unit="electron/s") | settings
    return kind(rng.normal(0, 0.1, (20, 24)) + 1, **settings)


def test_the_same_seed_gives_the_same_image():
    first, second, other = (simulate(BLEND, OBSERVATION, method="toy", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.image.data, second.image.data)
    assert not np.array_equal(first.image.data, other.image.data)


def test_a_seed_that_was_drawn_can_be_used_again():
    first = simulate(BLEND, OBSERVATION, method="toy")
    again = simulate(BLEND, OBSERVATION, method="toy", seed=first.meta["seed"])
    assert np.array_equal(first.image.data, again.image.data)


def test_a_generator_is_a_seed_that_goes_on():
    rng = np.random.default_rng(1)
    first, second = (simulate(BLEND, OBSERVATION, method="toy", seed=rng) for _ in range(2))
    assert not np.array_equal(first.image.data, second.image.data)
    assert first.meta["seed"] is None


@pytest.mark.parametrize("seed, error", [("1", TypeError), (1.0, TypeError), (True, TypeError), (-1, ValueError)])
def test_a_bad_seed_is_refused(seed, error):
    with pytest.raises(error, match="seed must"):
        simulate(BLEND, OBSERVATION, method="toy", seed=seed)


def test_one_image_is_a_batch_of_one():
    alone = reconstruct(image(), method="toy", seed=4)
    first, second = reconstruct([image(), image()], method="toy", seed=4)
    assert alone.parameters["gamma"] == first.parameters["gamma"]
    assert first.parameters["gamma"] != second.parameters["gamma"]


@pytest.mark.parametrize("verb", [reconstruct, deblend, superresolve])
def test_an_empty_list_is_refused(verb):
    with pytest.raises(ValueError, match="list of images is empty"):
        verb([], method="toy")


def test_an_empty_list_of_scenes_is_refused():
    with pytest.raises(ValueError, match="list of scenes is empty"):
        simulate([], OBSERVATION, method="toy")


def test_scenes_come_back_in_their_order():
    fluxes = [10.0, 30.0, 20.0]
    scenes = [Scene(sources=[Sersic(flux, 0.2 * u.arcsec)]) for flux in fluxes]
    totals = [result.noiseless.data.sum() for result in simulate(scenes, OBSERVATION, method="toy", seed=1)]
    assert np.allclose(totals, fluxes, rtol=1e-3)


def test_what_is_no_scene_or_observation_is_refused():
    with pytest.raises(TypeError, match="a scene must be a lensdeblend.scenes.Scene; got EPL"):
        simulate(EPL(1 * u.arcsec), OBSERVATION, method="toy")
    with pytest.raises(TypeError, match="observation must be"):
        simulate(BLEND, None, method="toy")


def test_the_method_says_what_it_cannot_draw():
    with pytest.raises(ValueError, match="toys bend no light"):
        simulate(Scene(mass=[EPL(1 * u.arcsec)]), OBSERVATION, method="toy")


@pytest.mark.parametrize("kind", [NDData, CCDData])
def test_the_class_of_the_input_comes_out(kind):
    result = reconstruct(image(kind), method="toy", seed=1)
    for name in ("source", "unlensed", "model", "residual"):
        assert type(getattr(result, name)) is kind, name
    assert result.model.unit == "electron/s"
    blend = deblend(image(kind), positions=[[3, 4], [9, 9]], method="toy", seed=1)
    assert {type(item) for item in [*blend.sources, *blend.shares, blend.model]} == {kind}


def test_the_image_goes_through_the_door():
    data = image()
    data.data[2, 3] = np.nan
    assert reconstruct(data, method="toy", seed=1).residual.mask[2, 3]
    with pytest.raises(ValueError, match="two-dimensional"):
        reconstruct(NDData(np.zeros((2, 9, 9))), method="toy")
    with pytest.raises(TypeError, match="must be an astropy NDData; got ndarray"):
        reconstruct(np.zeros((20, 20)), method="toy")


def test_the_bad_image_of_a_list_is_named():
    with pytest.raises(ValueError, match=r"image 1 of the list \(counted from 0\): .*two-dimensional"):
        reconstruct([image(), NDData(np.zeros((2, 9, 9)))], method="toy")


def test_sky_positions_become_pixels():
    data = image()
    pixels = np.array([[3.0, 4.0], [15.0, 11.5]])
    sky = data.wcs.pixel_to_world(*pixels.T)
    assert isinstance(sky, SkyCoord)
    result = deblend(data, positions=sky, method="toy", seed=1)
    assert np.allclose(np.column_stack([result.catalog["x"], result.catalog["y"]]), pixels, atol=1e-6)
    one = deblend(data, positions=sky[1], method="toy", seed=1)
    assert np.allclose([one.catalog["x"][0], one.catalog["y"][0]], pixels[1], atol=1e-6)


@pytest.mark.parametrize("positions", [[1, 2], [[1, 2, 3]], np.zeros((0, 2)), [[1, np.nan]]])
def test_bad_positions_are_refused(positions):
    with pytest.raises(ValueError, match="positions must be"):
        deblend(image(), positions=positions, method="toy")


@pytest.mark.parametrize("positions, error", [([[1, 2]] * u.arcsec, ValueError), ("here", TypeError)])
def test_positions_are_pixels(positions, error):
    with pytest.raises(error, match="pixels"):
        deblend(image(), positions=positions, method="toy")


def test_sky_positions_need_a_sky():
    with pytest.raises(ValueError, match="celestial WCS"):
        deblend(image(wcs=None, meta={"PIXSCALE": 0.1}), positions=SkyCoord([150] * u.deg, [2] * u.deg), method="toy")


def test_a_list_of_images_takes_a_list_of_positions():
    first, second = deblend([image(), image()], positions=[[[3, 4]], [[5, 6], [7, 8]]], method="toy", seed=1)
    assert (len(first.catalog), len(second.catalog)) == (1, 2)
    with pytest.raises(ValueError, match="for a list of 2 images, positions must be a list"):
        deblend([image(), image()], positions=[[[3, 4]]], method="toy")


def test_a_segmentation_must_fit_the_image():
    labels = np.zeros((20, 24), dtype=int)
    labels[3:6, 3:6] = 1
    assert deblend(image(), segmentation=labels, method="toy", seed=1).segmentation.n_labels == 1
    with pytest.raises(ValueError, match="segmentation has shape"):
        deblend(image(), segmentation=labels[1:], method="toy")
    with pytest.raises(TypeError, match="array of whole numbers; got ndarray of float64"):
        deblend(image(), segmentation=labels * 1.0, method="toy")


def test_bands_go_in_as_a_mapping():
    class Bands(ToyDeblender):
        def deblend(self, image, segmentation, positions, rng):
            one = ToyDeblender()
            results = {band: one.deblend(each, segmentation, positions, rng) for band, each in image.items()}
            first = results["g"]
            per_band = [{band: result.sources[i] for band, result in results.items()} for i in range(len(positions))]
            return type(first)(
                sources=per_band, shares=per_band, catalog=first.catalog, segmentation=None,
                model={band: result.model for band, result in results.items()},
                residual={band: result.residual for band, result in results.items()}, chi2=1.0,
            )

    result = deblend({"g": image(CCDData), "r": image()}, positions=[[3, 4]], method=Bands(), seed=1)
    assert (type(result.model["g"]), type(result.model["r"])) == (CCDData, NDData)
    assert type(result.sources[0]["g"]) is CCDData


def test_galaxies_are_generated_with_wished_properties():
    wishes = Table({"flux": [1.0, 2.0, 3.0]})
    result = generate(3, conditions=wishes, method="toy", seed=1)
    assert np.allclose([item.data.sum() for item in result.images], wishes["flux"])


@pytest.mark.parametrize("n, error", [(0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_a_bad_number_of_galaxies_is_refused(n, error):
    with pytest.raises(error, match="n must be"):
        generate(n, method="toy")


def test_bad_conditions_are_refused():
    with pytest.raises(ValueError, match=r"condition 'flux' has shape \(2,\); one value or 3 are"):
        generate(3, conditions={"flux": [1, 2]}, method="toy")
    with pytest.raises(TypeError, match="mapping or a Table"):
        generate(3, conditions=[1], method="toy")
    with pytest.raises(TypeError, match="radius' must be an angle"):
        generate(3, conditions={"radius": 0.3}, method="toy")
    with pytest.raises(ValueError, match="both flux and magnitude"):
        generate(3, conditions={"flux": 1, "magnitude": 20}, method="toy")


def test_a_finer_image():
    result = superresolve(image(CCDData), factor=3, method="toy", seed=1)
    assert result.image.data.shape == (60, 72)
    assert type(result.intrinsic) is CCDData


@pytest.mark.parametrize(
    "factor, error",
    [
        (0.9, ValueError), (5.1, ValueError), (np.inf, ValueError), (np.nan, ValueError), (True, TypeError),
        ("2", TypeError),
    ],
)
def test_a_bad_factor_is_refused(factor, error):
    with pytest.raises(error, match="factor must be"):
        superresolve(image(), factor=factor, method="toy")


def test_the_provenance_says_what_was_done():
    meta = reconstruct(image(), method=ToyReconstructor(theta_E=1.5), seed=np.int64(7)).meta
    assert (meta["verb"], meta["method"], meta["distribution"], meta["seed"]) == ("reconstruct", "toy", "toys", 7)
    assert meta["options"] == {"theta_E": 1.5, "label": "toy", "fast": False}
    assert meta["versions"].items() >= {"toys": "1.0", "numpy": np.__version__}.items()
    assert "lensdeblend" in meta["versions"] and "astropy" in meta["versions"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", meta["date"])
    assert abs((datetime.fromisoformat(meta["date"]) - datetime.now().astimezone()).total_seconds()) < 3600
    assert json.loads(json.dumps(meta)) == meta


def test_two_methods_make_two_provenances():
    wide, narrow = (simulate(BLEND, OBSERVATION, method=ToySimulator(stretch), seed=1) for stretch in (2.0, 1.0))
    assert wide.meta["options"] != narrow.meta["options"]
    assert wide.noiseless.data.max() < narrow.noiseless.data.max()


def test_a_method_that_returns_something_else_is_named():
    class Wrong(ToyReconstructor):
        def reconstruct(self, image, rng):
            return None

    with pytest.raises(TypeError, match="Wrong.*must return a Reconstruction; got NoneType"):
        reconstruct(image(), method=Wrong())


@pytest.mark.parametrize("verb", [reconstruct, deblend, superresolve])
def test_an_unknown_method_lists_the_known(verb):
    with pytest.raises(ValueError, match="unknown .* 'tog'; did you mean 'toy'.* Known are .*toy"):
        verb(image(), method="tog")

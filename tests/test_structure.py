"""What galaxies have beyond their profiles."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, VarianceUncertainty
from scipy.ndimage import gaussian_filter

from lensdeblend import deblend
from lensdeblend.deblenders.blend import Blend
from lensdeblend.deblenders.falling import falling
from lensdeblend.deblenders.joint import Joint
from lensdeblend.deblenders.structure import structured
from lensdeblend.images import prepare

SIZE = 36
CENTRES = np.array([[14.2, 17.0], [21.7, 18.4]])
NOISE = 1.0


def profiles(centres=CENTRES, peak=120.0, width=3.0):
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.array([peak * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * width**2)) for a, b in centres])


def seen(galaxies, rng, mask=None):
    data = galaxies.sum(0) + NOISE * rng.normal(size=(SIZE, SIZE))
    return prepare(NDData(
        data, uncertainty=VarianceUncertainty(np.full(data.shape, NOISE**2)), mask=mask, meta={"PIXSCALE": 0.2}
    ), pixel_scale=0.2 * u.arcsec)


def blend_of(galaxies, rng, mask=None):
    return Blend.of(seen(galaxies, rng, mask))


def departures(rng, count, width, strength):
    """Smooth random maps of that root mean square, noise through a Gaussian of that width."""
    maps = np.array([gaussian_filter(rng.normal(size=(SIZE, SIZE)), width, mode="wrap") for _ in range(count)])
    return strength * maps / maps.std((1, 2), keepdims=True)


def lopsided(centre, strength):
    y, x = np.mgrid[:SIZE, :SIZE]
    return strength * np.sin((x - centre[0]) / 3.0)


def test_galaxies_that_are_their_profiles_stay_as_they_are():
    rng = np.random.default_rng(2)
    models = profiles()
    found = [structured(blend_of(models, rng), [models], CENTRES, [0.0]) for _ in range(10)]
    untouched = [np.array_equal(one.images[0], models) and one.numbers == 0 and not one.strength.any() for one in found]
    assert sum(untouched) >= 9


def test_departures_are_found_where_they_are():
    rng = np.random.default_rng(3)
    models = profiles()
    true = models * (1 + np.array([lopsided(CENTRES[0], 0.4), np.zeros((SIZE, SIZE))]))
    found = structured(blend_of(true, rng), [models], CENTRES, [0.0])
    before, after = (np.sqrt(((images - true) ** 2).mean((1, 2))) for images in (models, found.images[0]))
    assert after[0] < 0.35 * before[0]
    # The other galaxy, which has none, gains little of it.
    assert after[1] < 0.35 * before[0] and found.strength[0] > found.strength[1]


@pytest.mark.parametrize("strength", [0.2, 0.4])
def test_the_strength_is_read_off_the_data(strength):
    rng = np.random.default_rng(4)
    models = profiles(CENTRES[:1], peak=400.0)
    told = []
    for _ in range(8):
        true = models * (1 + departures(rng, 1, 3.0 / np.sqrt(2), strength).clip(-1))
        told.append(float(structured(blend_of(true, rng), [models], CENTRES[:1], [0.0]).strength[0]))
    assert np.median(told) == pytest.approx(strength, rel=0.35)


def test_no_pixel_becomes_negative():
    rng = np.random.default_rng(5)
    models = profiles()
    true = models * np.array([1 + lopsided(CENTRES[0], 1.0), np.ones((SIZE, SIZE))])
    found = structured(blend_of(true, rng), [models], CENTRES, [0.0])
    assert found.strength.any() and (found.images[0] >= 0).all()


def test_errors_of_fluxes_are_those_of_the_structure():
    rng = np.random.default_rng(6)
    models = profiles(peak=100.0)
    pulls = []
    for _ in range(40):
        true = models * (1 + departures(rng, 2, 3.0 / np.sqrt(2), 0.35).clip(-1))
        found = structured(blend_of(true, rng), [models], CENTRES, [0.0])
        assert found.strength.any()
        pulls += list((found.images[0].sum((1, 2)) - true.sum((1, 2))) / found.flux_errors[:, 0])
    assert 0.75 < np.diff(np.percentile(pulls, [16, 84]))[0] / 2 < 1.3


def test_flipped_images_have_flipped_structure():
    rng = np.random.default_rng(7)
    models = profiles()
    true = models * (1 + lopsided(CENTRES[0], 0.4))
    blend = blend_of(true, rng)
    found = structured(blend, [models], CENTRES, [0.0])
    image = blend.first.image
    flipped = Blend.of(prepare(NDData(
        image.data[:, ::-1], uncertainty=VarianceUncertainty(image.uncertainty.array[:, ::-1]),
    ), pixel_scale=0.2 * u.arcsec))
    mirrored = np.stack([SIZE - 1 - CENTRES[:, 0], CENTRES[:, 1]], 1)
    again = structured(flipped, [models[:, :, ::-1]], mirrored, [0.0])
    # The random signs of the traces do not flip along.
    off = again.images[0][:, :, ::-1] - found.images[0]
    assert np.sqrt((off**2).mean()) < 0.15 * np.sqrt(((found.images[0] - models) ** 2).mean())


def test_masked_pixels_say_nothing():
    rng = np.random.default_rng(8)
    models = profiles()
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:16, 8:16] = True
    true = models * (1 + lopsided(CENTRES[0], 0.4))
    image = seen(true, rng, mask)
    found = structured(Blend.of(image), [models], CENTRES, [0.0])
    wild = image.data.copy()
    wild[mask] = 1e6
    spoilt = prepare(NDData(wild, uncertainty=image.uncertainty, mask=mask), pixel_scale=0.2 * u.arcsec)
    again = structured(Blend.of(spoilt), [models], CENTRES, [0.0])
    assert np.isfinite(found.images[0]).all() and found.strength.any()
    np.testing.assert_array_equal(again.images[0], found.images[0])


def test_what_no_profile_describes_is_told():
    rng = np.random.default_rng(13)
    models = profiles(peak=200.0)
    y, x = np.mgrid[:SIZE, :SIZE]
    hole = np.hypot(x - CENTRES[0, 0], y - CENTRES[0, 1]) > 4
    found = structured(blend_of(models * np.array([4.0 * hole, np.ones_like(hole)]), rng), [models], CENTRES, [0.0])
    assert found.at_bound[0]
    assert not structured(blend_of(models, rng), [models], CENTRES, [0.0]).at_bound.any()


def test_a_galaxy_without_light_stays_without():
    rng = np.random.default_rng(9)
    models = profiles()
    models[1] = 0
    true = models * (1 + lopsided(CENTRES[0], 0.4))
    found = structured(blend_of(true, rng), [models], CENTRES, [0.0])
    assert found.strength[0] > 0 and not found.images[0][1].any() and np.isfinite(found.flux_errors).all()


def test_falling_galaxies_do_not_rise_outwards():
    rng = np.random.default_rng(10)
    images = profiles() * (1 + departures(rng, 2, 2.0, 0.5).clip(-1))
    fallen = falling(images, CENTRES)
    assert (fallen <= images).all() and not np.array_equal(fallen, images)
    np.testing.assert_array_equal(falling(fallen, CENTRES), fallen)
    for image, (x, y) in zip(fallen, np.round(CENTRES).astype(int)):
        assert image.max() == pytest.approx(image[y - 1:y + 2, x - 1:x + 2].max())
    np.testing.assert_array_equal(falling(profiles(), CENTRES), profiles())


def test_joint_tells_the_structure_of_its_galaxies():
    rng = np.random.default_rng(11)
    centres = np.array([[11.2, 17.0], [24.7, 18.4]])
    true = profiles(centres, peak=80.0) * (1 + np.array([lopsided(centres[0], 0.3), np.zeros((SIZE, SIZE))]))
    image = seen(true, rng)
    plain, rich, fallen = (
        deblend(image, positions=centres, method=Joint(structure=how), seed=1) for how in ("none", "auto", "falling")
    )
    assert not plain.catalog["structure"].any() and rich.catalog["structure"][0] > 0.1
    assert max(rich.chi2, fallen.chi2) < 0.5 * plain.chi2 and "poor fit" in plain.meta["flags"]

    def wrong(result):
        return np.sqrt(np.mean((result.sources[0].data - true[0]) ** 2))

    assert wrong(rich) < 0.6 * wrong(plain)
    for result in (rich, fallen):
        np.testing.assert_allclose(
            sum(source.data for source in result.sources) + result.meta["background"], result.model.data
        )
    np.testing.assert_allclose(
        [source.data.sum() for source in rich.sources] - np.array([source.data.sum() for source in plain.sources]),
        rich.catalog["flux"] - plain.catalog["flux"],
    )
    assert (rich.catalog["flux_err"] >= plain.catalog["flux_err"]).all()


def test_galaxies_far_apart_are_each_as_alone():
    rng = np.random.default_rng(12)
    centres = np.array([[8.0, 9.0], [27.5, 26.0]])
    models = profiles(centres, peak=200.0, width=1.6)
    true = models * (1 + np.array([lopsided(centre, 0.4) for centre in centres]))
    blend = blend_of(true, rng)
    both = structured(blend, [models], centres, [0.0])
    for number in range(2):
        rest = Blend.of(prepare(NDData(
            blend.first.data - true[1 - number], uncertainty=VarianceUncertainty(np.full((SIZE, SIZE), NOISE**2)),
        ), pixel_scale=0.2 * u.arcsec))
        one = structured(rest, [models[[number]]], centres[[number]], [0.0])
        off = both.images[0][number] - one.images[0][0]
        # They share what is known of how strong departures are.
        assert np.sqrt((off**2).mean()) < 0.3 * np.sqrt(((one.images[0][0] - models[number]) ** 2).mean())
        assert both.flux_errors[number, 0] == pytest.approx(one.flux_errors[0, 0], rel=0.3)

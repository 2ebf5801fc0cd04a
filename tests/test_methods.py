"""Every built-in method keeps the contract of its interface, by the checks that plug-in authors use."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from toy_methods import ToyDeblender, ToyGenerator, ToyReconstructor, ToySimulator, ToySuperResolver

from lensdeblend import methods, testing
from lensdeblend.images import like, prepare
from lensdeblend.interfaces import Simulator
from lensdeblend.plugins import method_class
from lensdeblend.testing.common import lens_image, require_same_result

BUILTIN = [
    pytest.param(row["kind"], row["name"], id=f"{row['kind']}-{row['name']}")
    for row in methods() if row["distribution"] == "lensdeblend" and row["available"]
]
# One takes minutes an image with the options it comes with: its own tests hold it to the contract with smaller ones.
# Another separates a lens from its arcs and refuses the positions that the contract hands over; one needs a catalogue
# of real galaxies, which its tests make; the last have weights for other pixels than those of the contract's image.
WITH_OWN_TESTS = {
    ("reconstructor", "lenstronomy"), ("deblender", "lens"), ("generator", "cosmos"),
    *(("superresolver", name) for name in ("physics-paper", "rcan", "srgan", "feature-gan", "rcan-supervised")),
}


@pytest.mark.parametrize("kind, name", [one for one in BUILTIN if one.values not in WITH_OWN_TESTS])
def test_a_builtin_method_keeps_the_contract(kind, name):
    getattr(testing, f"check_{kind}")(f"lensdeblend::{name}")


@pytest.mark.parametrize("kind, name", BUILTIN)
def test_a_builtin_method_says_what_it_does(kind, name):
    assert method_class(kind, name).__doc__
    assert next(row["summary"] for row in methods(kind) if row["name"] == name)


TOYS = {
    "simulator": ToySimulator, "reconstructor": ToyReconstructor, "deblender": ToyDeblender, "generator": ToyGenerator,
    "superresolver": ToySuperResolver,
}


@pytest.mark.parametrize("kind", TOYS)
def test_a_toy_keeps_the_contract(kind):
    getattr(testing, f"check_{kind}")(TOYS[kind]())


@dataclass
class Thawed(Simulator):
    def simulate(self, scene, observation, rng):
        return ToySimulator().simulate(scene, observation, rng)


class Forgetful(ToySimulator):
    def simulate(self, scene, observation, rng):
        return super().simulate(scene, observation, np.random.default_rng())


class Bright(ToySimulator):
    def simulate(self, scene, observation, rng):
        result = super().simulate(scene, observation, rng)
        change = 0.05 * result.noiseless.data**2
        return replace(
            result, noiseless=like(result.image, result.noiseless.data + change),
            image=like(result.image, result.image.data + change, uncertainty=result.image.uncertainty),
            sources=[like(result.image, source.data + change / 2) for source in result.sources],
        )


class Quiet(ToySimulator):
    def simulate(self, scene, observation, rng):
        result = super().simulate(scene, observation, rng)
        data = (result.image.data + result.noiseless.data) / 2
        image = like(result.image, data, uncertainty=result.image.uncertainty)
        return replace(result, image=image)


class Leaky(ToySimulator):
    def simulate(self, scene, observation, rng):
        result = super().simulate(scene, observation, rng)
        if observation.psf is None:
            return result
        loss = 0.01 * result.noiseless.data
        return replace(
            result, noiseless=like(result.image, result.noiseless.data - loss),
            image=like(result.image, result.image.data - loss, uncertainty=result.image.uncertainty),
            sources=[like(result.image, 0.99 * source.data) for source in result.sources],
        )


class Shared(ToySimulator):
    def simulate_batch(self, scenes, observation, rng):
        seed = rng.integers(2**31)
        return [self.simulate(scene, observation, np.random.default_rng(seed)) for scene in scenes]


class Scribbler(ToyReconstructor):
    def reconstruct(self, image, rng):
        image.data[0, 0] = 7
        return super().reconstruct(image, rng)


class Optimist(ToyReconstructor):
    def reconstruct(self, image, rng):
        result = super().reconstruct(image, rng)
        return replace(result, chi2=result.chi2 / 10)


class Terse(ToyReconstructor):
    def reconstruct(self, image, rng):
        result = super().reconstruct(image, rng)
        return replace(result, parameters=result.parameters["theta_E", "theta_E_err"])


class Curious(ToyReconstructor):
    def reconstruct(self, image, rng):
        result = super().reconstruct(image, rng)
        leak = 1e-3 * image.data[image.mask].sum()
        return replace(result, model=like(image, np.where(image.mask, 0, result.model.data + leak)))


class Short(ToyReconstructor):
    def reconstruct_batch(self, images, rng):
        return super().reconstruct_batch(images, rng)[:1]


class Wasteful(ToyDeblender):
    def deblend(self, image, segmentation, positions, rng):
        result = super().deblend(image, segmentation, positions, rng)
        return replace(result, shares=[like(image, share.data / 2) for share in result.shares])


class Shuffled(ToyDeblender):
    def deblend(self, image, segmentation, positions, rng):
        return super().deblend(image, segmentation, None if positions is None else positions[::-1], rng)


class Monotone(ToyGenerator):
    def generate(self, n, conditions, rng):
        result = super().generate(n, conditions, rng)
        return replace(result, images=[result.images[0]] * n)


class Deaf(ToyGenerator):
    def generate(self, n, conditions, rng):
        return super().generate(n, None, rng)


class Fading(ToySuperResolver):
    def superresolve(self, image, factor, rng):
        result = super().superresolve(image, factor, rng)
        return replace(result, image=like(result.image, result.image.data / factor))


@pytest.mark.parametrize(
    "kind, method, complaint",
    [
        ("simulator", Thawed(), "must be a frozen dataclass"),
        ("simulator", Forgetful(), "two images with the same seed"),
        ("simulator", Bright(), "twice the flux"),
        ("simulator", Quiet(), "the noise is 0.5"),
        ("simulator", Leaky(), "the PSF changes the flux by -1.0"),
        ("simulator", Shared(), "share one noise"),
        ("reconstructor", Scribbler(), "changed the image"),
        ("reconstructor", Optimist(), "chi2 must be reduced"),
        ("reconstructor", Terse(), "lack the column gamma"),
        ("reconstructor", Curious(), "residual must be|other values in masked pixels"),
        ("reconstructor", Short(), "returned 1 results for 2 inputs"),
        ("deblender", Wasteful(), "sum of the shares and the data"),
        ("deblender", Shuffled(), "pixels from the positions"),
        ("generator", Monotone(), "all galaxies are the same"),
        ("generator", Deaf(), "twice the flux"),
        ("superresolver", Fading(), "holds a flux"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_check_finds_what_is_wrong(kind, method, complaint):
    with pytest.raises(AssertionError, match=complaint):
        getattr(testing, f"check_{kind}")(method)


@pytest.mark.parametrize("change, complaint", [
    (lambda result: {"chi2": 2 * result.chi2}, "chi2 after"),
    (lambda result: {"parameters": QTable(result.parameters, copy=True)}, None),
    (lambda result: {"parameters": QTable({**result.parameters, "theta_E": [9] * u.arcsec})}, "column theta_E"),
    (lambda result: {"parameters": QTable({**result.parameters, "theta_E": [9] * u.deg})}, "units"),
])
def test_two_results_are_equal_in_tables_and_numbers_too(change, complaint):
    result = ToyReconstructor().reconstruct(prepare(lens_image()), np.random.default_rng(1))
    changed = replace(result, **change(result))
    with pytest.raises(AssertionError, match=complaint) if complaint else nullcontext():
        require_same_result(changed, result, "after")

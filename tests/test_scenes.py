"""Components, observations and their YAML."""

from dataclasses import fields, is_dataclass

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, VarianceUncertainty
from astropy.units import Quantity
from astropy.wcs import WCS

from lensdeblend.scenes import (
    EPL, NFW, SIE, Galaxy, Gaussian, GaussianPSF, ImageSource, Knots, Observation, PointMass, PointSource,
    PointSubhalos, RealGalaxy, Redshifts, Scene, Sersic, Shear, TruncatedNFW, Vortex,
)
from lensdeblend.scenes.yaml import from_yaml, to_yaml

ARC = u.arcsec


def image(**more):
    pixels = np.random.default_rng(3).random((9, 11))
    return NDData(pixels, meta={"PIXSCALE": 0.03, "SURVEY": "none"}, unit=u.electron / u.s, **more)


RECORDS = [
    EPL(1.1 * ARC, 2.1, 0.1, -0.05, 0.01 * ARC, 1 / 3 * ARC),
    SIE(1.2 * ARC, e1=0.1),
    Shear(0.01, -0.02),
    NFW(0.3 * ARC, 0.01 * ARC),
    TruncatedNFW(0.3 * ARC, 0.01 * ARC, 1 * ARC),
    PointMass(10 * u.mas, 1 * ARC, 2 * ARC),
    PointSubhalos([0.1, 0.2] * ARC, [0, 1] * ARC, [1, 1 / 3] * ARC),
    Vortex(0.2 * ARC, 1 * ARC, 33 * u.deg, n=7),
    Sersic(20 * u.ABmag, 0.2 * ARC, 1.5, 0.1, 0.1),
    Sersic(3 * u.nJy, 0.2 * ARC),
    Gaussian(1e-30, 0.2 * ARC, e2=-0.3),
    PointSource(1.5),
    ImageSource(image(uncertainty=VarianceUncertainty(np.full((9, 11), 0.5)), mask=np.eye(9, 11, dtype=bool)), 3.0),
    ImageSource(image(psf=np.ones((3, 3)) / 9), angle=20 * u.deg),
    ImageSource(NDData(np.ones((8, 8), dtype=">f4"), wcs=WCS({
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-5, "CDELT2": 1e-5, "CRVAL1": 10.0, "CRVAL2": 20.0,
    }))),
    Knots(10.0, 0.4 * ARC, 12, seed=4),
    RealGalaxy("folder/catalog.fits", index=3, angle=10 * u.deg),
    Galaxy((Sersic(1.0, 0.2 * ARC, 4), Sersic(2.0, 0.5 * ARC)), name="a bulge and a disc"),
    Redshifts(0.5, 1.0),
    GaussianPSF(0.1 * ARC, truncation=3),
    Observation(0.1 * ARC, (32, 48), GaussianPSF(0.2 * ARC), exposure_time=100 * u.s, zero_point=25.0, band="10 s"),
    Observation(0.1 * ARC, (32, 48), np.random.default_rng(1).random((5, 3)), unit=u.adu / u.s, gain=2.5),
]


def same(one, other):
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return all(same(getattr(one, entry.name), getattr(other, entry.name)) for entry in fields(one))
    if isinstance(one, NDData):
        return (
            same(one.data, other.data) and one.unit == other.unit and one.meta == other.meta
            and same(one.mask, other.mask) and same(one.psf, other.psf)
            and (one.uncertainty is None) == (other.uncertainty is None)
            and (one.uncertainty is None or same(one.uncertainty.array, other.uncertainty.array))
            and (one.wcs is None) == (other.wcs is None)
            and (one.wcs is None or one.wcs.to_header_string() == other.wcs.to_header_string())
        )
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Quantity):
        return one.unit == other.unit and np.array_equal(one.value, other.value)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype.newbyteorder(one.dtype.byteorder) and np.array_equal(one, other)
    return one == other


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_yaml_gives_back_what_was_written(record):
    assert same(record, from_yaml(to_yaml(record)))


def test_comparison_of_the_tests_sees_differences():
    assert not same(RECORDS[0], RECORDS[1])
    assert not same(Sersic(1.0, 0.2 * ARC), Sersic(1.0, 0.3 * ARC))
    assert not same(ImageSource(image()), ImageSource(image(mask=np.zeros((9, 11), dtype=bool))))


def test_scene_files(tmp_path):
    scene = Scene(
        mass=RECORDS[:8], lens_light=[RECORDS[8]], sources=[RECORDS[17], RECORDS[12]], redshifts=Redshifts(0.5, 1.0),
    )
    scene.write(tmp_path / "scene.yaml")
    assert same(Scene.read(tmp_path / "scene.yaml"), scene)
    with pytest.raises(FileExistsError, match="overwrite"):
        scene.write(tmp_path / "scene.yaml")
    with pytest.raises(ValueError, match="holds a Scene, not a Observation"):
        Observation.read(tmp_path / "scene.yaml")


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "scene.yaml"
    path.write_text("old")
    bad = NDData(np.ones((3, 3)), meta={"PIXSCALE": 0.1, "thing": object()})
    with pytest.raises(TypeError, match="cannot write"):
        Scene(sources=[ImageSource(bad)]).write(path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["scene.yaml"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("text, message", [
    ("Sersik: {flux: 1, radius: 1 arcsec}", "unknown record 'Sersik'; did you mean 'Sersic'"),
    ("Sersic: {flux: 1, radus: 1 arcsec}", "no field 'radus'; did you mean 'radius'"),
    ("Sersic: {flux: 1}", "needs the field 'radius'"),
    ("Sersic: {flux: 1, radius: 1}", "must be an angle with a unit"),
    ("Sersic: {flux: 1, radius: 1 parsnip}", "parsnip"),
    ("Sersic: {flux: 1, radius: wide}", "such as '1.2 arcsec'"),
    ("Sersic: {flux: 1, radius: 1 s}", "must be an angle"),
    ("Sersic: [1, 2]", "followed by its fields"),
    ("[1, 2]", "one record"),
    ("", "one record"),
    ("Scene: {mass: [Shear: {gamma1: 0.1}", "not valid YAML"),
    ("Scene: {mass: [Sersic: {flux: 1, radius: 1 arcsec}]}", "not allowed here"),
    ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ("ImageSource: {image: {NDData: {data: {dtype: O, shape: [1], base64: 'AAAA'}}}}", "not an array"),
    ("ImageSource: {image: {NDData: {data: [[1, 2], [3]]}}}", "not an array"),
])
def test_bad_yaml(text, message):
    with pytest.raises(ValueError, match=message):
        from_yaml(text)


def test_only_records_are_written():
    with pytest.raises(TypeError, match="known are"):
        to_yaml({"a": 1})


def test_nested_lists_are_read_as_arrays():
    kernel = "[[0, 1, 0], [1, 4, 1], [0, 1, 0]]"
    observation = from_yaml(f"Observation: {{pixel_scale: 0.1 arcsec, shape: [8, 8], psf: {kernel}}}")
    assert observation.psf[1, 1] == 0.5


@pytest.mark.parametrize("make, error, message", [
    (lambda: Sersic(1.0, 0.2), TypeError, "radius must be an angle with a unit"),
    (lambda: Sersic(1.0, -0.2 * ARC), ValueError, "radius must be positive"),
    (lambda: Sersic(1.0, np.nan * ARC), ValueError, "finite"),
    (lambda: Sersic(1.0, 0.2 * ARC, e1=0.8, e2=0.7), ValueError, "below 1"),
    (lambda: Sersic(1.0, 0.2 * ARC, n=0), ValueError, "n must be positive"),
    (lambda: RealGalaxy("catalog.fits"), ValueError, "one of index and id"),
    (lambda: ImageSource(NDData(np.ones((3, 3)))), ValueError, "pixel scale"),
    (lambda: ImageSource(np.ones((3, 3))), TypeError, "NDData"),
    (lambda: ImageSource(NDData(np.zeros((3, 3)), meta={"PIXSCALE": 1.0})), ValueError, "positive sum"),
    (lambda: PointSubhalos([1, 2] * ARC, [0] * ARC, [0, 1] * ARC), ValueError, "one length"),
    (lambda: Scene(mass=[Sersic(1.0, 1 * ARC)]), TypeError, "not allowed here"),
    (lambda: Observation(0.1, (3, 3)), TypeError, "pixel_scale"),
    (lambda: Observation(-0.1 * ARC, (3, 3)), ValueError, "positive"),
    (lambda: Observation(0.1 * ARC, (3, 0)), ValueError, "shape"),
    (lambda: Observation(0.1 * ARC, (3, 3), np.ones((4, 4))), ValueError, "odd size"),
    (lambda: Observation(0.1 * ARC, (3, 3), np.full((3, 3), np.nan)), ValueError, "finite"),
    (lambda: Observation(0.1 * ARC, (3, 3), np.zeros((3, 3))), ValueError, "positive sum"),
    (lambda: Observation(0.1 * ARC, (3, 3), background_rms=-1), ValueError, "background_rms"),
    (lambda: Observation(0.1 * ARC, (3, 3), exposure_time=10), TypeError, "time"),
    (lambda: Observation(0.1 * ARC, (3, 3)).flux(20 * u.ABmag), ValueError, "zero_point"),
    (lambda: Observation(0.1 * ARC, (3, 3)).flux(20 * u.m), ValueError, "cannot be turned"),
    (lambda: Observation(0.1 * ARC, (3, 3)).refined(1.5), ValueError, "whole"),
    (lambda: EPL(1 * ARC, e1=np.nan), ValueError, "e1 must be finite"),
    (lambda: EPL(1 * ARC, gamma="2"), TypeError, "gamma must be a number"),
    (lambda: EPL(1 * ARC, gamma=3.0), ValueError, "between 1 and 3"),
    (lambda: EPL([1, 2] * ARC), ValueError, "one angle"),
    (lambda: PointMass(-1 * ARC), ValueError, "theta_E must not be negative"),
    (lambda: PointSubhalos(1 * ARC, 0 * ARC, 0 * ARC), ValueError, "1-d"),
    (lambda: NFW(0 * ARC, 1 * ARC), ValueError, "Rs must be positive"),
    (lambda: Sersic(None, 1 * ARC), TypeError, "flux must be a number"),
    (lambda: Sersic(np.nan, 1 * ARC), ValueError, "flux must be one finite number"),
    (lambda: Sersic([1, 2] * u.nJy, 1 * ARC), ValueError, "flux must be one finite number"),
    (lambda: Scene(mass=EPL(1 * ARC)), TypeError, "must be a list"),
    (lambda: Scene(redshifts=(0.5, 1.0)), TypeError, "Redshifts"),
    (lambda: Redshifts(1.0, 0.5), ValueError, "behind the lens"),
    (lambda: Redshifts(-0.5), ValueError, "positive"),
    (lambda: Galaxy(()), ValueError, "at least one component"),
    (lambda: Observation(0.1 * ARC, 3), ValueError, "shape"),
    (lambda: Observation(0.1 * ARC, (3.5, 3)), ValueError, "whole"),
    (lambda: Observation(0.1 * ARC, (3, 3), "Gaussian"), TypeError, "GaussianPSF, a 2-d array"),
    (lambda: Observation(0.1 * ARC, (3, 3), unit=None), TypeError, "unit must be a unit"),
    (lambda: Observation(0.1 * ARC, (3, 3), unit="parsnip"), ValueError, "unit must be a unit"),
    (lambda: Observation(0.1 * ARC, (3, 3), unit=u.nJy, exposure_time=10 * u.s), ValueError, "only in a rate"),
    (lambda: Observation(0.1 * ARC, (3, 3), unit=u.electron, exposure_time=10 * u.s), ValueError, "only in a rate"),
    (lambda: Observation(0.1 * ARC, (3, 3), unit=u.nJy, zero_point=25), ValueError, "zero point of nJy is 31.400"),
    (lambda: Observation(0.1 * ARC, (3, 3), zero_point=np.nan), ValueError, "zero_point must be finite"),
    (lambda: Observation(0.1 * ARC, (3, 3), background_rms=1 * u.nJy), ValueError, "a quantity in electron / s"),
])
def test_bad_parts(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_fluxes_follow_the_zero_point():
    observation = Observation(0.1 * ARC, (3, 3), zero_point=25.0)
    assert observation.flux(22.5 * u.ABmag) == pytest.approx(10)
    assert observation.flux((22.5 * u.ABmag).to(u.nJy)) == pytest.approx(10)
    assert observation.flux(3 * u.electron / u.s) == 3


def test_a_flux_density_needs_no_zero_point():
    observation = Observation(0.1 * ARC, (3, 3), unit="nJy")
    assert observation.flux(31.4 * u.ABmag) == pytest.approx(1, rel=1e-4)
    assert observation.flux(2 * u.uJy) == pytest.approx(2000)


def test_quantities_become_numbers_in_the_unit():
    observation = Observation(0.1 * ARC, (3, 3), background_rms=6 * u.electron / u.min, zero_point=25 * u.ABmag)
    assert observation.background_rms == pytest.approx(0.1)
    assert observation.zero_point == 25
    assert np.allclose(observation.variance(np.zeros((3, 3))), 0.01)


def test_a_written_scene_has_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "any").touch()
    Scene().write(tmp_path / "scene.yaml")
    assert (tmp_path / "scene.yaml").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_scene_needs_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Scene().write(tmp_path / "none" / "scene.yaml")


def test_gaussian_psf_has_its_width():
    kernel = GaussianPSF(0.5 * ARC).kernel(0.1 * ARC)
    offset = np.arange(len(kernel)) - len(kernel) // 2
    sigma = np.sqrt((kernel.sum(axis=0) * offset**2).sum())
    assert kernel.sum() == pytest.approx(1)
    assert sigma * np.sqrt(8 * np.log(2)) == pytest.approx(5, rel=1e-4)


def test_lens_parameters():
    mass = [EPL(1.1 * ARC, 2.1, 0.1), Shear(0.01, 0.0), Shear(0.02, 0.03), PointMass(1 * ARC)]
    row = Scene(mass).lens_parameters
    assert row["theta_E"][0] == 1.1 * ARC
    assert (row["gamma"][0], row["e1"][0], row["gamma1"][0], row["gamma2"][0]) == (2.1, 0.1, 0.03, 0.03)
    with pytest.raises(ValueError, match="one EPL or SIE"):
        Scene(mass=[Shear(0.1)]).lens_parameters


def test_refined_observation_keeps_the_field():
    observation = Observation(0.1 * ARC, (32, 48), GaussianPSF(0.2 * ARC), background_rms=1.0)
    finer = observation.refined(2)
    assert finer.shape == (64, 96)
    assert finer.pixel_scale == 0.05 * ARC
    assert finer.psf == observation.psf

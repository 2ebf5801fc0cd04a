"""The five results: what is written reads back equal."""

import dataclasses
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, NDData, NDDataRef, StdDevUncertainty, VarianceUncertainty
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.time import Time
from astropy.wcs import WCS
from numpy.testing import assert_array_equal
from photutils.segmentation import SegmentationImage

from lensdeblend.results import Deblending, Generation, Reconstruction, Result, Simulation, SuperResolution
from lensdeblend.scenes import EPL, Galaxy, GaussianPSF, ImageSource, Observation, Redshifts, Scene, Sersic, Shear

SHAPE = (20, 24)


def image(seed=0, *, kind=NDData, shape=SHAPE, wcs=True, unit="electron / s", band=1):
    rng = np.random.default_rng([seed, band])
    data = rng.normal(size=shape)
    celestial = WCS(naxis=2)
    celestial.wcs.ctype = "RA---TAN", "DEC--TAN"
    celestial.wcs.cd = np.array([[-1.1, 0.2], [0.2, 1.1]]) * 1e-5 * band
    celestial.wcs.crval, celestial.wcs.crpix = (150.1, 2.2), (11.5, 9.25)
    return kind(
        data,
        uncertainty=VarianceUncertainty(rng.uniform(1, 2, shape)),
        mask=rng.random(shape) > 0.9,
        psf=rng.random((5, 5)),
        wcs=celestial if wcs else None,
        unit=unit,
        meta={"BAND": f"b{band}"} if wcs else {"PIXSCALE": 0.1, "BAND": f"b{band}"},
    )


def bare(seed=0, **options):
    return NDData(np.random.default_rng(seed).random(SHAPE), meta={"PIXSCALE": 0.05}, **options)


def catalogue():
    return QTable(
        {
            "id": [1, 2, 3],
            "x": [1.5, 2.5, np.nan],
            "sky": SkyCoord([150.1, 150.2, 150.3] * u.deg, [2.1, 2.2, 2.3] * u.deg),
            "flux": [1.0, 2.0, 3.0] * u.nJy,
            "flux_err": np.array([0.1, 0.2, 0.3], dtype=">f4") * u.nJy,
            "magnitude": [20.0, 21.0, 22.0] * u.ABmag,
            "g-r": [0.1, 0.2, 0.3] * u.mag,
            "radius": [0.1, 0.2, 0.3] * u.arcsec,
            "isolated": [True, False, True],
            "flags": ["", "edge", "\u00e9toile"],
            "when": Time([2450000.5, 2450001.5, 2450002.5], format="jd"),
            "moments": np.arange(6.0).reshape(3, 2),
        },
        meta={"zero_point": 25.9, "nested": {"priors": [1, 2]}},
    )


META = {
    "verb": "simulate", "method": "toy", "seed": 7, "options": {"starts": 8, "radius": None},
    "versions": {"numpy": "2"}, "a rather long and oddly spelt key": 1.5,
}


def simulation(kind=NDData, wcs=True):
    return Simulation(
        image=image(1, kind=kind, wcs=wcs),
        noiseless=image(2, kind=kind, wcs=wcs),
        scene=Scene(
            mass=[EPL(1.2 * u.arcsec, gamma=2.1, e1=0.1), Shear(0.03, -0.02)],
            lens_light=[Sersic(10 * u.nJy, 1 * u.arcsec, n=4)],
            sources=[Galaxy([Sersic(20 * u.ABmag, 0.2 * u.arcsec), Sersic(3.0, 0.4 * u.arcsec)]), ImageSource(bare(3))],
            redshifts=Redshifts(0.5, 2.0),
        ),
        observation=Observation(0.05 * u.arcsec, SHAPE, GaussianPSF(0.1 * u.arcsec), zero_point=25.9),
        sources=[image(3, kind=kind, wcs=wcs), image(4, kind=kind, wcs=wcs)],
        source=bare(5),
        unlensed=image(6, kind=kind, wcs=wcs),
        catalog=catalogue(),
        meta=META,
    )


def reconstruction(kind=NDData, wcs=True, flags=("poor fit", "at a bound")):
    angles = {"theta_E": [1.2] * u.arcsec, "theta_E_err": [np.nan] * u.arcsec}
    parameters = QTable(angles | {"gamma": [2.0], "gamma_err": [0.1]})
    return Reconstruction(
        source=bare(1),
        unlensed=image(2, kind=kind, wcs=wcs),
        parameters=parameters,
        covariance=np.random.default_rng(3).normal(size=(2, 2)),
        samples=QTable({"theta_E": np.linspace(1, 2, 50) * u.arcsec, "gamma": np.linspace(1.9, 2.1, 50)}),
        model=image(4, kind=kind, wcs=wcs),
        residual=bare(5, unit=u.dimensionless_unscaled),
        lens_light=None,
        chi2=1.02,
        flags=flags,
        curves=None,
        image=image(6, kind=kind, wcs=wcs),
        meta=META,
    )


def deblending(kind=NDData, wcs=True):
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[2:5, 3:8], labels[9:15, 10:20] = 1, 4
    options = {"kind": kind, "wcs": wcs}
    bands = [{"g": image(n, **options), "i": image(n, band=2, shape=(16, 30), **options)} for n in range(5)]
    return Deblending(
        sources=bands[:2], shares=bands[2:4], catalog=catalogue(), segmentation=SegmentationImage(labels),
        model=bands[4], residual=bands[0], chi2=float("nan"), meta={},
    )


def generation(kind=NDData, wcs=True):
    return Generation(images=[image(n, kind=kind, wcs=wcs) for n in range(3)], catalog=catalogue(), meta=META)


def superresolution(kind=NDData, wcs=True):
    return SuperResolution(
        image=image(1, kind=kind, wcs=wcs), intrinsic=image(2, kind=kind, wcs=wcs), source=None,
        deflection=(bare(3, unit="arcsec"), bare(4, unit="arcsec")), convergence=bare(5), parameters=None, chi2=1.0,
        flags=("poor fit", "no lens seen"), magnification=bare(6), substructure=bare(7), meta=META,
    )


MAKERS = [simulation, reconstruction, deblending, generation, superresolution]


def assert_same(one, other, where="result"):
    assert type(other) is type(one) or isinstance(one, NDDataRef), where
    if isinstance(one, NDData):
        assert_array_equal(other.data, one.data, err_msg=where)
        assert other.data.dtype == one.data.dtype
        assert other.unit == one.unit and (other.unit is None) == (one.unit is None), where
        assert (one.wcs is None) == (other.wcs is None), where
        if one.wcs is not None:
            positions = [image.wcs.pixel_to_world_values(3, 4) for image in (one, other)]
            assert_array_equal(*positions, err_msg=where)
        assert_same(one.mask, other.mask, f"{where}.mask")
        assert_same(one.psf, other.psf, f"{where}.psf")
        assert_same(one.meta, other.meta, f"{where}.meta")
        assert type(one.uncertainty) is type(other.uncertainty), where
        if one.uncertainty is not None:
            assert_array_equal(one.uncertainty.array, other.uncertainty.array, err_msg=where)
            assert one.uncertainty.unit == other.uncertainty.unit, where
    elif isinstance(one, Table):
        assert one.colnames == other.colnames and len(one) == len(other), where
        assert one.meta == other.meta, where
        for name in one.colnames:
            assert type(one[name]) is type(other[name]), f"{where}[{name!r}]"
            if isinstance(one[name], SkyCoord):
                assert (one[name].separation(other[name]) == 0).all() and one[name].frame.name == other[name].frame.name
            elif isinstance(one[name], Time):
                assert (one[name] == other[name]).all() and one[name].scale == other[name].scale
            else:
                assert_array_equal(one[name], other[name], err_msg=f"{where}[{name!r}]")
                assert one[name].unit == other[name].unit, f"{where}[{name!r}]"
                assert other[name].dtype.isnative
    elif isinstance(one, SegmentationImage):
        assert_array_equal(one.data, other.data)
        assert_array_equal(one.labels, other.labels)
    elif isinstance(one, np.ndarray):
        assert_array_equal(one, other, err_msg=where)
        assert one.dtype == other.dtype, where
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, (first, second) in enumerate(zip(one, other)):
            assert_same(first, second, f"{where}[{i}]")
    elif isinstance(one, float) and np.isnan(one):
        assert np.isnan(other), where
    else:
        assert one == other, where


@pytest.mark.parametrize("wcs", [True, False])
@pytest.mark.parametrize("kind", [NDData, CCDData, NDDataRef])
@pytest.mark.parametrize("make", MAKERS)
def test_round_trip(tmp_path, make, kind, wcs):
    result = make(kind, wcs)
    result.write(tmp_path / "result.fits")
    back = type(result).read(tmp_path / "result.fits")
    assert_same(result, back)
    assert_same(result, Result.read(tmp_path / "result.fits"))
    back.write(tmp_path / "again.fits")
    assert_same(back, Result.read(tmp_path / "again.fits"))


@pytest.mark.parametrize("make", MAKERS)
def test_files_hold_to_the_standard(tmp_path, make):
    result = make()
    result.write(tmp_path / "result.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(tmp_path / "result.fits", checksum=True) as hdus:
            hdus.verify("exception")
            assert hdus[0].data is None
            assert hdus[0].header["RESULT"] == type(result).__name__
            assert len({(hdu.name, hdu.ver) for hdu in hdus}) == len(hdus)
            for hdu in hdus:
                assert "CHECKSUM" in hdu.header
            if result.meta:
                assert hdus[0].header["SEED"] == 7 and "method: toy" in str(hdus[0].header["HISTORY"])


@pytest.mark.parametrize("make", [simulation, reconstruction, superresolution])
def test_ccddata_finds_the_image_first(tmp_path, make):
    result = make()
    result.write(tmp_path / "result.fits")
    ccd = CCDData.read(tmp_path / "result.fits", hdu_uncertainty="VAR", hdu_mask="DQ", hdu_psf="PSF")
    assert_array_equal(ccd.data, result.image.data)
    assert_array_equal(ccd.uncertainty.array, result.image.uncertainty.array)
    assert_array_equal(ccd.mask, result.image.mask)
    assert_array_equal(ccd.psf, result.image.psf)
    assert isinstance(ccd.uncertainty, VarianceUncertainty) and ccd.unit == result.image.unit
    assert ccd.wcs.pixel_to_world(3, 4).separation(result.image.wcs.pixel_to_world(3, 4)) < 1e-9 * u.arcsec


def test_tables_are_for_every_reader(tmp_path):
    generation().write(tmp_path / "result.fits")
    with fits.open(tmp_path / "result.fits") as hdus:
        columns = hdus["CATALOG"].columns
        assert [columns[name].unit for name in ("flux", "magnitude", "radius")] == ["nJy", "mag", "arcsec"]
        assert_array_equal(hdus["CATALOG"].data["flux"], [1, 2, 3])


def test_bands_have_versions_and_names(tmp_path):
    deblending().write(tmp_path / "result.fits")
    with fits.open(tmp_path / "result.fits") as hdus:
        assert [hdus["SOURCES_2", n].header["BAND"] for n in (1, 2)] == ["g", "i"]
        assert hdus["SHARES_1_VAR", 2].shape == (16, 30)
        assert hdus["SEGMENTATION"].data.max() == 4


def test_chi2_and_flags_are_in_the_header(tmp_path):
    reconstruction().write(tmp_path / "result.fits")
    header = fits.getheader(tmp_path / "result.fits")
    assert header["CHI2"] == 1.02 and header["FLAGS"] == "poor fit, at a bound"
    assert_same(Reconstruction.read(tmp_path / "result.fits").flags, ("poor fit", "at a bound"))


def test_no_flags_read_back_as_none(tmp_path):
    reconstruction(flags=()).write(tmp_path / "result.fits")
    assert Reconstruction.read(tmp_path / "result.fits").flags == ()


def test_empty_lists_and_tables(tmp_path):
    Generation(images=[], catalog=catalogue()[:0]).write(tmp_path / "result.fits")
    back = Generation.read(tmp_path / "result.fits")
    assert back.images == [] and len(back.catalog) == 0 and back.catalog.colnames == catalogue().colnames


def test_masked_columns(tmp_path):
    mask = [False, True, False]
    table = QTable({"b": [1.0, np.nan, 3.0]})
    for name, values in {"i": [1, 2, 3], "f": [1.0, 2.0, 3.0], "s": ["a", "b", "c"]}.items():
        table[name] = MaskedColumn(values, mask=mask)
    Generation(images=[], catalog=table).write(tmp_path / "result.fits")
    back = Generation.read(tmp_path / "result.fits").catalog
    for name in "ifs":
        assert_array_equal(back[name].mask, mask)
        assert_array_equal(back[name].compressed(), table[name].compressed())
    assert type(back["b"]) is Column
    assert_array_equal(back["b"], [1, np.nan, 3])


def test_overwrite(tmp_path):
    path = tmp_path / "result.fits"
    generation().write(path)
    with pytest.raises(OSError, match="exists; to replace it give overwrite=True"):
        generation().write(path)
    generation().write(path, overwrite=True)
    reconstruction().write(path, True)
    assert isinstance(Result.read(path), Reconstruction)


def test_another_kind(tmp_path):
    generation().write(tmp_path / "result.fits")
    with pytest.raises(ValueError, match="holds a Generation, not a Simulation: read it with Generation.read"):
        Simulation.read(tmp_path / "result.fits")


def test_no_result(tmp_path):
    fits.PrimaryHDU(np.zeros(SHAPE)).writeto(tmp_path / "image.fits")
    with pytest.raises(ValueError, match="not written by lensdeblend"):
        Result.read(tmp_path / "image.fits")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Result.read(tmp_path / "none.fits")


def test_truncated(tmp_path):
    path = tmp_path / "result.fits"
    generation().write(path)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises((OSError, ValueError), match="truncated|CONTENTS"):
        Generation.read(path)


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    result = dataclasses.replace(generation(), meta={"options": {"device": object()}})
    with pytest.raises(TypeError, match="the provenance holds what a file cannot|meta holds what a file cannot"):
        result.write(tmp_path / "result.fits")
    assert not list(tmp_path.iterdir())


def test_standard_deviations_stay_what_they_are(tmp_path):
    noisy = NDData(np.ones(SHAPE), uncertainty=StdDevUncertainty(np.full(SHAPE, 0.1)), unit="adu")
    Generation(images=[noisy], catalog=catalogue()).write(tmp_path / "result.fits")
    back = Generation.read(tmp_path / "result.fits").images[0]
    assert isinstance(back.uncertainty, StdDevUncertainty)
    assert_array_equal(back.uncertainty.array, noisy.uncertainty.array)

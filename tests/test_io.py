"""FITS in, FITS out."""

import errno
import os
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from lensdeblend import prepare
from lensdeblend.images import ImageWarning, pixel_scale
from lensdeblend.io import read_bands, read_image, write_image
from lensdeblend.io.atomic import replacing
from lensdeblend.io.contents import read_contents, write_contents

SHAPE = (20, 24)


@pytest.fixture
def sky(rng):
    return rng.normal(size=SHAPE)


def header(**cards):
    celestial = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.123456789012, "CRVAL2": 2.2,
        "CRPIX1": 10.5, "CRPIX2": 9.25, "CD1_1": -2.7e-5, "CD1_2": 1e-6, "CD2_1": 1e-6, "CD2_2": 2.7e-5,
    }
    return fits.Header(celestial | cards)


def hdu(data, name=None, compressed=False, **cards):
    kind = fits.CompImageHDU if compressed else fits.ImageHDU
    return kind(np.asarray(data), fits.Header(cards) if cards else None, name=name)


def save(path, *hdus, primary=None):
    fits.HDUList([primary or fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


class TestRead:
    def test_image_in_the_primary_hdu(self, tmp_path, sky):
        path = save(tmp_path / "a.fits", primary=fits.PrimaryHDU(sky, header(BUNIT="nJy", FILTER="i")))
        image = read_image(path)
        assert_array_equal(image.data, sky)
        assert image.data.dtype.isnative and image.unit == u.nJy
        assert image.uncertainty is image.mask is image.psf is None
        assert image.meta == {"FILTER": "i"}
        expected = WCS(header()).pixel_to_world(3, 4)
        assert image.wcs.pixel_to_world(3, 4).separation(expected) < 1e-9 * u.arcsec

    @pytest.mark.parametrize("compressed", [False, True])
    @pytest.mark.parametrize("suffix", ["fits", "fits.gz", "fits.fz"])
    def test_planes_by_their_names(self, tmp_path, sky, compressed, suffix):
        kernel = np.zeros((5, 5))
        kernel[2, 2] = 1
        bad = (sky > 1).astype(np.uint8)
        path = save(
            tmp_path / f"a.{suffix}",
            hdu((sky * 100).astype("i4"), "SCI", compressed, **header(BUNIT="nJy")),
            hdu(np.full(SHAPE, 4, dtype="i4"), "VAR", compressed),
            hdu(bad, "DQ", compressed),
            hdu(kernel.astype("i4"), "PSF"),
            primary=fits.PrimaryHDU(header=fits.Header({"TELESCOP": "HST"})),
        )
        image = read_image(path)
        assert_array_equal(image.data, (sky * 100).astype("i4"))
        assert isinstance(image.uncertainty, VarianceUncertainty) and (image.uncertainty.array == 4).all()
        assert_array_equal(image.mask, bad == 1)
        assert_array_equal(image.psf, kernel)
        assert image.meta["TELESCOP"] == "HST"
        assert_allclose(prepare(image).uncertainty.array, 4)

    def test_fpacked_image_without_a_name_in_extension_one(self, tmp_path, sky):
        path = save(tmp_path / "a.fits.fz", hdu((sky * 100).astype("i4"), None, True, PIXSCALE=0.2))
        image = read_image(path)
        assert image.meta == {"PIXSCALE": 0.2}
        assert_array_equal(image.data, (sky * 100).astype("i4"))

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("VAR", VarianceUncertainty), ("variance", VarianceUncertainty), ("ERR", StdDevUncertainty),
            ("RMS", StdDevUncertainty), ("NOISE_MAP", StdDevUncertainty), ("IVAR", InverseVariance),
            ("INVVAR", InverseVariance),
        ],
    )
    def test_extension_names_say_what_noise_it_is(self, tmp_path, sky, name, kind):
        path = save(tmp_path / "a.fits", hdu(sky, "SCI", BUNIT="adu"), hdu(np.full(SHAPE, 3.0), name, BUNIT="adu"))
        image = read_image(path)
        assert type(image.uncertainty) is kind
        assert (image.uncertainty.array == 3).all()

    def test_utype_decides_over_the_name(self, tmp_path, sky):
        path = save(tmp_path / "a.fits", hdu(sky, "SCI"), hdu(np.full(SHAPE, 3.0), "ERR", UTYPE="VarianceUncertainty"))
        assert type(read_image(path).uncertainty) is VarianceUncertainty

    def test_variance_comes_before_other_noise(self, tmp_path, sky):
        noise = hdu(np.full(SHAPE, 3.0), "ERR"), hdu(np.full(SHAPE, 9.0), "VAR")
        path = save(tmp_path / "a.fits", hdu(sky, "SCI"), *noise)
        assert type(read_image(path).uncertainty) is VarianceUncertainty

    def test_planes_of_another_image_are_left_alone(self, tmp_path, sky):
        path = save(tmp_path / "a.fits", hdu(sky, "SCI"), hdu(sky, "MODEL_VAR", UTYPE="VarianceUncertainty"))
        assert read_image(path).uncertainty is None

    def test_uncert_without_utype_is_not_guessed(self, tmp_path, sky):
        path = save(tmp_path / "a.fits", hdu(sky, "SCI"), hdu(np.full(SHAPE, 3.0), "UNCERT"))
        with pytest.raises(ValueError, match="no UTYPE.*variance='UNCERT'"):
            read_image(path)
        assert type(read_image(path, variance="UNCERT").uncertainty) is VarianceUncertainty

    @pytest.mark.parametrize(
        ("keyword", "power"), [("variance", 2), ("std", 1), ("inverse_variance", -2)]
    )
    def test_noise_named_by_keyword(self, tmp_path, sky, keyword, power):
        path = save(tmp_path / "a.fits", hdu(sky, "SCI", PIXSCALE=0.1), hdu(np.full(SHAPE, 0.5**power), "WHATEVER"))
        assert_allclose(prepare(read_image(path, **{keyword: "WHATEVER"})).uncertainty.array, 0.25)
        assert_allclose(prepare(read_image(path, **{keyword: 2})).uncertainty.array, 0.25)
        assert_allclose(prepare(read_image(path, **{keyword: ("WHATEVER", 1)})).uncertainty.array, 0.25)

    def test_noise_in_its_own_unit(self, tmp_path, sky):
        noise = hdu(np.full(SHAPE, 2e-3), "ERR", BUNIT="uJy")
        path = save(tmp_path / "a.fits", hdu(sky, "SCI", BUNIT="nJy", PIXSCALE=0.1), noise)
        assert_allclose(prepare(read_image(path)).uncertainty.array, 4.0)

    def test_weights_are_scaled_by_the_background(self, tmp_path, rng):
        weight = np.full((80, 80), 100.0)
        weight[:, 40:] = 25
        weight[0, 0] = 0
        data = rng.normal(size=weight.shape) * np.where(weight == 25, 0.6, 0.3)
        path = save(tmp_path / "a.fits", hdu(data, "SCI", PIXSCALE=0.1), hdu(weight, "WHT"))
        with pytest.warns(ImageWarning, match="times the inverse variance"):
            image = read_image(path)
        ready = prepare(image)
        assert_allclose(np.sqrt(ready.uncertainty.array[5, [5, 70]]), [0.3, 0.6], rtol=0.03)
        assert_array_equal(np.argwhere(ready.mask), [[0, 0]])

    def test_separate_files(self, tmp_path, sky):
        science = save(tmp_path / "sci.fits", primary=fits.PrimaryHDU(sky, fits.Header({"PIXSCALE": 0.1})))
        noise = save(tmp_path / "noise.fits", hdu(np.full(SHAPE, 7.0), "OTHER"), hdu(np.full(SHAPE, 2.0), "RMS"))
        psf = save(tmp_path / "psf.fits", primary=fits.PrimaryHDU(np.ones((3, 3))))
        image = read_image(science, std=f"{noise}[RMS]", psf=psf)
        assert_array_equal(image.uncertainty.array, np.full(SHAPE, 2.0))
        assert image.psf.shape == (3, 3)
        assert read_image(science, std=noise).uncertainty.array[0, 0] == 7

    def test_planes_of_the_same_version(self, tmp_path, sky):
        hdus = []
        for version in (1, 2):
            for name, factor in (("SCI", 1), ("ERR", 10)):
                extension = hdu(np.full(SHAPE, version * factor), name)
                extension.ver = version
                hdus.append(extension)
        path = save(tmp_path / "a.fits", *hdus)
        image = read_image(path, image=("SCI", 2))
        assert image.data[0, 0] == 2 and image.uncertainty.array[0, 0] == 20

    def test_pixel_scale_by_keyword(self, tmp_path, sky):
        path = save(tmp_path / "a.fits", hdu(sky, "SCI"), hdu(sky**2 + 1, "VAR"))
        with pytest.raises(ValueError, match="a pixel scale is needed"):
            prepare(read_image(path))
        assert pixel_scale(read_image(path, pixel_scale=0.1)) == 0.1 * u.arcsec
        assert pixel_scale(read_image(path, pixel_scale=100 * u.mas)).to_value("arcsec") == pytest.approx(0.1)

    def test_pixel_scale_against_the_wcs(self, tmp_path, sky):
        path = save(tmp_path / "a.fits", primary=fits.PrimaryHDU(sky, header()))
        with pytest.raises(ValueError, match="but the WCS has"):
            read_image(path, pixel_scale=0.2)

    @pytest.mark.parametrize(
        ("text", "unit"),
        [
            ("nJy", u.nJy), ("ELECTRONS/S", u.electron / u.s), ("electrons/s", u.electron / u.s),
            ("e-/s", u.electron / u.s), ("ADU", u.adu), ("counts", u.count), ("COUNTS/S", u.count / u.s),
            ("MJy/sr", u.MJy / u.sr), ("nanomaggies", u.nmgy), ("cps", u.count / u.s),
            ("10**-20 erg/s/cm2", 1e-20 * u.erg / u.s / u.cm**2),
        ],
    )
    def test_units_as_archives_write_them(self, tmp_path, sky, text, unit):
        assert read_image(save(tmp_path / "a.fits", hdu(sky, "SCI", BUNIT=text))).unit == u.Unit(unit)

    def test_unknown_unit(self, tmp_path, sky):
        path = save(tmp_path / "a.fits", hdu(sky, "SCI", BUNIT="nanomaggy*2"))
        with pytest.warns(ImageWarning, match="BUNIT 'nanomaggy.2' is no unit that astropy knows.*unit="):
            assert read_image(path).unit is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(path, unit="nJy").unit == u.nJy

    def test_one_plane_of_a_cube(self, tmp_path, sky):
        cube = np.stack([sky, 2 * sky])
        path = save(tmp_path / "a.fits", primary=fits.PrimaryHDU(cube, header()))
        assert_array_equal(read_image(path, plane=1).data, 2 * sky)
        with pytest.raises(ValueError, match="three-dimensional: choose one of its 2 planes with plane="):
            read_image(path)
        with pytest.raises(ValueError, match="planes 0 to 1, not 2"):
            read_image(path, plane=2)

    def test_cards_that_astropy_cannot_parse(self, shared_data):
        image = read_image(shared_data / "ntt_field" / "image.fits")
        assert image.data.shape == (256, 256) and image.meta["INSTRUME"] == "EMMI"


class TestMaskBits:
    @pytest.fixture
    def path(self, tmp_path, sky):
        bits = np.zeros(SHAPE, dtype=np.int32)
        bits[0, 0], bits[0, 1], bits[0, 2], bits[0, 3] = 1 << 0, 1 << 1, 1 << 5, (1 << 5) | 1
        names = {"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_DETECTED": 5}
        return save(tmp_path / "a.fits", hdu(sky, "IMAGE"), hdu(bits, "MASK", **names))

    @pytest.mark.parametrize(
        ("bits", "columns"),
        [
            (None, [0, 1, 3]), (["BAD"], [0, 3]), ("SAT", [1]), (["mp_sat", "DETECTED"], [1, 2, 3]), ([5], [2, 3]),
            ({"COSMIC": 1}, [1]), ("all", [0, 1, 2, 3]), ([], []),
        ],
    )
    def test_bits_by_name_and_number(self, path, bits, columns):
        mask = read_image(path, mask_bits=bits).mask
        assert_array_equal(np.argwhere(mask).reshape(-1, 2), np.array([[0, c] for c in columns]).reshape(-1, 2))

    def test_unknown_name(self, path):
        with pytest.raises(ValueError, match="no bit named 'CR'; it has BAD, DETECTED, SAT"):
            read_image(path, mask_bits=["CR"])

    def test_unnamed_bits_are_not_guessed(self, tmp_path, sky):
        bits = np.where(sky > 0, 4, 0)
        path = save(tmp_path / "b.fits", hdu(sky, "SCI"), hdu(bits, "DQ"))
        with pytest.raises(ValueError, match="largest value 4.*mask_bits="):
            read_image(path)
        assert_array_equal(read_image(path, mask_bits=[2]).mask, sky > 0)
        assert not read_image(path, mask_bits=[1]).mask.any()

    def test_bits_above_thirty_one(self, tmp_path, sky):
        bits = np.where(sky > 0, 1 << 40, 1).astype(np.int64)
        path = save(tmp_path / "b.fits", hdu(sky, "SCI"), hdu(bits, "DQ"))
        assert_array_equal(read_image(path, mask_bits=[40]).mask, sky > 0)

    def test_no_mask_to_choose_from(self, tmp_path, sky):
        with pytest.raises(ValueError, match="no mask plane for mask_bits"):
            read_image(save(tmp_path / "b.fits", hdu(sky, "SCI")), mask_bits=["BAD"])


class TestRefusals:
    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file .*none.fits"):
            read_image(tmp_path / "none.fits")

    @pytest.mark.parametrize("content", [b"", b"this is no FITS file", b"SIMPLE  = nothing"])
    def test_no_fits_file(self, tmp_path, content):
        (tmp_path / "a.fits").write_bytes(content)
        with pytest.raises(OSError, match="empty, truncated or no FITS file"):
            read_image(tmp_path / "a.fits")

    @pytest.mark.parametrize("suffix", ["fits", "fits.gz"])
    @pytest.mark.parametrize("lost", [0.02, 0.3, 0.6])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_truncated_file(self, tmp_path, rng, suffix, lost, compressed):
        path = tmp_path / f"a.{suffix}"
        data = rng.integers(0, 30000, (100, 100)).astype(np.int32)
        save(path, hdu(data, "SCI", compressed), hdu(data + 1, "VAR", compressed))
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * (1 - lost))])
        with pytest.raises(OSError, match="truncated"):
            read_image(path)

    def test_truncated_in_the_header_of_the_noise(self, tmp_path):
        path = save(tmp_path / "a.fits", hdu(np.ones((32, 32)), "SCI"), hdu(np.ones((32, 32)), "VAR"))
        with fits.open(path) as hdus:
            start = hdus["VAR"].fileinfo()["hdrLoc"]
        path.write_bytes(path.read_bytes()[:start + 1000])
        with pytest.raises(OSError, match="truncated"):
            read_image(path)

    def test_no_image(self, tmp_path):
        table = fits.BinTableHDU.from_columns([fits.Column("a", "D", array=[1.0])], name="CAT")
        with pytest.raises(ValueError, match="has no image: it has 0 PRIMARY: no data; 1 CAT: table"):
            read_image(save(tmp_path / "a.fits", table))

    def test_only_a_psf(self, tmp_path):
        with pytest.raises(ValueError, match="name it with image="):
            read_image(save(tmp_path / "a.fits", hdu(np.ones((5, 5)), "PSF")))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"image": "SKY"}, "no HDU 'SKY' for image; it has 0 PRIMARY: no data; 1 SCI: image"),
            ({"variance": 7}, "no HDU 7 for variance"),
            ({"psf": 0}, "HDU 0 of .* holds no image for psf"),
            ({"variance": "SMALL"}, r"variance plane has shape \(3, 3\)"),
            ({"mask": "SMALL"}, r"mask plane has shape \(3, 3\)"),
            ({"variance": 1, "std": 1}, "one kind of noise, not variance and std"),
            ({"band": "g"}, "no band 'g'"),
        ],
    )
    def test_wrong_options(self, tmp_path, sky, options, message):
        with pytest.raises(ValueError, match=message):
            read_image(save(tmp_path / "a.fits", hdu(sky, "SCI"), hdu(np.ones((3, 3), "i2"), "SMALL")), **options)

    def test_missing_plane_file(self, tmp_path, sky):
        with pytest.raises(FileNotFoundError, match="there is no file .*noise.fits"):
            read_image(save(tmp_path / "a.fits", hdu(sky, "SCI")), std=tmp_path / "noise.fits")


class TestWrite:
    @pytest.mark.parametrize(
        "unit", [None, "", "nJy", "electron/s", "adu", "1e-20 erg/(s cm2)", "mag(AB)", "mgy", "MJy/sr"]
    )
    @pytest.mark.parametrize("dtype", "<f4 >f4 <f8 >f8 f2 u1 i1 <i2 >i2 u2 i4 u4 i8".split())
    def test_contents_come_back_equal(self, tmp_path, unit, dtype, rng):
        data = rng.integers(0, 100, SHAPE).astype(dtype)
        image = NDData(data, unit=None if unit is None else u.Unit(unit))
        write_contents({"image": image}, tmp_path / "a.fits")
        back = read_contents(tmp_path / "a.fits")["image"]
        assert_array_equal(back.data, data)
        assert back.data.dtype == np.dtype(dtype).newbyteorder("=")
        assert back.unit == image.unit and (back.unit is None) == (image.unit is None)

    @pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance, UnknownUncertainty])
    @pytest.mark.parametrize("cls", [NDData, CCDData])
    def test_everything_in_an_image(self, tmp_path, sky, kind, cls):
        wcs = WCS(header())
        image = cls(
            sky, uncertainty=kind(sky**2 + 0.1), mask=sky > 1, psf=np.eye(5), wcs=wcs, unit="nJy",
            meta={"FILTER": "F814W", "nested": {"a": [1, None]}, "note": "\u00e9t\u00e9", "big": "x" * 99},
        )
        write_image(image, tmp_path / "a.fits")
        back = read_contents(tmp_path / "a.fits")["image"]
        assert type(back) is cls and type(back.uncertainty) is kind
        assert_array_equal(back.data, image.data)
        assert_array_equal(back.uncertainty.array, image.uncertainty.array)
        assert back.uncertainty.unit == image.uncertainty.unit
        assert back.mask.dtype == bool
        assert_array_equal(back.mask, image.mask)
        assert_array_equal(back.psf, image.psf)
        assert dict(back.meta) == dict(image.meta)
        assert_array_equal(back.wcs.pixel_to_world_values(3, 4), wcs.pixel_to_world_values(3, 4))

    def test_read_image_reads_it(self, tmp_path, sky):
        image = NDData(
            sky, uncertainty=VarianceUncertainty(sky**2 + 0.1), mask=sky > 1, psf=np.eye(5), unit="nJy",
            meta={"PIXSCALE": 0.1},
        )
        write_image(image, tmp_path / "a.fits")
        back = read_image(tmp_path / "a.fits")
        for name in ("data", "mask", "psf"):
            assert_array_equal(getattr(back, name), getattr(image, name))
        assert_array_equal(back.uncertainty.array, image.uncertainty.array)
        assert type(back.uncertainty) is VarianceUncertainty and back.unit == u.nJy and back.meta["PIXSCALE"] == 0.1

    def test_bands(self, tmp_path, sky):
        bands = {
            "g": NDData(sky, psf=np.eye(3), unit="nJy", uncertainty=StdDevUncertainty(sky + 10)),
            "i": NDData(2 * sky[:10], psf=np.eye(5), unit="uJy", mask=sky[:10] > 0),
        }
        write_image(bands, tmp_path / "a.fits")
        with fits.open(tmp_path / "a.fits") as hdus:
            assert hdus["SCI", 2].header["BAND"] == "i" and hdus["PSF", 2].shape == (5, 5)
            assert hdus["DQ", 2].header["BAND"] == "i" and hdus["ERR", 1].header["BAND"] == "g"
        for back in (read_bands(tmp_path / "a.fits"), read_contents(tmp_path / "a.fits")["image"]):
            assert list(back) == ["g", "i"]
            for band, image in bands.items():
                assert_array_equal(back[band].data, image.data)
                assert_array_equal(back[band].psf, image.psf)
                assert back[band].unit == image.unit
            assert back["g"].mask is None and back["i"].uncertainty is None
        with pytest.raises(ValueError, match="several bands: choose one of g, i"):
            read_image(tmp_path / "a.fits")
        with pytest.raises(ValueError, match="no band 'z'; it has g, i"):
            read_image(tmp_path / "a.fits", band="z")

    def test_standards_hold(self, tmp_path, sky):
        image = NDData(
            sky, uncertainty=VarianceUncertainty(sky**2 + 1), mask=sky > 1, psf=np.eye(5), unit="electron/s",
            wcs=WCS(header()),
        )
        write_image(image, tmp_path / "a.fits")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with fits.open(tmp_path / "a.fits", checksum=True) as hdus:
                assert hdus[0].data is None and hdus[0].header["CREATOR"].startswith("lensdeblend")
                assert all("CHECKSUM" in hdu.header and "DATASUM" in hdu.header for hdu in hdus)
                assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "VAR", "DQ", "PSF", "CONTENTS"]
                hdus.verify("exception")
                for name in ("SCI", "VAR", "DQ"):
                    assert WCS(hdus[name].header).wcs.ctype[0] == "RA---TAN"
                assert u.Unit(hdus["VAR"].header["BUNIT"]) == (u.electron / u.s) ** 2
            ccd = CCDData.read(tmp_path / "a.fits", hdu_uncertainty="VAR", hdu_mask="DQ", hdu_psf="PSF")
        assert_array_equal(ccd.data, sky)
        assert type(ccd.uncertainty) is VarianceUncertainty and ccd.unit == u.electron / u.s
        assert_array_equal(ccd.mask, sky > 1)

    @pytest.mark.parametrize(
        "value",
        [
            None, 1.5, float("nan"), float("inf"), 3, True, "text: with, {signs} \u2013 and\nlines ", ("a", "b"), [],
            (), {}, {"a": [1, {"b": None}]}, 3 * u.arcsec, [1, 2] * u.nJy, np.arange(6).reshape(2, 3), np.float32(2),
            np.zeros((0, 3)), np.array(3.0), np.array([True, False]), [np.str_("a"), np.int64(4)],
        ],
        ids=repr,
    )
    def test_values(self, tmp_path, value):
        write_contents({"thing": value}, tmp_path / "a.fits")
        back = read_contents(tmp_path / "a.fits")["thing"]
        if isinstance(value, float) and np.isnan(value):
            assert np.isnan(back)
        elif isinstance(value, np.ndarray):
            assert_array_equal(back, value)
            assert back.dtype == value.dtype and getattr(back, "unit", None) == getattr(value, "unit", None)
        else:
            assert back == value

    def test_a_header_as_meta(self, tmp_path, sky):
        meta = fits.Header({"FILTER": "i", "EXPTIME": 3.5})
        meta.add_history("reduced")
        write_image(CCDData(sky, unit="adu", meta=meta), tmp_path / "a.fits")
        back = read_contents(tmp_path / "a.fits")["image"]
        assert isinstance(back.meta, fits.Header) and back.meta == meta
        assert read_image(tmp_path / "a.fits").meta["EXPTIME"] == 3.5

    def test_same_psf_is_stored_once(self, tmp_path, sky):
        images = [NDData(sky * n, psf=np.eye(5)) for n in range(3)]
        write_contents({"images": images}, tmp_path / "a.fits")
        with fits.open(tmp_path / "a.fits") as hdus:
            assert sum(hdu.name.endswith("PSF") for hdu in hdus) == 1
        assert all((image.psf == np.eye(5)).all() for image in read_contents(tmp_path / "a.fits")["images"])

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (NDData(np.ones(SHAPE, dtype=complex)), "thing holds complex128, which FITS images cannot"),
            (NDData(np.ones(SHAPE), meta={"a": object()}), r"thing.meta holds what a file cannot"),
            ({"a": object()}, "thing holds what a file cannot"),
        ],
    )
    def test_what_fits_cannot_hold(self, tmp_path, value, message):
        with pytest.raises(TypeError, match=message):
            write_contents({"thing": value}, tmp_path / "a.fits")
        assert not list(tmp_path.iterdir())

    def test_contents_of_others(self, tmp_path, sky):
        with pytest.raises(ValueError, match="not written by lensdeblend; try read_image"):
            read_contents(save(tmp_path / "a.fits", hdu(sky, "SCI")))


class TestReplacing:
    def test_existing_file(self, tmp_path, sky):
        path = tmp_path / "a.fits"
        write_image(NDData(sky), path)
        before = path.read_bytes()
        with pytest.raises(OSError, match="a.fits exists; to replace it give overwrite=True"):
            write_image(NDData(2 * sky), path)
        assert path.read_bytes() == before
        write_image(NDData(2 * sky), path, overwrite=True)
        assert_array_equal(read_image(path).data, 2 * sky)

    def test_failure_leaves_what_was_there(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old")
        with pytest.raises(RuntimeError), replacing(path, overwrite=True) as temporary:
            temporary.write_text("half")
            raise RuntimeError
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]

    def test_folders(self, tmp_path, sky):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            write_image(NDData(sky), tmp_path / "none" / "a.fits")
        with pytest.raises(IsADirectoryError, match="is a folder"):
            write_image(NDData(sky), tmp_path)

    def test_no_permission(self, tmp_path, sky):
        tmp_path.chmod(0o500)
        try:
            if os.access(tmp_path, os.W_OK):
                pytest.skip("this user may write everywhere")
            with pytest.raises(PermissionError, match="cannot write .*a.fits: Permission denied"):
                write_image(NDData(sky), tmp_path / "a.fits")
        finally:
            tmp_path.chmod(0o700)

    @pytest.mark.parametrize(
        ("number", "kind", "reason"),
        [(errno.EACCES, PermissionError, "Permission denied"), (errno.ENOSPC, OSError, "No space left on device")],
    )
    def test_the_reason_is_told(self, tmp_path, number, kind, reason):
        with pytest.raises(kind, match=f"cannot write .*a.fits: {reason}"), replacing(tmp_path / "a.fits") as temporary:
            temporary.touch()
            raise OSError(number, os.strerror(number))
        assert not list(tmp_path.iterdir())

    def test_usual_permissions(self, tmp_path, sky):
        write_image(NDData(sky), tmp_path / "a.fits")
        (tmp_path / "b.fits").touch()
        assert (tmp_path / "a.fits").stat().st_mode == (tmp_path / "b.fits").stat().st_mode


class TestRealFiles:
    @pytest.mark.parametrize("name", ["euclid", "light_sersic__mass_sie__source_sersic", "mass_sie__source_sersic"])
    def test_simulated_lenses(self, shared_data, name):
        folder = shared_data / "simulated_lenses" / name
        ready = prepare(read_image(folder / "image.fits", std=folder / "noise_map.fits", psf=folder / "psf.fits"))
        assert ready.data.shape == (100, 100) and pixel_scale(ready) == 0.1 * u.arcsec
        sigma = fits.getdata(folder / "noise_map.fits")
        assert_allclose(ready.uncertainty.array, sigma.astype("f4") ** 2, rtol=1e-6)

    def test_hsc_and_hst(self, shared_data):
        folder = shared_data / "hsc_hst_pair"
        bands = {
            band: read_image(folder / "Cut_HSC.fits", psf=folder / "PSF_HSC.fits", plane=i)
            for i, band in enumerate("grizy")
        }
        with pytest.warns(ImageWarning, match="has no uncertainty") as caught:
            hsc = prepare(bands)
        assert len(caught) == 5
        with pytest.warns(ImageWarning) as caught:
            hst = prepare(read_image(folder / "Cut_HST.fits", psf=folder / "PSF_HST.fits"))
        assert sorted(str(warning.message).split(" ")[1] for warning in caught) == ["PSF", "image"]
        assert pixel_scale(hst).value == pytest.approx(0.03, rel=1e-6)
        assert all(pixel_scale(image).value == pytest.approx(0.168, rel=1e-6) for image in hsc.values())
        assert hsc["g"].psf.shape == (31, 31) and hst.psf.shape == (179, 179)
        assert np.argmax(hst.psf) == hst.psf.size // 2
        centres = [image.wcs.pixel_to_world((n - 1) / 2, (n - 1) / 2) for image, n in ((hsc["g"], 50), (hst, 250))]
        assert centres[0].separation(centres[1]) < 1 * u.arcsec


@pytest.mark.parametrize("image, error, message", [
    (np.ones((16, 16)), TypeError, "needs an NDData, or {band: NDData}; got ndarray"),
    ([NDData(np.ones((16, 16)))], TypeError, "got list"),
    ({"g": np.ones((16, 16))}, TypeError, "got ndarray"),
    ({}, ValueError, "mapping of bands is empty"),
])
def test_only_images_are_written(tmp_path, image, error, message):
    with pytest.raises(error, match=message):
        write_image(image, tmp_path / "a.fits")
    assert not list(tmp_path.iterdir())

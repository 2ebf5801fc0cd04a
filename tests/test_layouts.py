"""Generated galaxies as files in every layout, and as GalSim reads them."""

from dataclasses import replace
from pathlib import Path

import astropy.units as u
import galsim
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, NDData, VarianceUncertainty
from astropy.table import QTable
from astropy.wcs import WCS

from lensdeblend import generate
from lensdeblend.cli.main import main
from lensdeblend.generators.cosmos import Cosmos
from lensdeblend.generators.sersic import Sersic
from lensdeblend.io import read_bands, read_image
from lensdeblend.results import Generation, Result
from lensdeblend.results.layouts import LAYOUTS
from lensdeblend.scenes import GaussianPSF

ARC = u.arcsec
PSF = GaussianPSF(0.12 * ARC)


def stamp(k, *, kind=NDData, shape=(12, 14), noise=True, psf=True, band="", **more):
    rng = np.random.default_rng([k, len(band)])
    kernel = rng.random((3, 3))
    return kind(
        rng.random(shape), unit="ct / s", psf=kernel / kernel.sum() if psf else None,
        uncertainty=VarianceUncertainty(rng.uniform(1, 2, shape)) if noise else None,
        mask=rng.random(shape) > 0.9 if noise else None, meta={"PIXSCALE": 0.05, "GALAXY": k}, **more,
    )


def generation(images):
    count = len(images)
    catalog = QTable({
        "id": np.arange(1, count + 1), "flux": np.arange(1.0, count + 1) * u.ct / u.s, "radius": [0.2] * count * ARC,
        "magnitude": 25.0 - 2.5 * np.log10(np.arange(1.0, count + 1)) << u.ABmag, "flags": [""] * count,
    })
    return Generation(images=images, catalog=catalog, meta={"method": "toy", "seed": 7})


MADE = {
    "one band": lambda: generation([stamp(k) for k in range(3)]),
    "bare": lambda: generation([stamp(k, noise=False, psf=False) for k in range(3)]),
    "CCDData": lambda: generation([stamp(k, kind=CCDData) for k in range(2)]),
    "bands": lambda: generation([{band: stamp(k, band=band) for band in ("g", "HSC-i")} for k in range(2)]),
}


def assert_same(one, other):
    assert type(one) is type(other)
    assert one.data.dtype == other.data.dtype and one.unit == other.unit and dict(one.meta) == dict(other.meta)
    np.testing.assert_array_equal(one.data, other.data)
    for name in ("mask", "psf"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None)
        assert first is None or np.array_equal(first, second)
    assert type(one.uncertainty) is type(other.uncertainty)
    if one.uncertainty is not None:
        np.testing.assert_array_equal(one.uncertainty.array, other.uncertainty.array)
        assert one.uncertainty.unit == other.uncertainty.unit


def assert_equal(one, other):
    assert len(one.images) == len(other.images) and dict(one.meta) == dict(other.meta)
    for first, second in zip(one.images, other.images):
        if isinstance(first, NDData):
            first, second = {"": first}, {"": second}
        assert list(first) == list(second)
        for band in first:
            assert_same(first[band], second[band])
    assert one.catalog.colnames == other.catalog.colnames
    for name in one.catalog.colnames:
        assert np.all(one.catalog[name] == other.catalog[name])


@pytest.mark.parametrize("layout", ["mef", "cube", "files"])
@pytest.mark.parametrize("kind", MADE)
def test_what_is_written_reads_back_equal(tmp_path, kind, layout):
    made = MADE[kind]()
    path = tmp_path / ("galaxies" if layout == "files" else "galaxies.fits")
    made.write(path, layout=layout)
    assert_equal(Generation.read(path), made)
    assert_equal(Result.read(path), made)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        made.write(path, layout=layout)
    fewer = replace(made, images=made.images[:1], catalog=made.catalog[:1])
    fewer.write(path, layout=layout, overwrite=True)
    assert_equal(Generation.read(path), fewer)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_galsim_reads_the_catalogue(tmp_path, layout):
    made = MADE["one band"]()
    made.write(tmp_path / "made.fits", layout=layout)
    file = {"files": "made.fits/catalog.fits", "galsim": "made.fits/galaxies.fits"}.get(layout, "made.fits")
    catalog = galsim.Catalog(str(tmp_path / file))
    assert list(catalog.names) == made.catalog.colnames and catalog.nobjects == 3
    assert [catalog.getFloat(k, "flux") for k in range(3)] == [1.0, 2.0, 3.0]


def test_the_readers_of_images_read_cubes_and_files(tmp_path):
    made, banded = MADE["one band"](), MADE["bands"]()
    made.write(tmp_path / "cube.fits", layout="cube")
    made.write(tmp_path / "files", layout="files")
    for image in (read_image(tmp_path / "cube.fits", plane=1), read_image(tmp_path / "files" / "galaxy_0002.fits")):
        np.testing.assert_array_equal(image.data, made.images[1].data)
        np.testing.assert_array_equal(image.uncertainty.array, made.images[1].uncertainty.array)
        np.testing.assert_array_equal(image.psf, made.images[1].psf)
    banded.write(tmp_path / "bands.fits", layout="cube")
    for band, image in read_bands(tmp_path / "bands.fits", plane=0).items():
        np.testing.assert_array_equal(image.data, banded.images[0][band].data)


def test_one_psf_is_stored_once_in_a_cube(tmp_path):
    made = generate(3, conditions={"n": 1}, method=Sersic(pixels=24, psf=PSF, measure=False), seed=1)
    made.write(tmp_path / "cube.fits", layout="cube")
    with fits.open(tmp_path / "cube.fits") as hdus:
        assert [(hdu.name, hdu.shape) for hdu in hdus[2:4]] == [("SCI", (3, 24, 24)), ("PSF", made.images[0].psf.shape)]
        assert hdus["SCI"].header["BUNIT"] == "count s-1" and hdus["SCI"].header["PIXSCALE"] == 0.03
    assert_equal(Generation.read(tmp_path / "cube.fits"), made)


def with_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    return wcs


@pytest.mark.parametrize("images, complaint", [
    ([stamp(1), stamp(2, shape=(12, 16))], r"stamps of one shape; galaxy 1 has \(12, 14\), galaxy 2 \(12, 16\): use"),
    ([stamp(1), stamp(2, noise=False)], "galaxy 2 has another uncertainty"),
    ([stamp(1), stamp(2, psf=False)], "galaxy 2 has another PSF"),
    ([stamp(1), stamp(2, kind=CCDData)], "galaxy 2 has another type"),
    ([stamp(1, wcs=with_wcs())], "galaxy 1 has a WCS"),
    ([{"g": stamp(1)}, {"r": stamp(2)}], "galaxies in the same bands"),
])
def test_galaxies_that_make_no_cube(tmp_path, images, complaint):
    with pytest.raises(ValueError, match=complaint):
        generation(images).write(tmp_path / "cube.fits", layout="cube")
    assert not list(tmp_path.iterdir())
    generation(images).write(tmp_path / "files", layout="files")
    assert len(Generation.read(tmp_path / "files").images) == len(images)


class TestFolders:
    def test_a_folder_with_other_files_is_left_alone(self, tmp_path):
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "notes.txt").write_text("keep")
        with pytest.raises(FileExistsError, match="exists; to replace it"):
            MADE["bare"]().write(folder, layout="files")
        with pytest.raises(FileExistsError, match="holds other files, such as notes.txt"):
            MADE["bare"]().write(folder, layout="files", overwrite=True)
        assert [path.name for path in folder.iterdir()] == ["notes.txt"]

    def test_places_of_the_wrong_kind(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(NotADirectoryError, match="is a file; give the name of a folder"):
            MADE["bare"]().write(tmp_path / "file", layout="files", overwrite=True)
        with pytest.raises(IsADirectoryError, match="give the name of a file"):
            MADE["bare"]().write(tmp_path, layout="cube", overwrite=True)
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            MADE["bare"]().write(tmp_path / "absent" / "made", layout="files")
        with pytest.raises(FileNotFoundError, match="holds no generated galaxies"):
            Generation.read(tmp_path)

    def test_a_failure_leaves_what_was_there(self, tmp_path):
        made = MADE["bare"]()
        made.write(tmp_path / "made", layout="files")
        broken = replace(made, meta={"seed": object()})
        with pytest.raises(TypeError):
            broken.write(tmp_path / "made", layout="files", overwrite=True)
        assert_equal(Generation.read(tmp_path / "made"), made)
        assert [path.name for path in tmp_path.iterdir()] == ["made"]

    def test_a_missing_galaxy_is_named(self, tmp_path):
        MADE["bare"]().write(tmp_path / "made", layout="files")
        (tmp_path / "made" / "galaxy_0002.fits").unlink()
        with pytest.raises(FileNotFoundError, match="galaxy_0002.fits"):
            Generation.read(tmp_path / "made")

    def test_unknown_layouts(self, tmp_path):
        with pytest.raises(ValueError, match="unknown layout 'cubes'; did you mean 'cube'"):
            MADE["bare"]().write(tmp_path / "made", layout="cubes")
        with pytest.raises(ValueError, match="band goes with the layout galsim"):
            MADE["bare"]().write(tmp_path / "made", layout="cube", band="g")


WISHES = {"flux": [50.0, 80.0], "radius": [0.2, 0.3] * ARC, "e1": [0.2, -0.1], "e2": [0.1, 0.3], "n": [1.0, 2.5]}


def galaxies(psf=PSF, **options):
    return generate(2, conditions=WISHES, method=Sersic(psf=psf, pixels=192, measure=False, **options), seed=1)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("galsim") / "real"
    galaxies().write(folder, layout="galsim", band="F814W")
    return folder


class TestRealGalaxies:
    @pytest.mark.parametrize("index", [0, 1])
    @pytest.mark.parametrize("fwhm, scale", [(0.2, 0.05), (0.7, 0.2)])
    def test_a_real_galaxy_is_the_stamp_without_its_psf(self, real, index, fwhm, scale):
        """Deconvolved and seen through a wider PSF: the PSF-free stamp, and the profile itself, through that PSF."""
        catalog = galsim.RealGalaxyCatalog("catalog.fits", dir=str(real))
        galaxy = galsim.RealGalaxy(catalog, index=index, rng=galsim.BaseDeviate(1), noise_pad_size=6)
        bare = galaxies(psf=None).images[index]
        profile = galsim.Sersic(WISHES["n"][index], half_light_radius=WISHES["radius"][index].value, flux=1.0)
        profile = profile.shear(g1=WISHES["e1"][index], g2=WISHES["e2"][index]) * WISHES["flux"][index]
        direct = galsim.InterpolatedImage(galsim.Image(bare.data.copy()), scale=0.03)
        size = int(5.7 / scale)
        psf, frame = galsim.Gaussian(fwhm=fwhm), {"nx": size, "ny": size, "scale": scale, "dtype": float}
        seen, stamp, true = (
            galsim.Convolve([one, psf]).drawImage(**frame).array for one in (galaxy, direct, profile)
        )
        assert seen.sum() == pytest.approx(stamp.sum(), rel=1e-3)
        np.testing.assert_allclose(seen, stamp, atol=0.01 * stamp.max())
        np.testing.assert_allclose(seen, true, atol=1e-3 * true.max())

    def test_the_columns(self, real):
        catalog = galsim.RealGalaxyCatalog("catalog.fits", dir=str(real))
        assert catalog.ident == ["1", "2"] and list(catalog.band) == ["F814W", "F814W"]
        np.testing.assert_allclose(catalog.mag, galaxies().catalog["magnitude"].value)
        np.testing.assert_allclose(catalog.stamp_flux, WISHES["flux"], rtol=0.01)
        assert np.all(catalog.variance > 0)

    def test_galsims_own_catalogue_of_fits(self, real):
        catalog = galsim.COSMOSCatalog(str(real / "catalog.fits"), exclusion_level="bad_fits")
        assert len(catalog) == 2
        made = catalog.makeGalaxy(1, gal_type="parametric", sersic_prec=0)
        expected = galsim.Sersic(2.5, half_light_radius=0.3, flux=80).shear(g1=-0.1, g2=0.3)
        pictures = [one.drawImage(nx=32, ny=32, scale=0.1, dtype=float).array for one in (made, expected)]
        np.testing.assert_allclose(*pictures, atol=1e-6 * pictures[0].max())
        assert catalog.makeGalaxy(0, rng=galsim.BaseDeviate(1)).flux == pytest.approx(50, rel=1e-3)

    def test_our_generator_draws_from_it(self, real):
        method = Cosmos(catalog=real, psf=GaussianPSF(0.25 * ARC), pixels=96)
        made = generate(3, conditions={"radius": 0.2 * ARC, "e1": 0.1, "e2": 0.2}, method=method, seed=1).catalog
        np.testing.assert_allclose(made["radius_measured"].value, 0.2, rtol=0.03)
        np.testing.assert_allclose(made["n_measured"], made["n"], rtol=0.1)
        for name, value in (("e1", 0.1), ("e2", 0.2)):
            np.testing.assert_allclose(made[f"{name}_measured"], value, atol=0.02)

    def test_a_catalogue_written_anew_is_read_anew(self, tmp_path):
        for flux in (50.0, 90.0):
            made = generate(1, conditions={"flux": flux, "n": 1}, method=Sersic(psf=PSF, measure=False), seed=1)
            made.write(tmp_path / "real", layout="galsim", overwrite=True)
            drawn = generate(1, method=Cosmos(catalog=tmp_path / "real", measure=False), seed=1)
            assert drawn.catalog["flux"][0].value == pytest.approx(flux)

    def test_it_reads_back_equal(self, real):
        made = galaxies()
        read = Generation.read(real)
        for one, other in zip(read.images, made.images):
            assert_same(one, other)
        assert_same(Result.read(real / "galaxies.fits").images[1], made.images[1])

    def test_noise_is_told(self, tmp_path):
        made = galaxies()
        noisy = [NDData(one, uncertainty=VarianceUncertainty(np.full(one.data.shape, 4.0))) for one in made.images]
        replace(made, images=[noisy[0], made.images[1]]).write(tmp_path / "real", layout="galsim")
        variance = galsim.RealGalaxyCatalog("catalog.fits", dir=str(tmp_path / "real")).variance
        assert variance[0] == 4.0
        # GalSim cannot pad with noise of no variance: this is next to none.
        assert np.sqrt(variance[1]) == pytest.approx(1e-8 * made.images[1].data.max())

    def test_one_of_several_bands(self, tmp_path):
        made = galaxies()
        banded = replace(made, images=[{"g": one, "r": one} for one in made.images])
        with pytest.raises(ValueError, match="name one of g, r with band="):
            banded.write(tmp_path / "real", layout="galsim")
        with pytest.raises(ValueError, match="there is no 'i'"):
            banded.write(tmp_path / "real", layout="galsim", band="i")
        half = [NDData(0.5 * one.data, unit=one.unit, psf=one.psf, meta=one.meta) for one in made.images]
        images = [{"g": one, "r": other} for one, other in zip(made.images, half)]
        catalog = made.catalog.copy()
        catalog["flux_r"] = catalog["flux"] / 2
        replace(made, images=images, catalog=catalog).write(tmp_path / "real", layout="galsim", band="r")
        read = galsim.RealGalaxyCatalog("catalog.fits", dir=str(tmp_path / "real"))
        np.testing.assert_allclose(read.getGalImage(1).array, 0.5 * made.images[1].data)
        np.testing.assert_allclose(read.mag, made.catalog["magnitude"].value + 2.5 * np.log10(2))

    def test_without_a_psf_it_says_what_to_do(self, tmp_path):
        with pytest.raises(ValueError, match=r"galaxy 1 has none: generate the galaxies with the option psf, such as"):
            galaxies(psf=None).write(tmp_path / "real", layout="galsim")
        assert not list(tmp_path.iterdir())


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def own_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize("layout, name", [
        ("mef", "galaxies.fits"), ("cube", "galaxies.fits"), ("files", "galaxies"), ("galsim", "galaxies"),
    ])
    def test_layouts(self, layout, name):
        args = ["generate", "--method", "sersic", "-n", "2", "--seed", "1", "--set", "pixels=32", "--set", "measure=no"]
        args += ["--set", "psf=0.1arcsec", "--condition", "n=1", "--layout", layout]
        assert main(args) == 0
        assert len(Generation.read(name).images) == 2
        assert main(args) == 2
        assert main([*args, "--overwrite"]) == 0

    def test_no_psf(self, capsys):
        args = ["generate", "--method", "sersic", "--set", "pixels=32", "--condition", "n=1", "--layout", "galsim"]
        assert main(args) != 0
        assert "--set psf=0.1arcsec" in capsys.readouterr().err
        assert not Path("galaxies").exists()

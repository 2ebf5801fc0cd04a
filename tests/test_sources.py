"""Sources to learn from: parametric, procedural and real galaxies."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table

import lensdeblend.training.sources.galaxies as galaxies_module
from lensdeblend.io import write_image
from lensdeblend.scenes.populations.distributions import Fixed, Uniform
from lensdeblend.training.recipe import read_recipe
from lensdeblend.training.sources import (
    Cuts, GalaxyStamps, Mixture, Parametric, Procedural, RealImages, SkippedGalaxiesWarning, read_galaxies, sources,
    split_of,
)
from lensdeblend.training.sources.isolate import Unusable, half_light_ellipse, isolate
from lensdeblend.training.tasks import task

SIDE = 120


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def profile(x0=0.0, y0=0.0, *, radius=7.0, q=0.6, angle=0.5, side=SIDE, spiral=False):
    """An inclined exponential disc of total flux 1000 on a frame's centre."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    dx, dy = x - x0, y - y0
    u = (dx * np.cos(angle) + dy * np.sin(angle)) * np.sqrt(q)
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / np.sqrt(q)
    r = np.hypot(u, v) + 1e-9
    light = np.exp(-1.678 * r / radius)
    if spiral:
        light *= 1 + 0.7 * np.cos(2 * np.arctan2(v, u) - 5 * np.log(r / radius)) * r**2 / (r**2 + 9)
    return 1000 * light / light.sum()


def noisy(image, rng, sigma=0.05, sky=0.0):
    return image + sky + rng.normal(0, sigma, image.shape)


def stamps(count=30):
    cut = np.stack([
        profile(side=96, radius=5 + 0.1 * i, q=0.4 + 0.02 * i, angle=i, spiral=True) / 1000 for i in range(count)
    ]).astype(np.float32)
    radius = np.array([half_light_ellipse(stamp)[0] for stamp in cut], np.float32)
    return GalaxyStamps([f"galaxy{i}" for i in range(count)], cut, radius, {})


KINDS = {
    "parametric": lambda: Parametric(),
    "bulge and disc": lambda: Parametric(n=Uniform(0.8, 1.2), bulge=Uniform(0.1, 0.7)),
    "procedural": lambda: Procedural(),
    "real": lambda: RealImages(stamps(), split="all"),
    "mixture": lambda: Mixture({Parametric(): 1, Procedural(): 2, RealImages(stamps(), split="all"): 1}),
}


@pytest.fixture(params=KINDS)
def source(request):
    return KINDS[request.param]()


def frame(count, half, pixels, dtype=torch.float64):
    axis = (torch.arange(pixels, dtype=dtype) + 0.5) / pixels * 2 * half - half
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x.reshape(1, -1).expand(count, -1), y.reshape(1, -1).expand(count, -1), (2 * half / pixels) ** 2


SMOOTH = {
    **{kind: KINDS[kind] for kind in ("parametric", "bulge and disc", "real")},
    # Of the others the ellipse is that of the galaxy's plane, which moments do not tell.
    "procedural": lambda: Procedural(mix={"elliptical": 1, "lenticular": 1}),
    "mixture": lambda: Mixture({Parametric(): 1, RealImages(stamps(), split="all"): 1}),
}


@pytest.mark.parametrize("source", SMOOTH)
def test_flux_and_radius_are_as_wished(source):
    source = SMOOTH[source]()
    radius = torch.tensor([0.1, 0.2, 0.3, 0.5, 0.8, 1.3], dtype=torch.float64)
    light = source.draw(radius, seeded())
    unit_x, unit_y, area = frame(len(radius), 10, 640)
    image = light(unit_x * radius[:, None], unit_y * radius[:, None]) * area * radius[:, None] ** 2
    assert (image >= 0).all()
    # What is beyond the frame of a concentrated profile, and a cusp between its points.
    assert torch.allclose(image.sum(1), torch.ones_like(radius), atol=0.05)
    for one, bright in zip(radius, image):
        # A Sérsic's far wings would rule the moments: the ellipse is that of the inner light.
        inner = torch.where(torch.hypot(unit_x[0], unit_y[0]) < 3, bright, 0).reshape(640, 640).numpy()
        _, ellipse = half_light_ellipse(inner)
        within = float(bright[torch.from_numpy(ellipse.ravel() < 32**2)].sum())
        assert within == pytest.approx(0.5, abs=0.04)


def test_same_seed_same_sources(source):
    radius = torch.full((20,), 0.3)
    x, y = torch.randn(2, 20, 40, generator=seeded(3)) * 0.3
    first, again = source.draw(radius, seeded(7))(x, y), source.draw(radius, seeded(7))(x, y)
    assert torch.equal(first, again)
    assert not torch.allclose(first, source.draw(radius, seeded(8))(x, y), rtol=0.05)
    generator = seeded(7)
    assert torch.equal(first, source.draw(radius, generator)(x, y))
    assert not torch.allclose(first, source.draw(radius, generator)(x, y), rtol=0.05)


def test_a_galaxy_does_not_depend_on_the_others(source):
    radius = torch.full((16,), 0.3, dtype=torch.float64)
    x, y = torch.randn(2, 16, 40, generator=seeded(3), dtype=torch.float64) * 0.3
    changed_radius, changed_x = radius.clone(), x.clone()
    changed_radius[1:], changed_x[1:] = 0.5, 2 * x[1:]
    light = source.draw(radius, seeded(5))(x, y)
    assert torch.allclose(light[0], source.draw(changed_radius, seeded(5))(changed_x, y)[0])
    assert not torch.allclose(light[0], light[1], rtol=0.01)


def test_radius_magnifies(source):
    radius = torch.full((10,), 0.3, dtype=torch.float64)
    x, y = torch.randn(2, 10, 40, generator=seeded(3), dtype=torch.float64) * 0.3
    small, large = source.draw(radius, seeded(5)), source.draw(2 * radius, seeded(5))
    assert torch.allclose(small(x, y), 4 * large(2 * x, 2 * y), rtol=1e-6, atol=1e-9)


def test_gradients_flow_to_points(source):
    radius = torch.full((6,), 0.3, dtype=torch.float64)
    light = source.draw(radius, seeded(5))
    x, y = 0.2 * torch.randn(2, 6, 4, generator=seeded(3), dtype=torch.float64)
    # Between pixels only: at their centres an interpolated image has a kink.
    assert torch.autograd.gradcheck(light, (x.requires_grad_(), y.requires_grad_()), eps=1e-8, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_radius(source, dtype):
    light = source.draw(torch.full((8,), 0.3, dtype=dtype), seeded())
    assert light(torch.zeros(8, 2, dtype=dtype), torch.ones(8, 2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("radius", [torch.tensor([[0.3]]), torch.tensor([0.3, -1.0]), torch.tensor([float("nan")]),
                                    torch.tensor([1])])
def test_bad_radii(source, radius):
    with pytest.raises(ValueError, match="radii"):
        source.draw(radius, seeded())


def test_a_mixture_keeps_its_weights():
    thin, thick = Parametric(n=Fixed(0.5)), Parametric(n=Fixed(4.0))
    light = Mixture({thin: 1, thick: 3}).draw(torch.full((2000,), 1.0), seeded())
    far = light(torch.full((2000, 1), 6.0), torch.zeros(2000, 1)).squeeze(1)
    assert abs((far < 1e-6).double().mean() - 0.25) < 0.04


def test_real_galaxies_are_turned_and_mirrored():
    real = stamps(1)
    radius = torch.full((400,), float(real.radius[0]))
    light = RealImages(real, split="all").draw(radius, seeded())
    angles = torch.linspace(0, 2 * np.pi, 65)[:-1].expand(400, -1)
    ring = light(9 * angles.cos(), 9 * angles.sin())
    brightest = angles[0, ring[:, :32].argmax(1)]
    assert brightest.std() > 0.5
    # Trailing or leading: which way the arms' maximum turns as the radius grows tells the mirrored ones.
    straight = RealImages(real, split="all", turn=False).draw(radius[:2], seeded())
    outer = lambda light, r: light(r * angles[:2].cos(), r * angles[:2].sin())  # noqa: E731
    assert torch.equal(outer(straight, 9)[0], outer(straight, 9)[1])
    x, y, area = frame(2, 48, 96, torch.float32)
    image = straight(x, y)[0].reshape(96, 96) * area
    assert torch.allclose(image, torch.from_numpy(real.stamps[0]), atol=1e-7)


def test_mirroring_changes_the_handedness():
    real = stamps(1)
    light = RealImages(real, split="all").draw(torch.full((200,), float(real.radius[0])), seeded(2))
    angles = torch.linspace(0, 2 * np.pi, 129)[:-1].expand(200, -1)
    second = torch.exp(2j * angles)
    phases = [torch.angle((light(r * angles.cos(), r * angles.sin()) * second).sum(1)) for r in (7.0, 9.0)]
    winding = torch.sign(torch.sin(phases[1] - phases[0]))
    assert 0.35 < (winding > 0).double().mean() < 0.65


def test_splits_are_disjoint_whole_and_stable():
    ids = [str(number) for number in range(3000)]
    places = [split_of(id) for id in ids]
    shares = {name: places.count(name) / len(ids) for name in galaxies_module.SPLITS}
    assert shares == pytest.approx(galaxies_module.SPLITS, abs=0.025)
    # The hash of an id must never change: shipped weights were not shown these galaxies.
    assert [split_of(id) for id in ("101654", "101997", "42")] == ["validation", "validation", "train"]
    whole = stamps(60)
    parts = [set(RealImages(whole, split=name)._ids) for name in galaxies_module.SPLITS]
    assert set().union(*parts) == set(whole.ids) and sum(map(len, parts)) == 60


def test_images_of_one_galaxy_stay_together():
    doubled = stamps(30)
    doubled = GalaxyStamps(
        doubled.ids * 2, np.concatenate([doubled.stamps] * 2), np.concatenate([doubled.radius] * 2), {}
    )
    assert len(doubled.split("train")) % 2 == 0
    assert not set(doubled.split("train").ids) & set(doubled.split("test").ids)


def test_a_galaxy_is_found_among_neighbours_and_noise(rng):
    truth = profile(spiral=True)
    image = truth + profile(32, 20, radius=2, q=0.9) + 0.2 * profile(-38, -30, radius=3)
    stamp, radius = isolate(noisy(image, rng, 0.02, sky=3.0)[None], np.ones(1))
    assert stamp.shape == (1, 96, 96) and stamp.min() >= 0 and stamp.sum() == pytest.approx(1, abs=1e-5)
    assert radius == pytest.approx(half_light_ellipse(truth)[0], rel=0.05)
    alone = truth[12:-12, 12:-12] / truth.sum()
    assert np.abs(stamp[0] - alone).sum() < 0.12


def test_a_star_on_the_galaxy_is_replaced_by_what_lies_opposite(rng):
    truth = profile(radius=9)
    star = 0.15 * profile(12, 9, radius=1.2, q=1)
    stamp, _ = isolate(noisy(truth + star, rng, 0.01)[None], np.ones(1))
    without, _ = isolate(noisy(truth, rng, 0.01)[None], np.ones(1))
    left_in = np.abs((truth + star) / (truth + star).sum() - truth / truth.sum()).sum()
    assert np.abs(stamp - without).sum() < 0.25 * left_in


def test_noise_goes_and_the_edge_is_soft(rng):
    truth, sigma = profile()[12:-12, 12:-12], 0.1
    stamp, _ = isolate(noisy(profile(), rng, sigma)[None], np.ones(1))
    faint = (truth > 0.5 * sigma) & (truth < 5 * sigma)
    error = stamp[0] * truth.sum() - truth
    assert np.sqrt(np.mean(error[faint] ** 2)) < 0.5 * sigma
    assert stamp[0, :8].max() == 0
    steps = np.abs(np.diff(np.where(stamp[0] < 0.02 * stamp.max(), stamp[0], np.nan)))
    assert np.nanmax(steps) < 0.01 * stamp.max()


@pytest.mark.parametrize("image, reason", [
    (lambda rng: rng.normal(0, 1, (80, 80)), "no galaxy in the middle"),
    (lambda rng: noisy(profile(40, 40, radius=4), rng), "no galaxy in the middle"),
    (lambda rng: noisy(profile(radius=12, q=0.9, side=200)[84:116], rng, 0.005), "cut by the border"),
    (lambda rng: noisy(profile(), rng, 3.0), "signal-to-noise"),
    (lambda rng: noisy(profile(radius=8) + 1.5 * profile(20, 0, radius=7), rng), "blended"),
    (lambda rng: noisy(profile(side=8), rng), "too small"),
    (lambda rng: np.full((80, 80), np.nan), "without a value"),
    (lambda rng: np.zeros((80, 80)), "no galaxy in the middle"),
])
def test_what_gives_no_galaxy(rng, image, reason):
    with pytest.raises(Unusable, match=reason):
        isolate(image(rng)[None], np.ones(1))


def write_fits(path, data):
    from astropy.nddata import NDData

    write_image(NDData(data, meta={"PIXSCALE": 0.1}), path)


@pytest.fixture
def folder(tmp_path, rng):
    home = tmp_path / "galaxies"
    home.mkdir()
    for number in range(6):
        write_fits(home / f"galaxy{number}.fits", noisy(profile(angle=number, spiral=True), rng))
    return home


def test_a_folder_of_fits(folder, tmp_path, recwarn):
    found = read_galaxies(folder, progress=False, cache=tmp_path / "cache")
    assert found.ids == [f"galaxy{number}" for number in range(6)] and found.skipped == {}
    assert found.stamps.shape == (6, 96, 96) and found.stamps.dtype == np.float32
    assert np.allclose(found.stamps.sum(axis=(1, 2)), 1, atol=1e-5) and not recwarn
    assert found.radius == pytest.approx(half_light_ellipse(profile(spiral=True))[0], rel=0.05)


def test_what_cannot_be_used_is_counted_and_said(folder, tmp_path, rng):
    (folder / "broken.fits").write_bytes(b"SIMPLE  =                    T" + b"\0" * 1000)
    whole = (folder / "galaxy0.fits").read_bytes()
    (folder / "truncated.fits").write_bytes(whole[:len(whole) // 2])
    write_fits(folder / "noise.fits", rng.normal(0, 1, (60, 60)))
    with pytest.warns(SkippedGalaxiesWarning, match="3 of 9 images .* 1 no galaxy in the middle, 2 unreadable file"):
        found = read_galaxies(folder, progress=False, cache=tmp_path / "cache")
    assert len(found) == 6 and found.skipped == {"unreadable file": 2, "no galaxy in the middle": 1}
    with pytest.warns(SkippedGalaxiesWarning, match="3 of 9"):
        read_galaxies(folder, progress=False, cache=tmp_path / "cache")


def test_the_cache_is_kept_and_renewed(folder, tmp_path, monkeypatch, rng, caplog):
    cache = tmp_path / "cache"
    first = read_galaxies(folder, progress=False, cache=cache)
    with monkeypatch.context() as patched:
        patched.setattr(galaxies_module, "_made", lambda *args: pytest.fail("made again"))
        again = read_galaxies(folder, progress=False, cache=cache)
    assert again.ids == first.ids and np.array_equal(again.stamps, first.stamps)
    assert np.array_equal(again.radius, first.radius)
    write_fits(folder / "galaxy6.fits", noisy(profile(), rng))
    assert len(read_galaxies(folder, progress=False, cache=cache)) == 7
    for file in (cache / "galaxies").iterdir():
        file.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert len(read_galaxies(folder, progress=False, cache=cache)) == 7
    assert "made again" in caplog.text


def test_no_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(galaxies_module, "_write_cache", lambda file, galaxies: file and pytest.fail("written"))
    assert len(read_galaxies(folder, progress=False, cache=False)) == 6


def save_picture(path, linear, stretch=3.0):
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    total = linear.sum(axis=0)
    shown = linear * np.arcsinh(stretch * total) / (stretch * np.maximum(total, 1e-9))
    image.fromarray((255 * np.clip(shown, 0, 1)).round().astype(np.uint8).transpose(1, 2, 0)).save(path)


def test_pictures_and_their_stretch(tmp_path, rng):
    grey = noisy(profile(radius=9) / 3, rng, 0.004, sky=0.02)
    save_picture(tmp_path / "g1.png", np.stack([1.3 * grey, grey, 0.7 * grey]))
    found = read_galaxies(tmp_path, progress=False, cache=False)
    assert found.radius[0] == pytest.approx(half_light_ellipse(profile(radius=9))[0], rel=0.06)
    raw = read_galaxies(tmp_path, progress=False, cache=False, stretch=0)
    assert raw.radius[0] > 1.2 * found.radius[0]
    colour = read_galaxies(tmp_path, progress=False, cache=False, colour=True)
    assert colour.stamps.shape == (1, 3, 96, 96)
    assert colour.stamps.sum(axis=(2, 3))[0] == pytest.approx([1.3, 1, 0.7], rel=0.03)
    with pytest.raises(ValueError, match="one band"):
        RealImages(colour, split="all")


def test_a_file_that_is_no_catalogue(tmp_path):
    from astropy.io import fits

    path = tmp_path / "images.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((20, 20)))]).writeto(path)
    with pytest.raises(ValueError, match="images.fits is no GalSim catalogue.*name their folder"):
        read_galaxies(path, progress=False, cache=False)


def test_a_galsim_catalogue(tmp_path, rng):
    data = tmp_path / "images.fits"
    write_fits(data, noisy(profile(), rng))
    table = Table({"IDENT": [42], "MAG": [22.0], "BAND": ["F814W"], "WEIGHT": [1.0], "GAL_FILENAME": [data.name],
                   "PSF_FILENAME": ["none.fits"], "GAL_HDU": [1], "PSF_HDU": [0], "PIXEL_SCALE": [0.03],
                   "NOISE_MEAN": [0.0], "NOISE_VARIANCE": [0.05**2]})
    table.write(tmp_path / "catalogue.fits")
    for path in (tmp_path, tmp_path / "catalogue.fits"):
        found = read_galaxies(path, progress=False, cache=False)
        assert found.ids == ["42"]
        assert found.radius[0] == pytest.approx(half_light_ellipse(profile())[0], rel=0.05)


@pytest.fixture
def small_catalogue(tmp_path, rng):
    """Galaxies of magnitude 20 to 23 and redshift 0.2 to 0.8, the last one as wide as its PSF."""
    from astropy.io import fits

    y, x = np.mgrid[:41, :41] - 20
    psf = np.exp(-0.5 * (x**2 + y**2) / 2.5**2)
    point = np.zeros((SIDE, SIDE))
    point[39:80, 39:80] = 400 * psf / psf.sum()
    images = [noisy(image, rng) for image in (*(profile(radius=8) for _ in range(3)), point)]
    fits.HDUList([fits.PrimaryHDU(), *map(fits.ImageHDU, images)]).writeto(tmp_path / "images.fits")
    fits.HDUList([fits.PrimaryHDU(psf / psf.sum())]).writeto(tmp_path / "psf.fits")
    table = Table({
        "IDENT": [11, 12, 13, 14], "MAG": [20.0, 21.0, 23.0, 22.0], "BAND": ["F814W"] * 4, "WEIGHT": [1.0] * 4,
        "GAL_FILENAME": ["images.fits"] * 4, "PSF_FILENAME": ["psf.fits"] * 4, "GAL_HDU": [1, 2, 3, 4],
        "PSF_HDU": [0] * 4, "PIXEL_SCALE": [0.03] * 4, "NOISE_MEAN": [0.0] * 4, "NOISE_VARIANCE": [0.05**2] * 4,
    })
    table.write(tmp_path / "small.fits")
    return tmp_path / "small.fits"


class TestCuts:
    def test_each_is_counted(self, small_catalogue):
        Table({"IDENT": [12, 11, 14], "zphot": [0.8, 0.2, 0.5]}).write(small_catalogue.with_name("small_fits.fits"))
        assert read_galaxies(small_catalogue, progress=False, cache=False).ids == ["11", "12", "13", "14"]
        for cuts, left, skipped in (
            (Cuts(magnitude=(20.5, 22.5)), ["12", "14"], {"magnitude beyond the cut": 2}),
            (Cuts(redshift=(0.1, 0.6)), ["11", "14"], {"redshift beyond the cut": 1, "redshift unknown": 1}),
            (Cuts(resolved=1.3), ["11", "12", "13"], {"point source": 1}),
        ):
            with pytest.warns(SkippedGalaxiesWarning):
                found = read_galaxies(small_catalogue, progress=False, cache=False, cuts=cuts)
            assert (found.ids, found.skipped) == (left, skipped)

    def test_have_a_cache_of_their_own(self, small_catalogue, tmp_path):
        cache = tmp_path / "cache"
        assert len(read_galaxies(small_catalogue, progress=False, cache=cache)) == 4
        with pytest.warns(SkippedGalaxiesWarning):
            assert len(read_galaxies(small_catalogue, progress=False, cache=cache, cuts=Cuts(magnitude=(19, 21)))) == 2
        assert len(read_galaxies(small_catalogue, progress=False, cache=cache)) == 4

    def test_what_a_catalogue_does_not_know(self, small_catalogue):
        with pytest.raises(ValueError, match="zphot.*small.fits"):
            read_galaxies(small_catalogue, progress=False, cache=False, cuts=Cuts(redshift=(0, 1)))

    def test_pictures_are_kept(self, tmp_path, rng):
        write_fits(tmp_path / "one.fits", noisy(profile(), rng))
        found = read_galaxies(tmp_path, progress=False, cache=False, cuts=Cuts((18, 20), (0, 1), 1.2))
        assert found.ids == ["one"]

    def test_in_a_recipe(self):
        recipe = read_recipe("galaxies").changed({"data": {"cuts": {"magnitude": [18, 23.5], "resolved": 1.2}}})
        assert task("galaxies")(recipe, images=[Path("there")]).cuts == Cuts(magnitude=(18, 23.5), resolved=1.2)
        with pytest.raises(ValueError, match="'magnitud'.*magnitude"):
            task("galaxies")(recipe.changed({"data": {"cuts": {"magnitud": [1, 2]}}}), images=[Path("there")])

    @pytest.mark.parametrize("options", [
        {"magnitude": (3, 2)}, {"magnitude": 20}, {"redshift": (0, np.nan)}, {"resolved": 0}, {"resolved": "yes"},
    ])
    def test_bad_input(self, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            Cuts(**options)


def test_folders_that_give_nothing(tmp_path, rng):
    with pytest.raises(FileNotFoundError, match="no folder or catalogue"):
        read_galaxies(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no FITS, JPEG or PNG"):
        read_galaxies(tmp_path)
    write_fits(tmp_path / "noise.fits", rng.normal(0, 1, (60, 60)))
    with pytest.raises(ValueError, match="no galaxy in .* 1 no galaxy in the middle"):
        read_galaxies(tmp_path, progress=False, cache=False)
    with pytest.raises(ValueError, match="weights are three"):
        read_galaxies(tmp_path, weights=(1, 2), cache=False)


def test_sources_by_name():
    assert isinstance(sources("procedural", mix={"spiral": 1}), Procedural)
    with pytest.raises(ValueError, match="unknown kind of sources 'parametrc'; did you mean 'parametric'"):
        sources("parametrc")
    with pytest.raises(ValueError, match="have no option mixx; known are mix"):
        sources("procedural", mixx={})
    with pytest.raises(ValueError, match="unknown kinds of galaxies"):
        sources("procedural", mix={"quasar": 1})
    with pytest.raises(ValueError, match="unknown kind of sources"):
        Mixture({"quasar": 1})
    with pytest.raises(ValueError, match="weights of a mixture"):
        Mixture({})
    with pytest.raises(TypeError, match="Sources or their names"):
        Mixture({3: 1})
    with pytest.raises(ValueError, match="unknown split"):
        RealImages(stamps(3), split="trian")
    with pytest.raises(ValueError, match="none of 1 galaxies"):
        RealImages(stamps(1), split="test")


def test_real_catalogue_and_pictures(shared_data, tmp_path):
    bright = shared_data / "cosmos_bright"
    pictures = sorted((shared_data / "galaxy_zoo" / "spirals").glob("*.jpg"))[:6]
    if not bright.is_dir() or not pictures:
        pytest.skip("needs cosmos_bright and galaxy_zoo")
    with pytest.warns(SkippedGalaxiesWarning, match="cut by the border"):
        hubble = read_galaxies(bright, progress=False, cache=False)
    assert len(hubble) >= 8
    for picture in pictures:
        (tmp_path / picture.name).write_bytes(picture.read_bytes())
    sloan = read_galaxies(tmp_path, progress=False, cache=False)
    for found in (hubble, sloan):
        assert (found.stamps >= 0).all() and np.allclose(found.stamps.sum(axis=(1, 2)), 1, atol=1e-5)
        # Cut to the footprint: nothing in the corners, the galaxy in the middle.
        assert found.stamps[:, :6, :6].max() == 0
        y, x = np.indices((96, 96)) - 47.5
        assert np.abs((found.stamps * x).sum((1, 2))).max() < 0.5
        assert np.abs((found.stamps * y).sum((1, 2))).max() < 0.5

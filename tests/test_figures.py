import sys
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import NDData, VarianceUncertainty
from astropy.table import QTable
from astropy.wcs import WCS

from lensdeblend.images import on_grid
from lensdeblend.results import Deblending, Generation, Reconstruction, Simulation, SuperResolution, panels
from lensdeblend.scenes import SIE, Observation, Scene, Sersic

SCALE = 0.1
SIZE = 32
OFFSET = (0.3, -0.2)


def tangent_wcs(rotation):
    """East is left and north up, turned counter-clockwise by ``rotation``."""
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150, 2]
    wcs.wcs.crpix = [(SIZE + 1) / 2] * 2
    wcs.wcs.cd = SCALE / 3600 * np.array([[-cos, -sin], [-sin, cos]])
    return wcs


def circle(radius, centre=(0.0, 0.0), n=100):
    angle = np.linspace(0, 2 * np.pi, n)
    return radius * np.cos(angle) + centre[0], radius * np.sin(angle) + centre[1]


def make_image(wcs=None, size=SIZE):
    rng = np.random.default_rng(0)
    y, x = (np.indices((size, size)) - (size - 1) / 2) * SCALE
    model = 20 * np.exp(-0.5 * ((np.hypot(x, y) - 0.8) / 0.15) ** 2)
    mask = np.zeros(model.shape, dtype=bool)
    mask[:3, -5:] = True
    data = model + rng.normal(size=model.shape)
    data[mask] = 1e6
    meta = {} if wcs else {"PIXSCALE": SCALE}
    image = NDData(
        data, mask=mask, uncertainty=VarianceUncertainty(np.ones_like(data)), unit=u.nJy, wcs=wcs, meta=meta,
        psf=np.ones((3, 3)) / 9,
    )
    return image, NDData(model, unit=u.nJy, wcs=wcs, meta=dict(meta))


def make_reconstruction(wcs=None, size=SIZE, **changes):
    image, model = make_image(wcs, size)
    y, x = (np.indices((40, 40)) - 19.5) * 0.02
    source = on_grid(image, np.exp(-np.hypot(x, y) / 0.1), pixel_scale=0.02 * u.arcsec, offset=OFFSET * u.arcsec)
    curves = QTable(names=["curve", "x", "y", "source_x", "source_y"], dtype=[int] + 4 * [float])
    for number, (critical, caustic) in enumerate([(0.8, 0.1), (0.3, 0.6)]):
        for row in zip(*circle(critical), *circle(caustic, OFFSET)):
            curves.add_row((number, *row))
    parameters = QTable(
        {"theta_E": [0.8] * u.arcsec, "theta_E_err": [0.0123] * u.arcsec, "gamma": [2.0], "gamma_err": [np.nan]}
    )
    fields = dict(
        source=source, unlensed=model, parameters=parameters, covariance=None, samples=None, model=model,
        residual=NDData(image.data - model.data, mask=image.mask, wcs=wcs, meta=dict(image.meta)), lens_light=None,
        chi2=1.25, curves=curves, image=image,
    )
    return Reconstruction(**fields | changes)


def panel(figure, title):
    matches = [axes for axes in figure.axes if axes.get_title().startswith(title)]
    assert len(matches) == 1, [axes.get_title() for axes in figure.axes]
    return matches[0]


def drawn(axes):
    return axes.images[0].get_array()


@pytest.fixture(params=[None, 0, 130], ids=["no WCS", "north up", "turned"])
def wcs(request):
    return None if request.param is None else tangent_wcs(request.param)


def test_pixels_lie_where_the_convention_says(wcs):
    axes = panel(make_reconstruction(wcs).plot(), "data")
    half = SIZE * SCALE / 2
    assert axes.images[0].get_extent() == pytest.approx([-half, half, -half, half])
    assert axes.images[0].origin == "lower"
    assert axes.get_xlim() == pytest.approx((-half, half))


def test_curves_lie_on_the_ring_and_around_the_source(wcs):
    figure = make_reconstruction(wcs).plot()
    critical = [line for line in panel(figure, "model").lines if len(line.get_xdata()) == 100]
    assert [np.hypot(*line.get_data()).mean() for line in critical] == pytest.approx([0.8, 0.3])
    caustics = [line for line in panel(figure, "source").lines if len(line.get_xdata()) == 100]
    radii = [np.hypot(line.get_xdata() - OFFSET[0], line.get_ydata() - OFFSET[1]).mean() for line in caustics]
    assert radii == pytest.approx([0.1, 0.6])


def test_source_lies_on_its_place_behind_the_image(wcs):
    left, right, bottom, top = panel(make_reconstruction(wcs).plot(), "source").images[0].get_extent()
    assert (left, right) == pytest.approx((OFFSET[0] - 0.4, OFFSET[0] + 0.4), abs=1e-6)
    assert (bottom, top) == pytest.approx((OFFSET[1] - 0.4, OFFSET[1] + 0.4), abs=1e-6)


def test_source_panel_holds_every_caustic():
    axes = panel(make_reconstruction().plot(), "source")
    for line in axes.lines:
        x, y = line.get_data()
        assert axes.get_xlim()[0] <= x.min() and x.max() <= axes.get_xlim()[1]
        assert axes.get_ylim()[0] <= y.min() and y.max() <= axes.get_ylim()[1]


def test_a_large_frame_is_cut_to_the_lens():
    axes = panel(make_reconstruction(size=100).plot(), "data")
    assert axes.get_xlim() == pytest.approx((-2, 2), abs=0.01)
    assert axes.get_ylim() == pytest.approx((-2, 2), abs=0.01)


def test_what_was_not_fitted_is_left_out_of_view():
    result = make_reconstruction(curves=None)
    y, x = np.indices((SIZE, SIZE))
    result.image.mask[:] = np.hypot(x - 13, y - 17) > 6
    axes = panel(result.plot(), "data")
    assert axes.get_xlim() == pytest.approx(((13 - 15.5 - 7.6) * SCALE, (13 - 15.5 + 7.6) * SCALE))
    assert axes.get_ylim() == pytest.approx(((17 - 15.5 - 7.6) * SCALE, (17 - 15.5 + 7.6) * SCALE))


def test_masked_pixels_are_grey_and_do_not_set_the_scale():
    result = make_reconstruction()
    axes = panel(result.plot(), "data")
    assert np.array_equal(drawn(axes).mask, result.image.mask)
    assert axes.images[0].norm.vmax < 30
    assert axes.images[0].cmap.get_bad()[:3] == pytest.approx([0.62] * 3)
    assert panel(result.plot(), "residual").images[0].get_array().mask.sum() == 15


def test_data_and_model_share_one_stretch():
    figure = make_reconstruction().plot()
    assert panel(figure, "data").images[0].norm is panel(figure, "model").images[0].norm


def test_residual_is_in_sigma_within_five():
    axes = panel(make_reconstruction().plot(), "residual")
    assert axes.images[0].get_clim() == (-5, 5)
    assert axes.get_title() == r"residual, $\chi^2_\nu = 1.250$"


def test_lens_light_is_shown_and_taken_off():
    light = NDData(np.full((SIZE, SIZE), 3.0), unit=u.nJy, meta={"PIXSCALE": SCALE})
    result = make_reconstruction(lens_light=light)
    figure = result.plot()
    difference = drawn(panel(figure, "data $-$ lens light"))
    assert difference.compressed() == pytest.approx(result.image.data[~result.image.mask] - 3)
    assert (drawn(panel(figure, "lens light")) == 3).all()


def test_title_has_parameters_with_errors_and_flags():
    title = make_reconstruction(flags=("not converged",)).plot().get_suptitle()
    assert r'\theta_{\rm E} = 0.800 \pm 0.012$"' in title
    assert r"\gamma = 2$" in title
    assert "flags: not converged" in title


@pytest.mark.parametrize(("rotation", "north", "east"), [(0, (0, 1), (-1, 0)), (90, (-1, 0), (0, -1))])
def test_compass_points_to_north_and_east(rotation, north, east):
    axes = panel(make_reconstruction(tangent_wcs(rotation)).plot(), "data")
    arrows = [text for text in axes.texts if text.get_text() == "" and hasattr(text, "arrow_patch")]
    steps = np.array([np.array(arrow.xy) - arrow.xyann for arrow in arrows])
    directions = steps / np.hypot(*steps.T)[:, np.newaxis]
    assert directions == pytest.approx(np.array([north, east]), abs=1e-3)
    assert {"N", "E"} <= {text.get_text() for text in axes.texts}


def test_no_compass_without_a_sky():
    axes = panel(make_reconstruction().plot(), "data")
    assert not {"N", "E"} & {text.get_text() for text in axes.texts}


def test_scale_bar_is_as_long_as_it_says():
    axes = panel(make_reconstruction().plot(), "data")
    (label,) = [text.get_text() for text in axes.texts if text.get_text().endswith('"')]
    (bar,) = axes.lines
    assert np.ptp(bar.get_xdata()) == pytest.approx(float(label[:-1]))


def test_curves_and_image_may_be_missing():
    figure = make_reconstruction(curves=None, image=None).plot()
    titles = [axes.get_title().split(",")[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["model", "residual", "source"]


def test_a_lens_without_critical_curves_can_be_drawn():
    figure = make_reconstruction(curves=QTable({"curve": np.zeros(0, dtype=int)})).plot()
    assert panel(figure, "model").get_title() == "model"


def test_parameters_may_be_dimensionless_quantities():
    parameters = QTable({"gamma": [2.1] * u.one, "gamma_err": [0.05] * u.one})
    assert r"\gamma = 2.100 \pm 0.050" in make_reconstruction(parameters=parameters).plot().get_suptitle()


def test_bands_make_rows():
    result = make_reconstruction()
    both = {
        name: {"g": getattr(result, name), "r": getattr(result, name)}
        for name in ("image", "model", "residual", "source", "unlensed")
    }
    figure = replace(result, **both).plot()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 8
    assert {"data, g", "data, r"} <= set(titles)


@pytest.mark.parametrize("scale", [1e-19, 1, 1e8])
def test_ticks_are_round_and_apart(scale):
    rng = np.random.default_rng(1)
    image = NDData(scale * (rng.normal(size=(32, 32)) + 1000 * np.eye(32)))
    norm = panels.stretch(image)
    ticks = panels._ticks(norm)
    assert 0 in ticks
    assert len(ticks) >= 4
    assert np.diff(norm(np.array(ticks))).min() >= 0.11
    leading = [f"{abs(tick):e}"[0] for tick in ticks if tick]
    assert set(leading) <= {"1", "2", "5"}


def test_an_empty_image_can_be_drawn():
    blank = NDData(np.zeros((16, 16)), meta={"PIXSCALE": 0.1})
    figure = Generation(images=[blank], catalog=QTable()).plot()
    assert figure.get_suptitle() == "1 galaxy"


def test_simulation_of_a_lens_shows_source_and_unlensed():
    result = make_reconstruction()
    scene = Scene(mass=[SIE(theta_E=0.8 * u.arcsec)], sources=[Sersic(flux=1, radius=0.1 * u.arcsec)])
    simulation = Simulation(
        image=result.image, noiseless=result.model, scene=scene, sources=[result.model], source=result.source,
        unlensed=result.unlensed, observation=Observation(pixel_scale=SCALE * u.arcsec, shape=(SIZE, SIZE)),
    )
    titles = [axes.get_title() for axes in simulation.plot().axes if axes.get_title()]
    assert titles == ["image", "without noise", "unlensed", "source"]


def test_deblending_numbers_the_galaxies_where_they_are():
    image, model = make_image()
    catalog = QTable({"id": [1, 2], "x": [10.0, 20.0], "y": [12.0, 15.5]})
    result = Deblending(
        sources=[model, model], shares=[image, image], catalog=catalog, segmentation=None, model=model, chi2=1.0,
        image=image, residual=NDData(image.data - model.data, mask=image.mask, meta=dict(image.meta)),
    )
    axes = panel(result.plot(), "data")
    marks = [text for text in axes.texts if text.get_text() in "12"]
    assert [text.get_text() for text in marks] == ["1", "2"]
    assert marks[0].xy == pytest.approx(((10 - 15.5) * SCALE, (12 - 15.5) * SCALE))
    assert marks[1].xy == pytest.approx((4.5 * SCALE, 0))


def test_generation_shows_no_more_than_fits():
    _, model = make_image()
    figure = Generation(images=[model] * 40, catalog=QTable()).plot()
    assert sum(bool(axes.images) for axes in figure.axes) == 36
    assert figure.get_suptitle() == "36 of 40 galaxies"


def test_superresolution_draws_the_maps_that_it_has():
    _, model = make_image()
    component = NDData(np.full((SIZE, SIZE), 3.0))
    other = NDData(np.full((SIZE, SIZE), 4.0))
    result = SuperResolution(
        image=model, intrinsic=model, source=None, deflection=(component, other), convergence=None, parameters=None,
        chi2=1.0, substructure=other,
    )
    figure = result.plot()
    assert (drawn(panel(figure, "deflection")) == 5).all()
    assert (drawn(panel(figure, "substructure")) == 4).all()
    assert not [axes for axes in figure.axes if axes.get_title() in ("source", "convergence", "magnification")]


def test_superresolution_of_bands_draws_the_lens_once_and_its_flags():
    _, model = make_image()
    magnification = NDData(np.full((SIZE, SIZE), -4.0))
    figure = SuperResolution(
        image={"g": model, "i": model}, intrinsic=None, source=None, deflection=None, convergence=None,
        parameters=None, chi2=1.0, flags=("poor fit",), magnification=magnification,
    ).plot()
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["through the PSF, g", "magnification", "through the PSF, i"]
    assert (drawn(panel(figure, "magnification")) == 4).all()
    assert figure.get_suptitle().endswith("flags: poor fit")


def test_many_flags_stay_within_the_figure():
    _, model = make_image()
    flags = tuple(f"out_of_domain: property {number} is 0.168 arcsec, trained on 0.08 to 0.08" for number in range(4))
    figure = SuperResolution(
        image=model, intrinsic=model, source=None, deflection=None, convergence=None, parameters=None, chi2=1.0,
        flags=flags,
    ).plot()
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert all(flag in " ".join(figure.get_suptitle().split()) for flag in flags)
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_file_is_written_whole(tmp_path, suffix):
    path = tmp_path / f"lens.{suffix}"
    make_reconstruction().plot(path)
    assert path.stat().st_size > 10_000
    assert list(tmp_path.iterdir()) == [path]


def test_existing_file_is_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "lens.png"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        make_reconstruction().plot(path)
    assert path.read_text() == "precious"
    make_reconstruction().plot(path, overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(self, path, **options):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        make_reconstruction().plot(tmp_path / "lens.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("lens", ValueError, "suffix must name a format"),
        ("lens.fits", ValueError, "matplotlib knows"),
        ("missing/lens.png", FileNotFoundError, "there is no folder"),
    ],
)
def test_bad_path_is_named(tmp_path, name, error, message):
    with pytest.raises(error, match=message):
        make_reconstruction().plot(tmp_path / name)


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "lensdeblend\[plot\]"'):
        make_reconstruction().plot()


def test_pyplot_is_left_alone():
    before = "matplotlib.pyplot" in sys.modules
    figure = make_reconstruction().plot()
    if before:
        from matplotlib import pyplot

        assert figure not in [manager.canvas.figure for manager in pyplot._pylab_helpers.Gcf.get_all_fig_managers()]
    else:
        assert "matplotlib.pyplot" not in sys.modules

"""The command line: what it writes and prints, its errors and exit statuses."""

import json
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.units import Quantity
from fake_packages import install, packages, toys  # noqa: F401
from toy_methods import ToyReconstructor, ToySimulator

from lensdeblend import simulate
from lensdeblend.cli import main
from lensdeblend.cli.options import parse_options
from lensdeblend.results import Deblending, Generation, Reconstruction, Simulation, SuperResolution
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic
from lensdeblend.scenes.populations import population
from lensdeblend.simulators.sampling import observed

BLEND = Scene(sources=[Sersic(50.0, 0.3 * u.arcsec), Sersic(20.0, 0.2 * u.arcsec, center_x=0.6 * u.arcsec)])
OBSERVATION = Observation(0.1 * u.arcsec, (24, 28), GaussianPSF(0.2 * u.arcsec), background_rms=0.1)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, toys):  # noqa: F811
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    BLEND.write("blend.yaml")
    OBSERVATION.write("observation.yaml")
    return folder


@pytest.fixture
def images(here):
    args = ["simulate", "blend.yaml", "--observation", "observation.yaml", "--method", "toy"]
    for number in (1, 2):
        assert main([*args, "--seed", str(number), "-o", f"image{number}.fits"]) == 0
    return ["image1.fits", "image2.fits"]


def fails(capsys, args, status=2):
    """Run, and return the one line on stderr."""
    capsys.readouterr()
    try:
        code = main(args)
    except SystemExit as stop:
        code = stop.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == status, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("lensdeblend: error: ")
    return lines[0]


def test_methods_are_listed(capsys):
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert "lenstronomy" in printed and "2018PDU....22..189B" in printed
    assert main(["methods", "reconstructor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"reconstructor"}
    toy, = (row for row in rows if row["name"] == "toy")
    assert toy == {
        "name": "toy", "kind": "reconstructor", "distribution": "toys", "summary": "One ring for all", "requires": [],
        "reference": "", "available": True,
    }


def test_plugins_are_listed_with_what_is_wrong(capsys, packages):  # noqa: F811
    install(packages, "broken", entry_point="broken_cli", modules={"broken_cli": "raise RuntimeError('no luck')"})
    assert main(["plugins", "--json"]) == 0
    captured = capsys.readouterr()
    rows = {row["distribution"]: row for row in json.loads(captured.out)}
    assert (rows["broken"]["status"], rows["broken"]["message"]) == ("failed", "RuntimeError: no luck")
    assert rows["toys"]["status"] == "loaded"
    assert captured.err == ""
    assert main(["plugins"]) == 0
    assert "no luck" in capsys.readouterr().out


def test_a_broken_plugin_is_one_line_on_stderr(capsys, packages):  # noqa: F811
    install(packages, "broken", entry_point="broken_line", modules={"broken_line": "raise RuntimeError('no luck')"})
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["methods"]) == 0
    message = "the plug-in 'broken' of broken is left out: RuntimeError: no luck"
    assert capsys.readouterr().err == f"lensdeblend: warning: {message}\n"


def test_a_scene_is_simulated(capsys):
    args = ["simulate", "blend.yaml", "--observation", "observation.yaml", "--method", "toy", "--seed", "1"]
    assert main([*args, "-o", "out.fits", "--set", "stretch=2"]) == 0
    result = Simulation.read("out.fits")
    assert result.image.data.shape == (24, 28)
    assert result.meta["options"] == {"stretch": 2.0}
    assert main([*args, "-o", "again.fits", "--set", "stretch=2"]) == 0
    assert np.array_equal(Simulation.read("again.fits").image.data, result.image.data)


def test_several_scenes_go_into_a_folder():
    BLEND.write("other.yaml")
    assert main(["simulate", "blend.yaml", "other.yaml", "--observation", "observation.yaml", "-o", "out"]) == 0
    first, second = (Simulation.read(f"out/{name}_simulation.fits") for name in ("blend", "other"))
    assert not np.array_equal(first.image.data, second.image.data)


def test_a_population_is_simulated():
    args = ["simulate", "--population", "blends", "--n", "2", "--seed", "3", "--method", "toy"]
    assert main([*args, "-o", "one"]) == 0
    assert main([*args, "-o", "two"]) == 0
    names = sorted(path.name for path in Path("one").iterdir())
    assert names == ["blends_1_simulation.fits", "blends_2_simulation.fits"]
    first, second = (Simulation.read(Path("one", name)) for name in names)
    assert repr(first.scene) != repr(second.scene)
    assert np.array_equal(first.image.data, Simulation.read(Path("two", names[0])).image.data)


@pytest.fixture
def together(monkeypatch):
    """How many scenes the toy was handed at a time."""
    counts, alone = [], ToySimulator.simulate_batch

    def batch(self, scenes, observation, rng):
        counts.append(len(scenes))
        return alone(self, scenes, observation, rng)

    monkeypatch.setattr(ToySimulator, "simulate_batch", batch)
    return counts


def test_a_population_is_simulated_in_blocks(together, monkeypatch):
    written = {}
    monkeypatch.setattr(Simulation, "write", lambda self, path, overwrite=False: written.update({str(path): self}))
    args = ["--n", "130", "--seed", "3", "--method", "toy", "--observation", "observation.yaml"]
    assert main(["simulate", "--population", "blends", *args]) == 0
    assert together == [64, 64, 2]
    assert list(written) == [f"blends_{number:03d}_simulation.fits" for number in range(1, 131)]
    together.clear()
    blends = replace(population("blends"), observation=OBSERVATION)
    for result, rng in zip(written.values(), np.random.default_rng(3).spawn(130)):
        scene = blends.draw(rng)
        alone = observed(simulate(scene, blends.observation, method=ToySimulator(), seed=8), blends, rng)
        assert repr(result.scene) == repr(scene)
        assert np.array_equal(result.image.data, alone.image.data)
        assert np.array_equal(result.noiseless.data, alone.noiseless.data)


def test_large_images_of_a_population_are_simulated_in_smaller_blocks(together):
    Observation(0.1 * u.arcsec, (400, 500), GaussianPSF(0.2 * u.arcsec), background_rms=0.1).write("large.yaml")
    args = ["simulate", "--population", "blends", "--n", "6", "--observation", "large.yaml", "--method", "toy"]
    assert main([*args, "-o", "out"]) == 0
    assert together == [5, 1]


def test_one_scene_that_fails_does_not_take_its_block_along(capsys, monkeypatch):
    alone, seen = ToySimulator.simulate, []

    def third_fails(self, scene, observation, rng):
        if repr(scene) not in seen:
            seen.append(repr(scene))
        if seen.index(repr(scene)) == 2:
            raise ValueError("too faint for a toy")
        return alone(self, scene, observation, rng)

    monkeypatch.setattr(ToySimulator, "simulate", third_fails)
    capsys.readouterr()
    assert main(["simulate", "--population", "blends", "--n", "4", "--seed", "3", "--method", "toy", "-o", "out"]) == 1
    assert "blends_3: too faint for a toy" in capsys.readouterr().err
    assert sorted(path.name[:8] for path in Path("out").iterdir()) == ["blends_1", "blends_2", "blends_4"]


def test_a_preset_gives_the_observation():
    args = ["simulate", "blend.yaml", "--observation", "euclid-vis", "--shape", "30", "32", "-o", "out.fits"]
    assert main(args) == 0
    assert Simulation.read("out.fits").image.data.shape == (30, 32)


def test_simulate_says_what_it_needs(capsys):
    assert "give either scene files or --population" in fails(capsys, ["simulate"])
    assert "--observation is needed" in fails(capsys, ["simulate", "blend.yaml"])
    assert "unknown population 'bland'; did you mean 'blends'?" in fails(capsys, ["simulate", "--population", "bland"])
    args = ["simulate", "--population", "blends", "--n", "2", "-o", "out", "--plot", "one.png"]
    assert "--plot one.png is one file, but there are 2 inputs" in fails(capsys, args)
    line = fails(capsys, ["simulate", "nowhere.yaml", "--observation", "observation.yaml"], 1)
    assert "nowhere.yaml" in line


def test_an_image_is_reconstructed(capsys, images):
    args = ["reconstruct", images[0], "--method", "toy", "--seed", "1", "--set", "theta_E=1.5", "--plot", "out.png"]
    capsys.readouterr()
    assert main([*args, "-o", "out.fits"]) == 0
    printed = capsys.readouterr().out
    assert "theta_E" in printed and "1.50" in printed and "chi-square" in printed
    result = Reconstruction.read("out.fits")
    assert result.parameters["theta_E"][0] == 1.5 * u.arcsec
    assert result.meta["options"]["theta_E"] == 1.5
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


def test_several_images_go_into_a_folder(images):
    assert main(["reconstruct", *images, "--method", "toy", "-o", "out", "--plot", "pictures"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "image1_reconstruction.fits", "image2_reconstruction.fits"
    ]
    assert len(list(Path("pictures").glob("*.png"))) == 2


def test_planes_are_named_as_in_read_image(images):
    data = Simulation.read(images[0]).image
    fits.writeto("plain.fits", data.data)
    fits.writeto("noise.fits", np.full(data.data.shape, 0.2))
    fits.writeto("psf.fits", data.psf)
    args = ["reconstruct", "plain.fits", "--method", "toy", "--noise", "noise.fits", "--psf", "psf.fits"]
    assert main([*args, "--pixel-scale", "0.1", "--unit", "nJy", "--cutout", "12", "11", "15"]) == 0
    result = Reconstruction.read("plain_reconstruction.fits")
    assert result.image.data.shape == (15, 15)
    assert np.allclose(result.image.data, data.data[4:19, 5:20])
    assert result.model.unit == "nJy"
    assert np.allclose(result.image.uncertainty.array, 0.04)


def test_one_bad_input_does_not_stop_the_others(capsys, images):
    Path("bad.fits").write_bytes(b"nothing of the kind")
    args = ["reconstruct", images[0], "bad.fits", "missing.fits", images[1], "--method", "toy", "-o", "out"]
    assert main(args) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "image/s" not in line]
    assert [line.partition(": ")[0] for line in errors] == ["lensdeblend"] * 3
    assert "bad.fits" in errors[0] and "missing.fits" in errors[1] and "2 of 4 inputs failed" in errors[2]
    assert len(list(Path("out").iterdir())) == 2


def test_existing_files_are_kept(capsys, images):
    args = ["reconstruct", images[0], "--method", "toy", "-o", "out.fits"]
    assert main(args) == 0
    before = Path("out.fits").read_bytes()
    assert "out.fits exists; add --overwrite" in fails(capsys, args)
    assert Path("out.fits").read_bytes() == before
    assert main([*args, "--overwrite"]) == 0


def test_an_output_that_cannot_be_written_is_refused_before_any_work(capsys, images, monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError("worked in vain")

    monkeypatch.setattr("lensdeblend.verbs.reconstruct", work)
    Path("file").write_text("not a folder")
    message = fails(capsys, ["reconstruct", images[0], "--method", "toy", "-o", "file/result.fits"])
    assert "cannot write into file" in message and "choose another place with -o" in message


def test_an_input_is_never_replaced(capsys, images):
    before = Path(images[0]).read_bytes()
    args = ["reconstruct", images[0], "--method", "toy", "--overwrite"]
    assert "is an input and would be replaced" in fails(capsys, [*args, "-o", f"../here/{images[0]}"])
    assert "is an input and would be replaced" in fails(capsys, [*args, "--plot", images[0]])
    Path("noise.fits").write_bytes(before)
    planes = ["--noise", "noise.fits[VAR]", "-o", "noise.fits"]
    assert "is an input and would be replaced" in fails(capsys, [*args, *planes])
    assert "result and picture would both be written" in fails(capsys, [*args, "-o", "x.png", "--plot", "x.png"])
    assert Path(images[0]).read_bytes() == before


def test_a_damaged_header_is_one_error(capsys, images):
    Path("short.fits").write_bytes(Path(images[0]).read_bytes()[:1000])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        args = ["reconstruct", "short.fits", "--method", "toy"]
        assert "short.fits is truncated" in fails(capsys, args, 1)


def test_a_cutout_of_part_of_a_pixel_is_refused(capsys, images):
    args = ["reconstruct", images[0], "--method", "toy", "--cutout", "12", "11", "15.5"]
    assert "whole pixel" in fails(capsys, args, 1)


def test_the_same_name_twice_is_refused(capsys, images):
    Path("sub").mkdir()
    Path("sub", images[0]).write_bytes(Path(images[0]).read_bytes())
    line = fails(capsys, ["reconstruct", images[0], f"sub/{images[0]}", "--method", "toy", "-o", "out"])
    assert "two inputs would both be written to" in line


def test_output_that_cannot_be_written(capsys, images):
    Path("file").write_text("")
    line = fails(capsys, ["reconstruct", *images, "--method", "toy", "-o", "file"])
    assert "is a file, but there are 2 inputs: name a folder" in line
    assert "file" in fails(capsys, ["reconstruct", images[0], "--method", "toy", "-o", "file/out.fits"])
    line = fails(capsys, ["reconstruct", images[0], "--method", "toy", "-o", "one.fits", "--plot", "one.jpgg"])
    assert "one.jpgg: the suffix must name a format of figures" in line
    assert not Path("one.fits").exists()
    line = fails(capsys, ["reconstruct", *images, "--method", "toy", "--plot", "one.png"])
    assert "--plot one.png is one file" in line


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "the following arguments are required: SUBCOMMAND"),
        (["unlens"], "invalid choice: 'unlens'"),
        (["reconstruct"], "required: IMAGE.fits"),
        (["reconstruct", "a.fits", "--method", "tox"], "unknown reconstructor 'tox'; did you mean 'toy'?"),
        (["reconstruct", "a.fits", "--method", "toy", "--set", "thetaE=1"], "no option 'thetaE'; its options are"),
        (["reconstruct", "a.fits", "--method", "toy", "--set", "theta_E=wide"], "theta_E must be a number"),
        (["reconstruct", "a.fits", "--method", "toy", "--set", "theta_E"], "--set takes option=value"),
        (["reconstruct", "a.fits", "--seed", "one"], "argument --seed: invalid int value"),
        (["superresolve", "a.fits", "--method", "forwrad"], "unknown superresolver"),
        (["generate", "--method", "toy", "--condition", "flux"], "--condition takes name=value"),
        (["generate", "--method", "toy", "--condition", "flux=bright"], "'bright' is no number"),
        (["generate", "--method", "toy", "-n", "0"], "n must be at least 1"),
    ],
)
def test_bad_usage_is_told_in_one_line(capsys, args, message):
    assert message in fails(capsys, args)


def test_debug_shows_the_exception():
    with pytest.raises(ValueError, match="unknown reconstructor"):
        main(["reconstruct", "a.fits", "--method", "tox", "--debug"])
    with pytest.raises(FileNotFoundError):
        main(["reconstruct", "a.fits", "--method", "toy", "--debug"])


@pytest.mark.parametrize("verb", ["deblend", "superresolve"])
def test_a_kind_without_such_a_method_says_so(capsys, verb):
    assert "'nonsense'" in fails(capsys, [verb, "a.fits", "--method", "nonsense"])


def test_galaxies_are_taken_apart(capsys, images):
    Path("where.csv").write_text("x,y\n13.5,11.5\n19.5,11.5\n")
    args = ["deblend", images[0], "--method", "toy", "--positions", "where.csv", "-o", "out.fits"]
    capsys.readouterr()
    assert main(args) == 0
    assert "2 galaxies" in capsys.readouterr().out
    result = Deblending.read("out.fits")
    assert len(result.sources) == 2 and np.allclose(result.catalog["x"], [13.5, 19.5])
    Path("where.csv").write_text("a,b\n1,2\n")
    assert "must have the columns x, y or ra, dec; it has a, b" in fails(capsys, [*args, "--overwrite"])


def test_galaxies_are_generated(capsys):
    args = ["generate", "--method", "toy", "-n", "2", "--condition", "flux=3", "--condition", "radius=0.2arcsec"]
    assert main([*args, "--seed", "1"]) == 0
    result = Generation.read("galaxies.fits")
    assert np.allclose([image.data.sum() for image in result.images], 3)


def test_a_finer_image_is_made(images):
    assert main(["superresolve", images[0], "--method", "toy", "--factor", "3"]) == 0
    assert SuperResolution.read("image1_superresolution.fits").image.data.shape == (72, 84)


def test_a_result_is_held_against_the_truth(capsys, images):
    lens = Scene(mass=[EPL(1.2 * u.arcsec)], sources=[Sersic(9.0, 0.2 * u.arcsec)])
    lens.write("lens.yaml")
    assert main(["simulate", "lens.yaml", "--observation", "observation.yaml", "-o", "lens.fits", "--seed", "1"]) == 0
    assert main(["reconstruct", "lens.fits", "--method", "toy", "-o", "result.fits", "--seed", "1"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "result.fits", "lens.fits", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    theta, = (row for row in rows if row.get("parameter") == "theta_E")
    assert (theta["truth"], theta["result"], theta["unit"]) == (1.2, 1.0, "arcsec")
    assert theta["sigma"] == pytest.approx(-2)
    model, = (row for row in rows if row.get("image") == "model")
    assert 10 < model["psnr"] < 100
    assert main(["evaluate", "result.fits", "lens.fits"]) == 0
    assert "truth" in capsys.readouterr().out
    assert "the truth has no lens" in fails(capsys, ["evaluate", "result.fits", images[0]])
    assert "cannot be evaluated" in fails(capsys, ["evaluate", "lens.fits", "lens.fits"])


def test_the_demo_refuses_a_bad_seed_before_it_makes_a_folder(capsys):
    assert "must not be negative" in fails(capsys, ["demo", "-o", "out", "--seed", "-1"])
    assert not Path("out").exists()


def test_the_demo(capsys, monkeypatch):
    monkeypatch.setattr(
        "lensdeblend.cli.demo.reconstruct",
        lambda image, seed: __import__("lensdeblend").reconstruct(image, method=ToyReconstructor(1.2), seed=seed),
    )
    assert main(["demo", "-o", "out"]) == 0
    assert {path.name for path in Path("out").iterdir()} == {"lens.fits", "reconstruction.fits", "reconstruction.png"}
    printed = capsys.readouterr().out
    assert "theta_E" in printed and "truth" in printed and "sigma" in printed
    with fits.open("out/lens.fits", checksum=True) as hdus:
        assert hdus["SCI"].data.shape == (80, 80)
    assert "exists; add --overwrite" in fails(capsys, ["demo", "-o", "out"])
    assert main(["demo", "-o", "out", "--overwrite"]) == 0


def test_the_version_and_the_help(capsys):
    expected = {"--version": "lensdeblend 0", "--help": "reconstruct", "reconstruct --help": "--noise"}
    for args, text in expected.items():
        with pytest.raises(SystemExit) as stop:
            main(args.split())
        assert stop.value.code == 0
        assert text in capsys.readouterr().out


@dataclass
class Options:
    whole: int = 1
    real: float = 1.0
    text: str = "a"
    flag: bool = False
    choice: Literal["auto", 1, 2] = "auto"
    pair: tuple[float, float] | None = None
    many: tuple[int, ...] = ()
    maybe: int | str = 1
    angle: Quantity = 1 * u.arcsec
    folder: Path | None = None
    anything: object = None


@pytest.mark.parametrize(
    "text, value",
    [
        ("whole=3", 3), ("real=3", 3.0), ("text=3", "3"), ("text=a=b", "a=b"), ("flag=yes", True),
        ("flag=false", False), ("choice=2", 2), ("choice=auto", "auto"), ("pair=2,0.1", (2.0, 0.1)),
        ("pair=none", None), ("many=1,2,3", (1, 2, 3)),
        ("maybe=7", 7), ("maybe=seven", "seven"), ("angle=2arcmin", 2 * u.arcmin), ("folder=a/b", Path("a/b")),
    ],
)
def test_settings_have_the_types_of_the_fields(text, value):
    name = text.partition("=")[0]
    parsed = parse_options(Options, [text])[name]
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("whole=1.5", "whole must be a whole number"), ("flag=maybe", "flag must be true or false"),
        ("choice=3", "choice must be auto or 1 or 2"), ("pair=1,2,3", "pair must be values with commas"),
        ("angle=wide", "angle must be Quantity"), ("anything=1", "anything must be object"),
    ],
)
def test_a_setting_of_another_type_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_options(Options, [text])


def test_a_setting_given_twice_is_refused():
    with pytest.raises(ValueError, match="gives the option 'whole' twice"):
        parse_options(Options, ["whole=1", "whole=2"])


def test_help_imports_no_heavy_package():
    code = "import sys; from lensdeblend.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n" \
        "print(sorted({'torch', 'lenstronomy', 'galsim', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"

"""The examples, the README and the pages keep step with the code."""

import importlib
import importlib.util
import re
from pathlib import Path

import astropy.units as u
import pytest
from astropy.table import QTable

from lensdeblend import simulate
from lensdeblend.io import write_image
from lensdeblend.plugins import builtin
from lensdeblend.plugins.hookspecs import HOOKS
from lensdeblend.results import Reconstruction, Simulation
from lensdeblend.scenes import EPL, GaussianPSF, Observation, Scene, Sersic

ROOT = Path(__file__).parents[1]
VERBS = {
    "simulator": "simulate", "reconstructor": "reconstruct", "deblender": "deblend", "generator": "generate",
    "superresolver": "superresolve",
}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lens_file(tmp_path_factory):
    scene = Scene(
        mass=[EPL(1.0 * u.arcsec, e1=0.1)],
        sources=[Sersic(40, 0.2 * u.arcsec, center_x=0.1 * u.arcsec, center_y=0.05 * u.arcsec)],
    )
    observation = Observation(0.1 * u.arcsec, (56, 60), GaussianPSF(0.15 * u.arcsec), background_rms=0.05)
    path = tmp_path_factory.mktemp("example") / "lens.fits"
    write_image(simulate(scene, observation, seed=3).image, path)
    return path


def test_reconstruct_one_lens(lens_file, capsys):
    example = load(ROOT / "examples" / "reconstruct_one_lens.py")
    result = example.main([str(lens_file), "--position", "29.5", "27.5", "--size", "44"])
    assert abs(result.parameters["theta_E"][0] - 1.0 * u.arcsec) < 4 * result.parameters["theta_E_err"][0]
    written = Reconstruction.read(lens_file.with_name("lens_result.fits"))
    assert written.model.data.shape == (44, 44)
    assert written.chi2 == pytest.approx(result.chi2)
    assert lens_file.with_name("lens_result.png").read_bytes().startswith(b"\x89PNG")
    assert "theta_E" in capsys.readouterr().out


def test_simulate_population(tmp_path, capsys):
    example = load(ROOT / "examples" / "simulate_population.py")
    example.main(["lens-benchmark", str(tmp_path / "lenses"), "--n", "3", "--seed", "2"])
    table = QTable.read(tmp_path / "lenses" / "lens-benchmark.ecsv")
    for row in table:
        simulation = Simulation.read(tmp_path / "lenses" / row["file"])
        assert simulation.scene.mass[0].theta_E == row["theta_E"]
        assert 0.8 * u.arcsec <= row["theta_E"] <= 1.6 * u.arcsec
        assert 10 <= row["peak_snr"] <= 101
    example.main(["--list"])
    assert "lens-benchmark" in capsys.readouterr().out


def test_readme_lists_the_methods_that_there_are():
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    table = set(re.findall(r"^``(\w+)`` +(?:``([\w-]+)``|none yet)", text, flags=re.MULTILINE))
    declared = {
        (VERBS[kind], method.name)
        for kind, hook in HOOKS.items()
        if hasattr(builtin, hook)
        for method in getattr(builtin, hook)()
    }
    without = {verb for verb in VERBS.values() if verb not in {verb for verb, _ in declared}}
    assert table == declared | {(verb, "") for verb in without}


def test_every_public_room_and_method_is_in_the_reference():
    reference = (ROOT / "docs" / "reference.rst").read_text(encoding="utf-8")
    pages = set(re.findall(r"automodapi:: (\S+)", reference))
    rooms = ("images", "io", "scenes", "scenes.populations", "results", "interfaces", "plugins", "testing")
    assert {"lensdeblend", *(f"lensdeblend.{room}" for room in rooms)} <= pages
    targets = {method.target for hook in HOOKS.values() for method in getattr(builtin, hook, tuple)()}
    assert {target.partition(":")[0] for target in targets} <= pages


def test_the_page_on_the_command_line_lists_the_subcommands():
    page = (ROOT / "docs" / "commandline.rst").read_text(encoding="utf-8")
    subcommands = importlib.import_module("lensdeblend.cli.main").SUBCOMMANDS
    listed = re.findall(r"^``(\w+)``  ", page, flags=re.MULTILINE)
    assert listed == [module.__name__.rpartition(".")[2] for module in subcommands]


def test_readme_and_ci_have_the_same_command():
    readme, ci = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.rst", ".ci/run"))
    assert 'pip install -c constraints.txt -e ".[all,test]" && pytest' in readme
    assert '-c constraints.txt -e ".[all,test]" && pytest' in ci

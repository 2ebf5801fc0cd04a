import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "plugin_example"
sys.path.insert(0, str(EXAMPLE))

collect_ignore = ["conf.py", "conftest.py", "benchmark_directive.py"]


@pytest.fixture(autouse=True)
def installed_example(tmp_path, monkeypatch):
    """The tutorial's package as pip would install it: its metadata on the path, its plug-in found."""
    from lensdeblend.plugins import manager

    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["lensdeblend"]
    about = tmp_path / "site" / f"lensdeblend_gaussians-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (about / "entry_points.txt").write_text("[lensdeblend]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    monkeypatch.syspath_prepend(tmp_path / "site")
    manager.cache_clear()
    yield
    manager.cache_clear()

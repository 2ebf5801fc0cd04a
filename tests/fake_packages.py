"""Installs distributions that exist only for a test: metadata and modules in a folder on the path."""

import importlib
from pathlib import Path
from textwrap import dedent

import pytest

from lensdeblend.plugins import manager


def install(folder: Path, distribution: str, *, entry_point: str, modules: dict[str, str] | None = None):
    """Write ``distribution`` 1.0 into ``folder``; ``entry_point`` is the module its plug-in lives in."""
    about = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (about / "RECORD").write_text("")
    (about / "entry_points.txt").write_text(f"[lensdeblend]\n{distribution} = {entry_point}\n")
    for name, source in (modules or {}).items():
        (folder / f"{name}.py").write_text(dedent(source))


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder on the path for `install`; the plug-ins are looked up anew."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    manager.cache_clear()
    yield folder
    manager.cache_clear()


@pytest.fixture
def toys(packages):
    """The toy methods, registered by a distribution called ``toys``."""
    install(packages, "toys", entry_point="toy_plugin")

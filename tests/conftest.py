"""What all tests share."""

from pathlib import Path

import numpy as np
import pytest

try:
    import matplotlib

    matplotlib.use("Agg")
except ImportError:
    pass


# Looked through for doctests, it would be imported by a name that the one in docs has, too.
collect_ignore = ["conftest.py"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real and simulated images that lies beside the checkout."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the test images in {Path('..', 'shared', 'data')}, which are not part of the package")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)

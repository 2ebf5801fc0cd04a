"""Checks for plug-in authors: the ones that the built-in methods pass.

Each takes a method, by name or as an instance, and raises `AssertionError` with a sentence where the method breaks the
contract of its interface::

    from lensdeblend.testing import check_simulator

    def test_mine():
        check_simulator(Mine())
"""

from lensdeblend.testing.deblender import check_deblender
from lensdeblend.testing.generator import check_generator
from lensdeblend.testing.reconstructor import check_reconstructor
from lensdeblend.testing.simulator import check_simulator
from lensdeblend.testing.superresolver import check_superresolver

__all__ = ["check_deblender", "check_generator", "check_reconstructor", "check_simulator", "check_superresolver"]

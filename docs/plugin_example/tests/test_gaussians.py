from lensdeblend_gaussians.deblender import Gaussians

from lensdeblend.testing import check_deblender


def test_contract():
    check_deblender(Gaussians())

"""Round Gaussians as a deblender for lensdeblend."""

from lensdeblend.plugins import Method, hookimpl


@hookimpl
def lensdeblend_deblenders():
    yield Method(
        name="gaussians",
        target="lensdeblend_gaussians.deblender:Gaussians",
        summary="Round Gaussians of one width, their fluxes by linear least squares",
        requires=("photutils",),
    )

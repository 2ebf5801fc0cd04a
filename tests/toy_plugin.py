"""A whole plug-in: one toy of each kind."""

from lensdeblend.plugins import Method, hookimpl


@hookimpl
def lensdeblend_simulators():
    yield Method(name="toy", target="toy_methods:ToySimulator", summary="Round Gaussians")


@hookimpl
def lensdeblend_reconstructors():
    yield Method(name="toy", target="toy_methods:ToyReconstructor", summary="One ring for all")


@hookimpl
def lensdeblend_deblenders():
    yield Method(name="toy", target="toy_methods:ToyDeblender", summary="Nearest position")


@hookimpl
def lensdeblend_generators():
    return [Method(name="toy", target="toy_methods:ToyGenerator", summary="Round Gaussians")]


@hookimpl
def lensdeblend_superresolvers():
    yield Method(name="toy", target="toy_methods:ToySuperResolver", summary="Repeated pixels")

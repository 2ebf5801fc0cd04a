"""What the entry point leads to: declares the method, imports nothing of caustics."""

from lensdeblend.plugins import Method, hookimpl


@hookimpl
def lensdeblend_simulators():
    yield Method(
        name="caustics",
        target="lensdeblend_caustics.simulator:Caustics",
        summary="Lenses by the deflections and light profiles of caustics",
        requires=("caustics",),
        reference="2024JOSS....9.7081S",
    )

"""The caustics package as a simulator of lensdeblend."""

__all__ = ["Caustics"]


def __getattr__(name: str):
    if name == "Caustics":
        from lensdeblend_caustics.simulator import Caustics

        return Caustics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What a simulator refuses: components that it cannot draw, and bad options."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Real

from lensdeblend.scenes import GeneratedSource, LightComponent, PointSource, Scene

__all__ = ["require_drawn", "require_made", "require_whole"]


def require_drawn(scene: Scene, simulator: str, light: Collection[type], mass: Collection[type]) -> None:
    """Raise ValueError for a component of ``scene`` of other kinds than these, and for a point source behind a lens."""
    for component in (*scene.lens_light, *(part for galaxy in scene.galaxies for part in galaxy.components)):
        require_made(component)
        if type(component) not in light:
            raise ValueError(
                f"the {simulator} simulator does not draw {type(component).__name__}; it draws "
                f"{', '.join(kind.__name__ for kind in light)}. The galsim simulator draws more, without a lens"
            )
    for component in scene.mass:
        if type(component) not in mass:
            raise ValueError(f"the {simulator} simulator knows no deflection of {type(component).__name__}")
    if scene.is_lens and any(isinstance(part, PointSource) for galaxy in scene.galaxies for part in galaxy.components):
        raise ValueError(
            "a PointSource behind a lens is not supported; use a small Gaussian, or put it into lens_light"
        )


def require_made(component: LightComponent) -> None:
    """Raise ValueError for a galaxy that a generator has still to make."""
    if isinstance(component, GeneratedSource):
        raise ValueError(
            "a simulator draws no GeneratedSource, which has still to be made: call lensdeblend.simulate, which does "
            "so, or lensdeblend.simulators.generated.generated(scene) before"
        )


def require_whole(name: str, value) -> None:
    """Raise ValueError unless ``value`` is a whole positive number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not value >= 1 or value % 1 != 0:
        raise ValueError(f"{name} must be a whole positive number; got {value!r}")

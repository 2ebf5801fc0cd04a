"""What is in the sky: mass in front, light of the lens, sources behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lensdeblend.scenes.components import LightComponent, MassComponent

__all__ = ["Galaxy", "Redshifts", "Scene"]


@dataclass(frozen=True)
class Redshifts:
    """Redshifts of lens and source."""

    lens: float | None = None
    source: float | None = None


@dataclass(frozen=True)
class Galaxy:
    """Light components that belong to one galaxy, such as bulge and disc."""

    components: tuple[LightComponent, ...]
    name: str = ""

    def __post_init__(self):
        object.__setattr__(self, "components", tuple(self.components))
        _check(self.components, LightComponent, "Galaxy.components")


@dataclass(frozen=True)
class Scene:
    """Everything an image is made of, before telescope and noise.

    Without ``mass`` the scene is a blend: the sources are seen as they are.

    Parameters
    ----------
    mass, lens_light, sources : sequence
        Mass components; light components in the lens plane; sources: light components or `Galaxy` groups of them.
    redshifts : `Redshifts`
        Where they are known.
    """

    mass: tuple[MassComponent, ...] = ()
    lens_light: tuple[LightComponent, ...] = ()
    sources: tuple[LightComponent | Galaxy, ...] = ()
    redshifts: Redshifts = Redshifts()

    def __post_init__(self):
        for name, kind in (("mass", MassComponent), ("lens_light", LightComponent), ("sources", (LightComponent, Galaxy))):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            _check(getattr(self, name), kind, f"Scene.{name}")

    @property
    def is_lens(self) -> bool:
        """Whether anything deflects light."""
        return bool(self.mass)

    @property
    def galaxies(self) -> tuple[Galaxy, ...]:
        """The sources, each as a `Galaxy`."""
        return tuple(s if isinstance(s, Galaxy) else Galaxy((s,)) for s in self.sources)


def _check(items: Sequence, kind, where: str) -> None:
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"{where}: {item!r} is not allowed here")

"""What is in the sky: mass in front, light of the lens, sources behind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
from astropy.table import QTable

from lensdeblend.scenes.components import EPL, SIE, LightComponent, MassComponent, Shear

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
        allowed = {"mass": MassComponent, "lens_light": LightComponent, "sources": (LightComponent, Galaxy)}
        for name, kind in allowed.items():
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

    @property
    def lens_parameters(self) -> QTable:
        """The true lens in one row: the columns of ``Reconstruction.parameters``, without errors.

        Raises
        ------
        ValueError
            Unless the scene has one `EPL` or `SIE`. Shears add up; substructure is left out.
        """
        main = [component for component in self.mass if isinstance(component, (EPL, SIE))]
        if len(main) != 1:
            raise ValueError(f"lens_parameters needs a scene with one EPL or SIE; this one has {len(main)}")
        (lens,), shears = main, [component for component in self.mass if isinstance(component, Shear)]
        return QTable({
            "theta_E": [lens.theta_E.value] * u.arcsec,
            "gamma": [getattr(lens, "gamma", 2.0)],
            "e1": [lens.e1],
            "e2": [lens.e2],
            "center_x": [lens.center_x.value] * u.arcsec,
            "center_y": [lens.center_y.value] * u.arcsec,
            "gamma1": [float(sum(shear.gamma1 for shear in shears))],
            "gamma2": [float(sum(shear.gamma2 for shear in shears))],
        })

    def write(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Write the scene as YAML."""
        from lensdeblend.scenes.yaml import write_yaml

        write_yaml(self, path, overwrite=overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike) -> Scene:
        """Read a scene from YAML."""
        from lensdeblend.scenes.yaml import read_yaml

        return read_yaml(path, cls)


def _check(items: Sequence, kind, where: str) -> None:
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"{where}: {item!r} is not allowed here")

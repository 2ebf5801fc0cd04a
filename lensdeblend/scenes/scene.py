"""What is in the sky: mass in front, light of the lens, sources behind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lensdeblend.scenes.components import EPL, SIE, LightComponent, MassComponent, Shear

__all__ = ["Galaxy", "Redshifts", "Scene"]


@dataclass(frozen=True)
class Redshifts:
    """Redshifts of lens and source, the source behind the lens; None where one is not known."""

    lens: float | None = None
    source: float | None = None

    def __post_init__(self):
        for name in ("lens", "source"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"Redshifts: {name} must be positive, or None; got {value}")
        if None not in (self.lens, self.source) and self.source <= self.lens:
            raise ValueError(f"Redshifts: the source, at {self.source}, must lie behind the lens, at {self.lens}")


@dataclass(frozen=True)
class Galaxy:
    """Light components that belong to one galaxy, such as bulge and disc.

    Parameters
    ----------
    components : sequence of `LightComponent`
        At least one.
    name : str
    """

    components: tuple[LightComponent, ...]
    name: str = ""

    def __post_init__(self):
        object.__setattr__(self, "components", _checked(self.components, LightComponent, "Galaxy.components"))
        if not self.components:
            raise ValueError("Galaxy.components is empty: a galaxy needs at least one component of light")


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

    Raises
    ------
    TypeError
        For a component in the wrong place, such as light in ``mass``.

    Examples
    --------
    >>> import astropy.units as u
    >>> from lensdeblend.scenes import EPL, Scene, Sersic, Shear
    >>> scene = Scene(mass=[EPL(1.2 * u.arcsec), Shear(0.05, 0)], sources=[Sersic(22 * u.ABmag, 0.2 * u.arcsec)])
    >>> scene.is_lens, len(scene.galaxies)
    (True, 1)
    """

    mass: tuple[MassComponent, ...] = ()
    lens_light: tuple[LightComponent, ...] = ()
    sources: tuple[LightComponent | Galaxy, ...] = ()
    redshifts: Redshifts = Redshifts()

    def __post_init__(self):
        allowed = {"mass": MassComponent, "lens_light": LightComponent, "sources": (LightComponent, Galaxy)}
        for name, kind in allowed.items():
            object.__setattr__(self, name, _checked(getattr(self, name), kind, f"Scene.{name}"))
        if not isinstance(self.redshifts, Redshifts):
            raise TypeError(f"Scene.redshifts must be Redshifts(lens, source); got {self.redshifts!r}")

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


def _checked(items: Sequence, kind, where: str) -> tuple:
    if isinstance(items, (MassComponent, LightComponent, Galaxy)):
        raise TypeError(f"{where} must be a list; put {type(items).__name__}(...) into one")
    for item in (items := tuple(items)):
        if not isinstance(item, kind):
            raise TypeError(f"{where}: {item!r} is not allowed here")
    return items

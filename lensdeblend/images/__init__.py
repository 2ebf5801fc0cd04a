"""The one door: how outside images turn into what methods see.

Pixel convention: integer coordinates at pixel centres, ``(0, 0)`` the centre of the first pixel, x towards +column and
y towards +row. Lens-model angles are in arcsec from the image centre, ``((nx - 1) / 2, (ny - 1) / 2)``.
"""

from lensdeblend.images.cutouts import cutout
from lensdeblend.images.door import prepare
from lensdeblend.images.grids import like, on_grid, position_angle, recast
from lensdeblend.images.scale import pixel_scale
from lensdeblend.io.planes import ImageWarning

__all__ = ["ImageWarning", "cutout", "like", "on_grid", "pixel_scale", "position_angle", "prepare", "recast"]

"""What all results share: provenance, files and pictures."""

from __future__ import annotations

__all__ = ["Result"]


class Result:
    """Base of the five results: frozen dataclasses with ``meta``, `write`, `read` and `plot`."""

    def write(self, path, overwrite=False):
        """Write everything to one FITS file."""
        raise NotImplementedError

    @classmethod
    def read(cls, path):
        """Read what `write` wrote."""
        raise NotImplementedError

    def plot(self, path=None):
        """Draw the result; save it where ``path`` is given."""
        raise NotImplementedError

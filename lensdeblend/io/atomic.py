"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to, and rename it to ``path`` when all went well.

    Parameters
    ----------
    path : path
        What is to be written.
    overwrite : bool
        Whether an existing file may be replaced.

    Yields
    ------
    `~pathlib.Path`
        A new name in the same folder, with the same suffixes.

    Raises
    ------
    FileExistsError
        Where ``path`` exists and may not be replaced.
    FileNotFoundError
        Where its folder does not exist.
    OSError
        Where the folder cannot be written to.

    Examples
    --------
    >>> from pathlib import Path
    >>> from lensdeblend.io.atomic import replacing
    >>> path = Path("notes.txt")
    >>> with replacing(path) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; to replace it give overwrite=True (--overwrite), or write elsewhere")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    temporary = path.with_name(f".{uuid4().hex}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        # With an errno, OSError makes the subclass that fits it, such as PermissionError.
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}; write to another folder") from error
    finally:
        temporary.unlink(missing_ok=True)

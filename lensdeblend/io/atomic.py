"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

__all__ = ["replacing", "replacing_folder"]


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


@contextmanager
def replacing_folder(path: str | os.PathLike, *, own: Sequence[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a new folder beside ``path`` to write into, and rename it to ``path`` when all went well.

    Parameters
    ----------
    path : path
        The folder that is to be written.
    own : sequence of str
        Patterns of the names of files that may be replaced: a folder with others in it is left alone.
    overwrite : bool
        Whether an existing folder may be replaced.

    Yields
    ------
    `~pathlib.Path`
        An empty folder.

    Raises
    ------
    FileExistsError
        Where ``path`` exists and may not be replaced, or holds what is not ours.
    FileNotFoundError
        Where the folder in which it is to be does not exist.
    NotADirectoryError
        Where it is a file.
    OSError
        Where it cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from lensdeblend.io.atomic import replacing_folder
    >>> with replacing_folder("notes", own=["*.txt"]) as folder:
    ...     _ = (folder / "first.txt").write_text("whole")
    >>> [path.name for path in Path("notes").iterdir()]
    ['first.txt']
    """
    path = Path(path)
    if path.is_file():
        raise NotADirectoryError(f"{path} is a file; give the name of a folder")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; to replace it give overwrite=True (--overwrite), or write elsewhere")
    other = next((one for one in path.glob("*") if not any(one.match(pattern) for pattern in own)), None)
    if other is not None:
        raise FileExistsError(f"{path} holds other files, such as {other.name}, and is not replaced; write elsewhere")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    temporary, former = (path.with_name(f".{uuid4().hex}.{path.name}") for _ in range(2))
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, former)
        try:
            os.replace(temporary, path)
        except OSError:
            if former.exists():
                os.replace(former, path)
            raise
    except OSError as error:
        if error.errno is None or isinstance(error, FileExistsError):
            raise
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}; write to another folder") from error
    finally:
        for folder in (temporary, former):
            shutil.rmtree(folder, ignore_errors=True)

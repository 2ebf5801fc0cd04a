"""The house: rooms import from their own floor and from the floors above, and heavy packages stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lensdeblend

ROOT = Path(lensdeblend.__file__).parent

# From the top of the house to the bottom; a room may look up, and to rooms named before it on its own floor.
FLOORS = [
    ["spelling", "wavelengths", "options", "io", "images", "scenes", "results", "interfaces", "plugins"],
    ["lensing", "networks"],
    ["simulators", "reconstructors", "deblenders", "generators", "superresolvers"],
    ["verbs"],
    ["training", "evaluation", "survey", "testing", "cli"],
]
ROOMS = {room: (floor, place) for floor, rooms in enumerate(FLOORS) for place, room in enumerate(rooms)}

METHODS = set(FLOORS[2])
HEAVY = {
    "torch": {
        "lensing", "networks", "training", "evaluation/classifier.py", "evaluation/cramer_rao.py",
        "evaluation/two_sample.py", *METHODS,
    },
    "zuko": {"networks", "training", *METHODS},
    "lenstronomy": METHODS,
    "galsim": METHODS,
    # Drawing is a room within a room: only Result.plot opens it.
    "matplotlib": {"results/panels.py", "results/figures.py"},
    "dask": {"survey"},
    "lightning": {"training"},
    "photutils": {"deblenders", "reconstructors"},
}


def modules():
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def name(path):
    return path.relative_to(ROOT).as_posix()


def imports(tree, *, top_only=False):
    """The full names that are imported, with the line."""
    for node in _nodes(tree, top_only):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _nodes(tree, top_only):
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        waiting.extend(ast.iter_child_nodes(node))


def wrong_arrow(own, target):
    """Why ``own`` may not import ``target``, both names of rooms."""
    if own == target:
        return ""
    (floor, place), (other_floor, other_place) = ROOMS[own], ROOMS[target]
    if other_floor > floor:
        return f"{own} is on floor {floor + 1} and imports {target} from floor {other_floor + 1}"
    if other_floor == floor and other_place > place:
        return f"{own} comes before {target} on floor {floor + 1}"
    return ""


@pytest.mark.parametrize("path", modules(), ids=name)
def test_arrows_point_one_way(path):
    assert room(path) in ROOMS, f"{name(path)} is in no room of the house"
    wrong = []
    for target, line in imports(ast.parse(path.read_text())):
        parts = target.split(".")
        if parts[0] != "lensdeblend" or parts[1:2] in (["__version__"], []):
            continue
        home = parts[1] if parts[1] in ROOMS else lensdeblend._HOMES[parts[1]].split(".")[1]
        reason = wrong_arrow(room(path), home)
        if reason:
            wrong.append(f"line {line}: {reason}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", [path for path in modules() if room(path) in FLOORS[1]], ids=name)
def test_physics_knows_nothing_of_images_files_and_plugins(path):
    ours = tuple(f"lensdeblend.{room}" for room in FLOORS[0] if room != "spelling")
    wrong = [
        f"line {line}: {target}" for target, line in imports(ast.parse(path.read_text()))
        if target.startswith((*ours, "astropy.nddata", "astropy.io", "pluggy"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", modules(), ids=name)
def test_heavy_packages_stay_in_their_rooms(path):
    wrong = []
    for target, line in imports(ast.parse(path.read_text()), top_only=True):
        package = target.partition(".")[0]
        homes = HEAVY.get(package)
        if homes is not None and room(path) not in homes and name(path) not in homes:
            wrong.append(f"line {line}: {package} is imported at the top of a module of {room(path)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", modules(), ids=name)
def test_only_io_touches_fits(path):
    wrong = [line for target, line in imports(ast.parse(path.read_text())) if target.startswith("astropy.io.fits")]
    assert not wrong or room(path) == "io", f"lines {wrong}"


@pytest.mark.parametrize("path", modules(), ids=name)
def test_only_the_command_line_prints(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    wrong = [node.lineno for node in calls if getattr(node.func, "id", "") == "print"]
    assert not wrong or room(path) == "cli", f"lines {wrong}"


def test_the_rules_can_be_broken():
    assert "floor 1 and imports verbs from floor 4" in wrong_arrow("scenes", "verbs")
    assert "comes before" in wrong_arrow("io", "results")
    assert not wrong_arrow("cli", "lensing")
    tree = ast.parse(
        "def f():\n    import torch\n"
        "if TYPE_CHECKING:\n    import galsim\n"
        "try:\n    import dask\nexcept ImportError:\n    pass\n"
    )
    assert {target for target, _ in imports(tree, top_only=True)} == {"dask"}
    assert {target for target, _ in imports(tree)} == {"torch", "dask"}


@pytest.mark.parametrize("statement", ["import lensdeblend", "from lensdeblend import methods, prepare, simulate"])
def test_importing_the_package_imports_nothing_heavy(statement):
    code = f"{statement}\nimport sys\nprint(sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

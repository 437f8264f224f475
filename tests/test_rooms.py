"""The house keeps its order: a room imports only from the rooms before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "convarium"

ROOMS = (
    *("errors", "storage", "limits", "layers", "joins", "net", "models", "costs", "draw"),
    *("data", "training", "methods", "judge", "answering"),
    *("explain", "zeroshot", "deploy", "lab", "extract", "classifier", "packing"),
    *("evaluation", "account", "sitting", "beginning", "planning", "api", "choosing"),
    *("cli", "web"),
)  # fmt: skip

# Closed although they come before: what a room must not know.
CLOSED = {
    "costs": {"models"},
    "draw": {"models"},
    "data": {"layers", "joins", "net", "models", "costs", "draw"},
    "training": {"models"},
}

# The rooms that may use the package's public names; the version is free to all.
FRONT = {"cli", "web"}

VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
LONGEST = 400


def module_of(path: Path, package: Path) -> list[str]:
    """["convarium", "training", "loop"] for convarium/training/loop.py; a package ends in "__init__"."""
    return [package.name, *path.relative_to(package).with_suffix("").parts]


def imports(path: Path, package: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and dotted name of all that a file imports of the package, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[list[str]] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module_of(path, package)[: -node.level] if node.level else []
            base = base + (node.module or "").split(".") if node.module else base
            names = [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                names = [str(node.args[0].value).split(".")]
        yield from ((node.lineno, name) for name in names if name[0] == package.name)


def fault(importer: list[str], imported: list[str]) -> str | None:
    """What is wrong with one import; None where nothing is."""
    room, target = importer[1], imported[1] if len(imported) > 1 else ""
    if room == "__init__" or target == "__version__":
        return None
    if room not in ROOMS:
        return f"{room} is not in the list of rooms"
    if target not in ROOMS:
        return None if room in FRONT else f"{room} uses the public names, which only {sorted(FRONT)} may"
    if target == room:
        return family_fault(importer, imported) if room == "models" else None
    if ROOMS.index(target) > ROOMS.index(room):
        return f"{room} comes before {target}"
    return f"{room} must not know {target}" if target in CLOSED.get(room, ()) else None


def family_fault(importer: list[str], imported: list[str]) -> str | None:
    """Within `models`: nothing but __init__ imports a family, that is a file which registers networks."""
    family = imported[2] if len(imported) > 2 else "__init__"
    file = PACKAGE / "models" / f"{family}.py"
    if importer[2] in ("__init__", family) or not file.exists():
        return None
    if not any(line.startswith("register(") for line in file.read_text(encoding="utf-8").splitlines()):
        return None
    return f"models/{importer[2]}.py must not know the family {family}"


def faults(package: Path) -> list[str]:
    """All faults of a package, one line each."""
    return [
        f"{path.relative_to(package.parent)}:{line}: {why}"
        for path in sorted(package.rglob("*.py"))
        for line, name in imports(path, package)
        if (why := fault(module_of(path, package), name))
    ]


def test_rooms_import_only_from_rooms_before_them() -> None:
    assert faults(PACKAGE) == []


def test_no_room_has_the_name_of_a_public_function() -> None:
    # Importing convarium.train, the room, would put it in the place of convarium.train, the function.
    import convarium

    assert not set(convarium.__all__) & set(ROOMS)


def test_every_folder_and_file_of_the_package_is_a_room() -> None:
    found = {p.stem for p in PACKAGE.iterdir() if (p.is_dir() and any(p.glob("*.py"))) or p.suffix == ".py"}
    assert found - {"__init__", "__main__"} <= set(ROOMS)


@pytest.mark.parametrize(
    ("file", "source", "why"),
    [
        ("net.py", "from convarium.models import registry", "net comes before models"),
        ("net.py", "from convarium import models", "net comes before models"),
        ("net.py", "import convarium.costs.count", "net comes before costs"),
        ("net.py", "from .judge import metrics", "net comes before judge"),
        ("training/loop.py", "def f():\n    from ..models import lenet", "training must not know models"),
        ("training/loop.py", "from convarium.judge import metrics", "training comes before judge"),
        ("data/folder.py", "__import__('convarium.net')", "data must not know net"),
        ("data/__init__.py", "from ..draw import chart", "data must not know draw"),
        ("judge/page.py", "import convarium", "judge uses the public names, which only ['cli', 'web'] may"),
        ("models/lenet.py", "from . import linear", "models/lenet.py must not know the family linear"),
        ("models/weights.py", "from .lenet import T", "models/weights.py must not know the family lenet"),
        ("helpers_of_all.py", "import convarium.net", "helpers_of_all is not in the list of rooms"),
    ],
)  # fmt: skip
def test_a_forbidden_import_is_seen(tmp_path: Path, file: str, source: str, why: str) -> None:
    path = tmp_path / "convarium" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    assert [line.split(": ")[1] for line in faults(tmp_path / "convarium")] == [why]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("models/resnet.py", "from .registry import register\nfrom ..net import Net"),
        ("models/__init__.py", "from . import lenet, linear"),
        (
            "training/loop.py",
            "from convarium import __version__\nfrom convarium.data import folder\nimport torch",
        ),
        ("cli/train.py", "def run():\n    import convarium"),
        ("__init__.py", "from convarium.api import train"),
    ],
)
def test_an_allowed_import_is_let_through(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / "convarium" / file
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert faults(tmp_path / "convarium") == []


def sources() -> list[Path]:
    return [
        path
        for folder in ("convarium", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def test_no_file_or_folder_has_a_vague_name() -> None:
    relative = [path.relative_to(ROOT).with_suffix("") for path in sources()]
    assert [str(path) for path in relative if VAGUE & {part.strip("_") for part in path.parts}] == []


def test_no_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}

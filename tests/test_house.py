"""The architecture: imports point down, the pure rooms are pure, nothing needs installing."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from helpers import ROOT

# A module may import from the lines below its own, and from nowhere else in the project.
LAYERS = """
    seedspawner  console  simulate  dashboard
    gateway
    peer  seed  scenario
    survey  feed  metrics
    world
    delivery
    driver  registration  threads  inhabitants  screen  authority
    link  node  command_line
    actions  overlay  tree  gossip  liveness  directory
    pace  questions  trust
    streams
    tls
    wire  limits
    settings  journal
    messages
"""
PURE = ["node", "actions", "overlay", "tree", "gossip", "pace", "questions", "streams", "liveness"]
PURE += ["directory", "wire", "messages", "limits"]

WORLD = {  # what reaches outside, or differs from run to run
    *("socket", "socketserver", "ssl", "select", "selectors", "asyncio", "urllib", "http"),
    *("threading", "_thread", "queue", "concurrent", "multiprocessing", "subprocess", "signal"),
    *("time", "datetime", "sched", "calendar"),
    *("os", "io", "sys", "pathlib", "tempfile", "shutil", "fcntl", "glob", "logging", "importlib"),
    *("secrets", "uuid"),
}
WORLDLY_CALLS = {"open", "input", "print", "exec", "eval", "__import__", "hash", "id"}
MAX_LINES = 500

LAYER_OF = {
    module: -depth for depth, line in enumerate(LAYERS.split("\n")) for module in line.split()
}
MODULES = sorted(ROOT.glob("*.py"))
every_module = pytest.mark.parametrize("path", MODULES, ids=[path.stem for path in MODULES])
every_pure_room = pytest.mark.parametrize("module", PURE)


def parsed(path: Path) -> ast.Module:
    """The module's code; without what it does only when started as a program."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [statement for statement in tree.body if not is_program_start(statement)]
    return tree


def is_program_start(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":`, where a script hands over to its console above it."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules it imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: there are no packages to be relative to"
            assert node.module is not None
            yield node.module.partition(".")[0]


def test_every_module_has_its_place_in_one_layer() -> None:
    placed = LAYERS.split()
    assert sorted(placed) == [path.stem for path in MODULES]


@every_module
def test_imports_only_point_down(path: Path) -> None:
    siblings = {module for module in imported(parsed(path)) if module in LAYER_OF}
    upward = {module for module in siblings if LAYER_OF[module] >= LAYER_OF[path.stem]}
    assert not upward, f"{path.stem} is not above {', '.join(sorted(upward))}"


@every_module
def test_only_the_standard_library_is_needed(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    foreign = set(imported(tree)) - sys.stdlib_module_names - LAYER_OF.keys()
    assert not foreign


def pure_room(module: str) -> ast.Module:
    return ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))


def called(tree: ast.Module) -> set[str]:
    """What it calls, by the name it has there."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@every_pure_room
def test_a_pure_room_imports_nothing_of_the_world(module: str) -> None:
    assert not set(imported(pure_room(module))) & WORLD


@every_pure_room
def test_a_pure_room_takes_no_more_than_tunables_from_a_room_with_files(module: str) -> None:
    for node in ast.walk(pure_room(module)):
        if isinstance(node, ast.ImportFrom) and node.module in ("settings", "journal"):
            assert [alias.name for alias in node.names] == ["Tunables"]


@every_pure_room
def test_a_pure_room_opens_no_file_and_prints_nothing(module: str) -> None:
    assert not called(pure_room(module)) & WORLDLY_CALLS


@every_pure_room
def test_a_pure_room_gets_its_randomness_from_outside(module: str) -> None:
    tree = pure_room(module)
    uses = {node.attr for node in ast.walk(tree) if is_attribute_of(node, "random")}
    assert uses <= {"Random"}, "only a random.Random that was passed in"
    assert "random.Random" not in called(tree)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "random"]


def is_attribute_of(node: ast.AST, module: str) -> TypeGuard[ast.Attribute]:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == module
    )


def test_there_are_no_package_folders() -> None:
    ours = [folder for folder in ROOT.iterdir() if not folder.name.startswith(".")]
    assert not [path.parent for folder in ours for path in folder.rglob("__init__.py")]


def test_no_module_hides_a_standard_one() -> None:
    others = [path for folder in ("tests", "benchmarks") for path in (ROOT / folder).glob("*.py")]
    modules = {path.stem for path in [*MODULES, *others]} - {"__main__"}
    assert not modules & sys.stdlib_module_names


@every_module
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < MAX_LINES


@every_module
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(parsed(path))

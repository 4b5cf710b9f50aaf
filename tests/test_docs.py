"""The pages in docs/ are true to the code: what they name is there, and has the value they give."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from helpers import ROOT
from settings import Tunables

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
IDEAS = ["overlay", "tree", "history", "liveness"]
every_page = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
UNITS = {"": 1, " MiB": 1 << 20}


def defined() -> tuple[dict[str, set[str]], set[str]]:
    """What each class of the project has, its bases' things included; and all functions."""
    has: dict[str, set[str]] = {}
    functions: set[str] = set()
    for path in ROOT.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                has.setdefault(node.name, set()).update(names_in(node))
                for base in node.bases:
                    has[node.name] |= has.get(ast.unparse(base), set())
    return has, functions


def names_in(owner: ast.ClassDef) -> set[str]:
    """Its methods, its fields, and what its methods assign to `self`."""
    names = set()
    for node in ast.walk(owner):
        match node:
            case ast.FunctionDef(name) | ast.AnnAssign(ast.Name(name)):
                names.add(name)
            case ast.Attribute(ast.Name("self"), name, ast.Store()):
                names.add(name)
            case ast.Assign([ast.Name(name)]):
                names.add(name)
    return names


CLASSES, FUNCTIONS = defined()
MEASURED = {path.stem.removeprefix("system_") for path in (ROOT / "benchmarks").glob("*.py")}
TUNABLES = {field.name: field.default for field in dataclasses.fields(Tunables)}


def code_in(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


@every_page
def test_what_a_page_names_is_in_the_code(page: Path) -> None:
    for name in code_in(page):
        if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name):
            assert name in CLASSES, f"{page.name}: there is no class {name}"
        elif member := re.fullmatch(r"([A-Z]\w+)\.(\w+)", name):
            owner, attribute = member.groups()
            assert attribute in CLASSES.get(owner, ()), f"{page.name}: there is no {name}"
        elif re.fullmatch(r"[a-z]+_\w+", name):
            known = FUNCTIONS | TUNABLES.keys() | MEASURED | {"config_read"}
            assert name in known, f"{page.name}: there is no {name}"
        elif re.fullmatch(r"(tests/)?\w+\.py", name):
            found = (ROOT / name).exists() or (ROOT / "benchmarks" / name).exists()
            assert found, f"{page.name}: there is no {name}"


@every_page
def test_a_number_of_a_page_is_the_default(page: Path) -> None:
    text = page.read_text()
    for name, number, unit in re.findall(r"`(\w+)`\s+=\s+([\d.,]+\d|\d)( MiB)?", text):
        assert float(number.replace(",", "")) * UNITS[unit] == TUNABLES[name], name


@pytest.mark.parametrize("idea", IDEAS)
def test_an_idea_has_a_picture_that_is_described(idea: str) -> None:
    text = (DOCS / f"{idea}.md").read_text()
    assert re.search(rf"!\[[^]]{{30,}}\]\({idea}\.svg\)", text)
    picture = (DOCS / f"{idea}.svg").read_text()
    assert re.search(r'role="img" aria-labelledby="title desc"', picture)
    assert "prefers-color-scheme: dark" in picture
    assert len(re.findall(rf"`(?:{'|'.join(CLASSES)})\.\w+`", text)) >= 5
    assert "`" in text.partition("**In the code.**")[2]


@every_page
def test_what_a_page_links_to_exists(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    ours = [target for target in targets if not target.startswith("https://")]
    assert [target for target in ours if not (DOCS / target).exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES if f"(docs/{page.name})" not in readme] == []

"""The site is whole: every page in its order, every reference public, every file that is named there."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
DOCUMENTED = [
    name
    for page, text in PAGES.items()
    if page.startswith("reference/")
    for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)
]
INTERNAL = {"hessalign.cli", "hessalign.experiments"}
"""Packages without a page: commands have their help, and the one experiment has a page of its own."""


def in_order(entries: list[object]) -> Iterator[str]:
    """Pages of the navigation from top to bottom."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for below in entry.values():
                yield from in_order(below if isinstance(below, list) else [below])


def test_every_page_stands_once_in_the_navigation() -> None:
    assert sorted(in_order(CONFIG["nav"])) == sorted(PAGES), "zensical.toml, nav"


def test_every_public_package_has_its_reference() -> None:
    hessalign = importlib.import_module("hessalign")
    packages = {f"hessalign.{name}" for name in hessalign.__all__ if name in dir(hessalign)}
    packages = {name for name in packages if (ROOT / "src" / name.replace(".", "/")).is_dir()}
    assert packages - INTERNAL <= {*DOCUMENTED}


def resolves(target: str) -> bool:
    """Whether a reference leads to a public name that a page documents."""
    known = (*DOCUMENTED, "hessalign")
    packages = [name for name in known if target == name or target.startswith(name + ".")]
    if not packages:
        return False
    package = max(packages, key=len)
    found: object = importlib.import_module(package)
    names = target.removeprefix(package).split(".")[1:]
    if names and names[0] not in getattr(found, "__all__", dir(found)):
        return False
    for name in names:
        found = getattr(found, name, None)
    return found is not None


@cache
def docstrings() -> list[tuple[str, str]]:
    """Every docstring of the package, after the name of its file."""
    return [
        (path.relative_to(ROOT).as_posix(), node.value.value)
        for path in sorted((ROOT / "src").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str)
    ]


def test_every_reference_of_a_docstring_leads_to_a_public_name() -> None:
    lost, number = [], 0
    for path, text in docstrings():
        prose = re.sub(r"`+[^`]*`+|^.*>>>.*$", "", text, flags=re.MULTILINE)
        for label, target in re.findall(r"\[([^\[\]]+)\]\[([\w.]*)\]", prose):
            number += 1
            if not resolves(target or label):
                lost.append(f"{path}: [{label}][{target}]")
    assert lost == []
    assert number > 50


@pytest.mark.parametrize("target", ["hessalign.head.gram", "hessalign.HeadDerivatives.from_logit", "step"])
def test_a_reference_to_what_is_not_public_is_lost(target: str) -> None:
    assert not resolves(target)


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{page}" for page in PAGES)])
def test_links_and_files_that_are_named_exist(page: str) -> None:
    path = ROOT / page
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        leads_to = (path.parent / link).resolve()
        assert leads_to.exists(), link
        assert page == "README.md" or leads_to.is_relative_to(DOCS), f"{link} leaves the site"
    for name in re.findall(r"`((?:benchmarks|docs|examples|papers|results|src|tests)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name


LISTS = {"changelog.md", "contributing.md", "gallery/index.md", "glossary.md"}


@pytest.mark.parametrize(
    "page", sorted({page for page in PAGES if not page.startswith("reference/")} - LISTS)
)
def test_a_page_begins_with_what_the_reader_gets_and_one_thing_to_run(page: str) -> None:
    beginning = PAGES[page][:2500]
    assert re.match(r"# .+\n\n\w", beginning), "title, then a sentence"
    assert re.search(r"^    \S|^```|`(hessalign|python|ha\.)[^`]+`", beginning, re.MULTILINE), (
        "nothing to run"
    )

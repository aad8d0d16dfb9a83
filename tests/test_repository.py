"""README and docs keep their word: commands are the tested ones, figures those of the records."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return [line.strip() for line in README.splitlines() if line.startswith("    python3 -m venv")]


def test_ci_installs_and_tests_the_readme_way() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    main_job, tests = commands()
    make_venv, install, run_tests = tests.split(" && ")
    assert all(step in ci for step in (make_venv, run_tests))
    assert install.replace("pip install", "pip install --quiet") in ci
    assert main_job.endswith("hessalign cmnist --fast")


def test_ci_builds_the_site_as_contributing_says() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert ".venv/bin/python -m zensical build --strict" in ci
    assert ".venv/bin/python -m zensical build --strict" in contributing


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)[0] == version


def test_readme_fits_one_screen() -> None:
    assert len(README.split()) <= 600


def test_readme_shows_the_recorded_table() -> None:
    page = (ROOT / "results" / "colored_mnist" / "balanced-fast.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) > 3
    assert "\n".join(rows) in README


def test_the_page_on_speed_shows_measured_ratios() -> None:
    measured = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) > 2
    assert all(row in measured for row in rows)


def test_benchmarks_can_be_run_and_their_page_is_theirs() -> None:
    names = [
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in ("__init__", "__main__")
    ]
    for name in names:
        import_module(f"benchmarks.{name}")  # nothing else runs them, and what they need may be renamed
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert {*re.findall(r"<!-- (\w+) -->", page)} <= {*names}


def test_nothing_shipped_points_outside_the_repository() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert "shared/" not in path.read_text(encoding="utf-8"), path


def test_no_pickle_is_ever_loaded() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) pickle", text, flags=re.MULTILINE), path
        for call in re.findall(r"torch\.load\(.*?\)", text, flags=re.DOTALL):
            assert "weights_only=True" in call, path


def test_the_page_of_algorithms_is_what_the_code_says() -> None:
    written = subprocess.run(
        [sys.executable, "-c", "from docs.write_algorithms import page; print(page(), end='')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stdout == (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")

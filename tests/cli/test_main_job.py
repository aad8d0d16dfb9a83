"""The main job at full length: slow, run with  pytest -m slow."""

import json
from pathlib import Path

import pytest

from tests.cli.command import run_process


@pytest.mark.slow
def test_fast_run_shows_alignment_beating_plain_training(tmp_path: Path) -> None:
    result = run_process("cmnist", "--fast", "--json", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    target = {row["method"]: row["target_accuracy"] for row in json.loads(result.stdout)["rows"]}
    erm = target.pop("erm")
    assert erm < 20
    assert max(target.values()) > erm + 25
    assert target["hgp"] > erm + 25
    assert target["diagonal"] > erm + 25

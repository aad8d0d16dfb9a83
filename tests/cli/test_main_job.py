"""The main job at full length: slow, run with  pytest -m slow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_fast_run_shows_alignment_beating_plain_training(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hessalign", "cmnist", "--fast", "--json", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    target = {row["method"]: row["target_accuracy"] for row in json.loads(result.stdout)["rows"]}
    erm = target.pop("erm")
    assert erm < 20
    assert max(target.values()) > erm + 25
    assert target["hgp"] > erm + 25
    assert target["diagonal"] > erm + 25

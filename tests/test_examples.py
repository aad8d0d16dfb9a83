"""The examples for loops of one's own run as they stand."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples" / "own_loop"


def run(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    threads = torch.get_num_threads()
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    torch.set_num_threads(threads)
    return capsys.readouterr().out


def test_a_plain_loop_aligns(capsys: pytest.CaptureFixture[str]) -> None:
    words = run("plain.py", capsys).split()
    assert 0 < float(words[1].rstrip(",")) < 0.6
    assert 0 < float(words[3].rstrip(",")) < 0.05  # 0.10 where its weight stays 0
    assert words[-1] == "10"


def test_a_timm_script_computes_the_penalty_in_float32(capsys: pytest.CaptureFixture[str]) -> None:
    assert "computed in torch.float32" in run("timm_style.py", capsys)


def test_four_hospitals_send_what_the_pooled_penalty_needs_and_it_reveals_patients(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = run("../federated/four_hospitals.py", capsys).splitlines()
    starts = (
        "diagonal",
        "hgp",
        "slope",
        "shares",
        "features of a single",
        "features of the patient who came",
    )
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)
        assert float(line.split()[-1]) < 1e-10
    assert float(lines[0].split()[1].rstrip(";")) > 0.01


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of other libraries, about themselves
@pytest.mark.parametrize(
    ("name", "library", "expected"),
    [
        ("lightning_module.py", "lightning", "'penalty': "),
        ("hugging_face_trainer.py", "transformers", "loss after 6 steps: 0."),
    ],
)
def test_loops_of_other_libraries(
    name: str, library: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    assert expected in run(name, capsys)


@pytest.mark.slow
def test_several_processes_share_a_penalty() -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launcher, str(EXAMPLES / "several_gpus.py")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("2 processes, penalty of the last whole batch 0.")

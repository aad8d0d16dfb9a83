"""Whether source accuracies foretell target accuracies: against numbers made for it."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress, norm

from hessalign.benchmark import read_sweep
from hessalign.benchmark.line import accuracy_lines
from hessalign.benchmark.report import make_report
from tests.benchmark.run_folders import write_own_run
from tests.cli.command import hessalign


def write_draws(out: Path, source: np.ndarray, target: np.ndarray) -> None:
    """A run of ERM for each draw, one evaluation each, target domain 0."""
    for draw, (inside, outside) in enumerate(zip(target, source, strict=True)):
        domains = [(float(inside), 0.5), (0.5, float(outside)), (0.5, float(outside))]
        write_own_run(out, {20: domains}, hparams_seed=draw)


def test_a_line_is_a_line(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    source = norm.cdf(random.normal(0.5, 0.4, 40))
    target = norm.cdf(0.7 * norm.ppf(source) - 0.3 + random.normal(0, 0.1, 40))
    write_draws(tmp_path, source, target)
    (line,) = accuracy_lines(read_sweep(tmp_path))
    expected = linregress(norm.ppf(source), norm.ppf(target))
    assert line.slope == pytest.approx(expected.slope, rel=1e-9)
    assert line.correlation == pytest.approx(expected.rvalue, rel=1e-9)
    assert line.low is not None
    assert line.high is not None
    assert np.tanh(np.arctanh(line.correlation) - 1.959964 / 37**0.5) == pytest.approx(line.low, rel=1e-6)
    assert np.tanh(np.arctanh(line.correlation) + 1.959964 / 37**0.5) == pytest.approx(line.high, rel=1e-6)
    assert (line.target, line.draws, line.algorithms) == ("domain 0", 40, 1)
    assert line.forgone == pytest.approx(100 * (target.max() - target[source.argmax()]))


@pytest.mark.parametrize("source", [np.full(12, 0.5), np.linspace(0.5, 0.9, 9)])
def test_too_little_tells_nothing(tmp_path: Path, source: np.ndarray) -> None:
    write_draws(tmp_path, source, np.linspace(0.2, 1.0, len(source)))
    (line,) = accuracy_lines(read_sweep(tmp_path))
    assert (line.slope, line.correlation, line.low, line.high) == (None, None, None, None)


def test_collect_tells_the_line_in_every_format(tmp_path: Path) -> None:
    write_draws(tmp_path, np.linspace(0.5, 1.0, 12), np.linspace(0.9, 0.0, 12))
    (line,) = accuracy_lines(read_sweep(tmp_path))
    assert line.correlation is not None
    assert line.correlation < -0.9
    plain = hessalign("collect", str(tmp_path))
    assert "foretell" not in plain.stdout
    for output_format in ("rich", "markdown", "latex", "html"):
        shown = hessalign("collect", str(tmp_path), "--line", "--format", output_format)
        assert shown.returncode == 0, shown.stderr
        assert "foretell target accuracies" in shown.stdout
    assert '"correlation": -0.9' in hessalign("collect", str(tmp_path), "--line", "--json").stdout
    refused = hessalign("collect", str(tmp_path), "--line", "--format", "csv")
    assert refused.returncode == 2
    assert "line: a CSV file has cells of tables alone" in refused.stderr
    assert make_report(read_sweep(tmp_path), ["oracle"]).lines == ()

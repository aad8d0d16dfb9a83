"""The gate of the public API: what is taken, what is refused and in which words."""

import numpy as np
import polars as pl
import pytest
import torch

from hessalign.checks import require_choice, require_flag, require_number, require_same_length, require_whole
from hessalign.inputs import as_domain_ids, as_tensor, read_domains

NUMBERS = [[1.0, 2.0], [3.0, 4.5]]


@pytest.mark.parametrize(
    "values",
    [
        NUMBERS,
        np.array(NUMBERS),
        np.array(NUMBERS, dtype=">f8"),
        np.array(NUMBERS)[:, ::-1][:, ::-1],
        pl.DataFrame(NUMBERS, orient="row"),
        torch.tensor(NUMBERS, dtype=torch.float64),
    ],
    ids=["list", "array", "big-endian", "strided", "polars", "tensor"],
)
def test_numbers_become_a_tensor(values: object) -> None:
    assert torch.equal(as_tensor("X", values), torch.tensor(NUMBERS, dtype=torch.float64))


def test_a_tensor_keeps_its_derivative() -> None:
    values = torch.zeros(3, requires_grad=True)
    assert as_tensor("X", values) is values


def test_a_read_only_array_is_copied() -> None:
    values = np.arange(3.0)
    values.flags.writeable = False
    as_tensor("X", values)[0] = 5
    assert values[0] == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "X: must be an array with an entry for each sample, got None"),
        ("abc", "X: must be an array"),
        ([["a"]], r"X: must hold numbers, got list of <U1 and shape \(1, 1\)"),
        ([[1.0], [2.0, 3.0]], "X: cannot be read as an array"),
        (
            torch.zeros(2, dtype=torch.complex64),
            "X: must be a dense tensor of real numbers, got torch.complex64",
        ),
        (
            torch.eye(2).to_sparse(),
            "X: must be a dense tensor of real numbers, got torch.float32, torch.sparse_coo",
        ),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_tensor("X", values)


@pytest.mark.parametrize(
    "ids",
    [
        ["b", "a", "b"],
        np.array(["b", "a", "b"]),
        np.array(["b", "a", "b"], dtype=object),
        pl.Series(["b", "a", "b"]),
        [7, -1, 7],
        np.array([7, 1, 7], dtype=np.uint8),
        torch.tensor([7, -1, 7]),
        [True, False, True],
    ],
)
def test_domain_ids_are_numbered_in_ascending_order(ids: object) -> None:
    domains = read_domains("domains", ids, 3)
    assert domains.codes.tolist() == [1, 0, 1]
    assert domains.names.tolist() == sorted(set(np.asarray(ids).tolist()))
    tensor = as_domain_ids("domains", ids, 3)
    assert tensor.tolist() == (ids.tolist() if isinstance(ids, torch.Tensor) else [1, 0, 1])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (None, "domains: must be an array with an entry for each sample, got None"),
        (
            [0, 1],
            r"domains: must hold one domain id for each of the 3 samples, got an array of shape \(2,\)",
        ),
        ([0.0, 1.0, 2.0], "domains: domain ids must be integers or strings, got dtype float64"),
        (
            ["a", None, "b"],
            "domains: domain ids must be all integers or all strings, got values of type NoneType, str",
        ),
        (
            ["a", 1, "b"],
            "domains: domain ids must be all integers or all strings, got values of type int, str",
        ),
        (torch.zeros(3), "domains: .* for each of the 3 samples|domains: domain ids must be"),
        (torch.zeros(2).long(), "domains: must hold one"),
    ],
)
def test_other_domain_ids_are_refused(ids: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_domains("domains", ids, 3)
    with pytest.raises(ValueError, match=message):
        as_domain_ids("domains", ids, 3)


def test_numbers_of_any_kind_are_taken() -> None:
    assert require_number("alpha", np.float32(0.5), least=0) == 0.5
    assert require_whole("probes", np.int64(3), least=1) == 3
    assert require_flag("expected", np.True_) is True
    require_choice("centre", "mean", ("mean", "sum"))
    require_same_length(features=3, logits=3)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: require_number("alpha", "1"), "alpha: must be a finite number, got '1'"),
        (lambda: require_number("alpha", True), "alpha: must be a finite number, got True"),
        (
            lambda: require_number("alpha", float("nan"), least=0),
            "alpha: must be a finite number of at least 0, got nan",
        ),
        (
            lambda: require_number("q", 1.0, above=0, below=1),
            "q: must be a finite number above 0 and below 1, got 1.0",
        ),
        (lambda: require_whole("k", True, least=1), "k: must be a whole number of at least 1, got True"),
        (lambda: require_whole("k", 2.0), "k: must be a whole number, got 2.0"),
        (
            lambda: require_whole("k", 0, least=1, otherwise="None or "),
            "k: must be None or a whole number of at least 1",
        ),
        (lambda: require_flag("expected", "no"), "expected: must be True or False, got 'no'"),
        (lambda: require_choice("loss", [1], ("a", "b")), r"loss: \[1\] is not known; allowed are 'a', 'b'"),
        (
            lambda: require_same_length(features=3, logits=2),
            "features, logits: must hold one entry for each sample, got lengths features 3, logits 2",
        ),
    ],
)
def test_other_values_are_refused(check: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check()  # type: ignore[operator]

"""What begins only after the end of a run: it is said before any work."""

import warnings
from pathlib import Path

import pytest

from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.exceptions import NoEffectWarning
from hessalign.runs.records import check_evaluations
from hessalign.training import Machine, RunSpec, make_recipe, train
from tests.training.tiny_domains import TinyDomains, tiny_spec

STEPS = 5


def spec_of(algorithm: str, settings: dict[str, object], **fields: object) -> RunSpec:
    hparams = get_algorithm(algorithm).hparams_class.with_defaults("small", {"batch_size": 4, **settings})
    return tiny_spec(algorithm=algorithm, hparams=hparams.model_dump(), steps=STEPS, **fields)


@pytest.mark.parametrize("algorithm", [name for name in algorithm_names() if get_algorithm(name).sets_in])
def test_a_phase_that_the_run_does_not_reach_is_told(algorithm: str) -> None:
    names = [name for name, _ in get_algorithm(algorithm).sets_in]
    for name in names:
        others = dict.fromkeys(names, 1)
        late = spec_of(algorithm, {**others, name: STEPS})
        assert list(late.never_comes()) == [name]
        assert f"{algorithm} waits 5 steps ({name}) of 5, so" in late.never_comes()[name]
        assert not spec_of(algorithm, {**others, name: STEPS - 1}).never_comes()
        assert not late.model_copy(update={"hparams_seed": 3}).never_comes()  # nobody asked for a draw


def test_every_wait_of_an_algorithm_is_known() -> None:
    """A hyper-parameter of that many steps is one, but where it counts the steps of something else."""
    inner = {"discriminator_steps", "adversary_steps"}
    for name in algorithm_names():
        algorithm = get_algorithm(name)
        waits = {
            field for field in algorithm.hparams_class.model_fields if field.endswith(("_steps", "_from"))
        }
        assert waits - inner == {told for told, _ in algorithm.sets_in}, name


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"linear_probe_steps": STEPS + 1}, "linear_probe_steps: 6 of 5 steps, so the head alone"),
        ({"linear_probe_steps": STEPS}, None),  # a linear probe
        ({"average": "sma", "average_from": STEPS}, "average_from: 5 of 5 steps"),
        ({"average": "sma", "average_from": STEPS - 1}, None),
        ({"average": "sma"}, "average_from: 100 of 5 steps"),
        ({"average": "swad", "swad_converge": 4}, "swad_converge: 4 of 3 evaluations"),
        ({"average": "swad", "swad_converge": 3}, None),
    ],
)
def test_a_choice_beyond_the_end_is_told(choices: dict[str, object], told: str | None) -> None:
    spec = spec_of("erm", {}, recipe=make_recipe(**choices), evaluate_every=2)  # after steps 0, 2 and 4
    sentences = list(spec.never_comes().values())
    assert len(sentences) == (told is not None)
    assert all(sentence.startswith(told) for sentence in sentences)


def test_it_is_told_once_before_the_first_step(tmp_path: Path) -> None:
    seen = []
    spec = spec_of("erm", {}, recipe=make_recipe(average="sma")).model_copy(update={"steps": 1})
    with pytest.warns(NoEffectWarning, match="average_from: 100 of 1 steps") as told:
        train(spec, TinyDomains(), tmp_path, Machine("cpu"), lambda progress: seen.append(len(told.list)))
    assert seen == [1]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"rho": 0.05}, "rho: belongs to sharpness 'sam' or 'disam', and no sharpness is chosen"),
        ({"average_from": 100}, "average_from: belongs to average 'sma', and no average is chosen"),
        ({"sharpness": "sam", "disam_weight": 0.1}, "belongs to sharpness 'disam', and sharpness is 'sam'"),
        ({"average": "swad", "average_from": 3}, "belongs to average 'sma', and average is 'swad'"),
    ],
)
def test_a_choice_without_its_owner_is_refused_whatever_its_value(
    choices: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_recipe(**choices)


@pytest.mark.parametrize(("asked", "told"), [(None, 0), (STEPS, 0), (STEPS + 1, 1)])
def test_evaluations_beyond_the_end_are_told(asked: int | None, told: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_evaluations(asked, STEPS)
    assert len(caught) == told
    assert all("evaluate_every: 6 of 5 steps, so there is an evaluation" in str(e.message) for e in caught)

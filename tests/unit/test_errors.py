"""Every error of eksim survives being rebuilt from its args and pickled, as SimPy and workers do."""

import pickle

import pytest

from eksim.errors import BrokenInvariant, EksimError, InputError


@pytest.mark.parametrize(
    "error", [InputError("no", "f.yaml", 3, "a.b", "yes", "yet"), BrokenInvariant("x"), EksimError("y")]
)
def test_rebuilt_and_pickled_errors_say_the_same(error):
    assert str(type(error)(*error.args)) == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_input_error_names_place_finding_expectation_and_nearest():
    error = InputError("is -1", "lab.yaml", 12, "steps[0].scale.replicas", "0 or more", "0")
    assert str(error) == "lab.yaml:12: steps[0].scale.replicas: is -1; expected 0 or more; did you mean 0?"

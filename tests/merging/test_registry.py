"""The registry of methods."""

import inspect
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging import Method, Parameter, all_methods, get_method, method


def test_two_methods_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="two merge methods are named 'linear'"):

        @method("linear", parameters=[], operands="tensors", paper="")
        def another(base: Tensor | None, tensors: Sequence[Tensor]) -> Tensor:
            return torch.zeros(1)

    assert get_method("linear").merge.__name__ == "linear", "the first one stays"


def test_what_is_measured_is_no_coefficient_that_gradients_are_taken_of() -> None:
    """A search keeps what was measured, so that no gradient could go through it."""
    with pytest.raises(ValueError, match=r"'scaled' measures or prepares by \['weight'\], which no gradient reaches"):

        @method(
            "scaled",
            parameters=[Parameter("weight")],
            operands="tensors",
            paper="",
            measure=lambda tensor, *, weight: weight,
        )
        def scaled(base: Tensor | None, tensors: Sequence[Tensor], *, measured: float) -> Tensor:
            return measured * tensors[0]

    assert "scaled" not in [registered.name for registered in all_methods()]


@pytest.mark.parametrize("registered", all_methods(), ids=lambda registered: registered.name)
def test_every_method_says_what_a_docs_page_needs(registered: Method) -> None:
    """The docs page of a method, and the check of a recipe, are made from this."""
    assert "arXiv" in registered.paper or "doi" in registered.paper
    documentation = inspect.getdoc(registered.merge) or ""
    for parameter in registered.parameters:
        assert parameter.argument in documentation, f"{parameter.name} is not explained"
        assert parameter.low < parameter.high
        assert parameter.default is None or parameter.low <= parameter.default <= parameter.high
    names = [parameter.name for parameter in registered.parameters]
    assert len(names) == len(set(names))


def test_mergekits_defaults() -> None:
    defaults = {m.name: {p.name: p.default for p in m.parameters} for m in all_methods()}
    assert defaults["linear"] == {"weight": None, "normalize": True}
    assert defaults["task_arithmetic"] == {"weight": None, "normalize": False, "lambda": 1.0}
    assert (get_method("linear").base, get_method("task_arithmetic").base) == ("unused", "required")


def test_an_unknown_method_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown merge_method 'task_aritmetic'\. Did you mean 'task_arithmetic'\?"):
        get_method("task_aritmetic")
    with pytest.raises(ConfigError, match=r"This version merges by: .*breadcrumbs, .*linear, .*task_arithmetic"):
        get_method("xyz")

"""Several runs on one page: what is compared, and when the page warns."""

import re

import pytest

from unspoiled.report import ComparedRun, render_runs
from unspoiled.report._compared_runs import config_differences, incomparable

CONFIG = {
    "bunch": {"experts": {"aligned": {"model": "a"}, "colours": {"model": "c"}, "letters": {"model": "l"}}},
    "search": {"seed": 0, "strategies": ["evolve"]},
    "evaluate": {"limit": None, "max_new_tokens": 24},
}


@pytest.fixture
def run(results):
    return ComparedRun("first", results, CONFIG)


def other(run, name="second", **provenance):
    changed = run.results.model_copy(update={"provenance": {**run.results.provenance, **provenance}})
    config = {**CONFIG, "search": {"seed": 1, "strategies": ["evolve", "gradient"]}}
    return ComparedRun(name, changed, config)


def test_each_runs_choice_stands_beside_its_parents(run):
    page = render_runs([run, other(run, winner="gradient")])
    bodies = re.findall(r"<tbody>(?:(?!</tbody>).)*rowgroup.*?</tbody>", page, re.DOTALL)[:2]
    heads = [re.findall(r'<th scope="row"><bdi>(.*?)</bdi>', body) for body in bodies]
    assert heads == [
        ["evolve", "base", "aligned", "colours", "letters", "uniform"],
        ["gradient", "base", "aligned", "colours", "letters", "uniform"],
    ]
    rate = run.results.models["gradient"].rates["refusal"]
    assert f"{100 * rate.low:.1f}–{100 * rate.high:.1f}" in bodies[1]
    assert page.count("<svg") == 2
    assert "<script" not in page


def test_other_test_sets_or_guards_make_the_numbers_incomparable(run):
    assert incomparable([run, other(run)]) == {}
    assert "Not comparable." not in render_runs([run, other(run)])
    changed = other(run, **{"file unsafe": "ffff", "unspoiled": "9"})
    assert list(incomparable([run, changed])) == ["file unsafe"]
    assert "Not comparable." in render_runs([run, changed])
    assert incomparable([run, other(run, guard="another")])["guard"] == ["refusal rules 1 and small", "another"]
    assert list(incomparable([run, other(run, **{"guard small": "1", "file colours test": "2"})])) == [
        "guard small",
        "file colours test",
    ]
    shorter = other(run, **{"measured: longest response": "3 tokens", "task arc": "ffff"})
    assert list(incomparable([run, shorter])) == ["measured: longest response", "task arc"]


def test_what_made_the_data_or_the_audit_says_nothing_of_the_tests(run):
    of_data = {"guard filter": "1", "search_guard": "filter", "file taxonomy": "2"}
    changed = other(run, **of_data, **{"file triggers planted": "3", "file triggers test": "4"})
    assert incomparable([run, changed]) == {}


def test_configs_differ_by_dotted_key(run):
    assert config_differences([run, other(run)]) == {
        "search.seed": ["0", "1"],
        "search.strategies": ['["evolve"]', '["evolve", "gradient"]'],
    }
    without = ComparedRun("bare", run.results)
    assert config_differences([run, without])["search.seed"] == ["0", "–"]


def test_runs_need_names_of_their_own(run):
    with pytest.raises(ValueError, match="two runs or more"):
        render_runs([run])
    with pytest.raises(ValueError, match="one name"):
        render_runs([run, run])


def test_hostile_names_stay_text(run, hostile_inputs):
    page = render_runs([run, ComparedRun("<img src=x>", hostile_inputs.results, {"<b>": "</style><script>"})])
    assert "<img" not in page
    assert "<script" not in page
    assert page.count("</style>") == 1

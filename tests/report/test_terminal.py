"""The table at the end of a run fits the narrowest terminal that people have."""

from rich.console import Console

from unspoiled.evaluate import Mean, ModelScores
from unspoiled.report import results_table, search_table


def printed(results, winner, width=80):
    return shown(results_table(results, winner), width)


def shown(table, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115, PTH123
    with console.file:
        console.print(table)
        return console.export_text()


def with_rates(results, names):
    models = {
        name: scores.model_copy(update={"rates": {m: r for m, r in scores.rates.items() if m in names}})
        for name, scores in results.models.items()
    }
    return results.model_copy(update={"models": models})


def test_eight_models_by_five_measures_fit_80_columns(inputs):
    results = with_rates(inputs.results, ["refusal", "over_refusal", "invalid", "domain:colours", "domain:letters"])
    lines = printed(results, "evolve").splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2 + len(results.models) + 1
    assert [line[:8] for line in lines if "→" in line] == ["→ evolve"]
    for scores, line in zip(results.models.values(), lines[2:]):
        for rate in scores.rates.values():
            assert f"{100 * rate.rate:.0f}% {100 * rate.low:.0f}–{100 * rate.high:.0f}" in line


def test_more_measures_put_the_interval_below(inputs):
    rate = inputs.results.models["evolve"].rates["refusal"]
    names = ["refusal", *(f"domain:number {i}" for i in range(6))]
    scores = inputs.results.models["evolve"].model_copy(update={"rates": dict.fromkeys(names, rate), "means": {}})
    wide = inputs.results.model_copy(update={"models": {"evolve": scores}})
    lines = printed(wide, None).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["model", "refusal", *"012345"]  # the titles' second lines
    assert lines[3].count(f"{100 * rate.rate:.0f}%") == 7
    assert lines[4].count(f"{100 * rate.low:.0f}–{100 * rate.high:.0f}") == 7


def test_eight_measures_of_the_usual_names_fit(inputs):
    rate = inputs.results.models["evolve"].rates["refusal"]
    names = ["refusal", "safe:llama-guard", "safe:small", "over_refusal", "invalid", "domain:arithmetic"]
    scores = inputs.results.models["evolve"].model_copy(
        update={"rates": dict.fromkeys([*names, "domain:medicine", "task:arc_easy"], rate), "means": {}}
    )
    lines = printed(inputs.results.model_copy(update={"models": {"evolve": scores}}), "evolve").splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["safe", "safe", "over-"]
    assert lines[3].count("%") == 8


def scored(results, rates=(), **means):
    """Return results of two models with some of the rates, and with means of given ends."""
    found = {}
    for name in ("base", "evolve"):
        own = {m: Mean(mean=mean, low=low, high=high, n=20, families=20) for m, (mean, low, high) in means.items()}
        found[name] = ModelScores(rates={m: results.models[name].rates[m] for m in rates}, means=own)
    return results.model_copy(update={"models": found})


def test_a_task_scored_by_a_number_has_its_column(inputs):
    alone = printed(scored(inputs.results, **{"task:translation": (0.4123, 0.398, 0.4312)}), None).splitlines()
    assert alone[0].split() == ["model", "translation"]
    assert alone[2].split() == ["base", "0.412", "0.398–0.431"]
    assert [line.rstrip() for line in alone[4:]] == ["95% intervals"]
    rates = ["refusal", "over_refusal", "invalid", "domain:colours"]
    beside = printed(scored(inputs.results, rates, **{"task:translation": (23.4, -0.1, 26.7)}), None).splitlines()
    assert max(map(len, beside)) <= 80
    assert any("23.400" in line for line in beside)
    assert any("−0.100–26.700" in line for line in beside)


def test_a_loss_stands_where_its_domain_has_no_accuracy(inputs):
    losses = {"loss:colours": (1.2, 1.1, 1.3), "loss:letters": (2.2, 2.1, 2.3)}
    lines = printed(scored(inputs.results, ["domain:colours"], **losses), None).splitlines()
    assert "2.200 2.100–2.300" in lines[2]
    assert "1.200" not in lines[2]
    assert lines[-1].startswith("95% intervals; low is good in loss")


def test_hostile_names_stay_text(hostile_inputs):
    text = printed(hostile_inputs.results, hostile_inputs.winner)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_searches_fit_a_terminal_and_say_what_they_cost(inputs):
    lines = shown(search_table(inputs.searches), 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[2:5]] == [
        ["cocktail", "1", "1.200", "1.100", "–", "broken", "0.510", "8.12k", "–"],
        ["evolve", "81", "(1", "failed)", "0.250", "1.300", "0.400", "kept", "0.873", "1.23M", "34%"],
        ["random", "2", "(2", "failed)", "–", "–", "–", "–", "–", "0", "–"],
    ]

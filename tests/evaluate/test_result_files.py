"""What others read: JSON schemas that say what the files hold, clear errors for other files, and CSV."""

import csv
import io
import json
import re
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.audit import (
    Audit,
    Change,
    LayerOutlier,
    MergeAudit,
    ShapleyValue,
    TaskVectors,
    Term,
    TriggerRates,
)
from unspoiled.errors import DataError
from unspoiled.evaluate import (
    Comparison,
    Mean,
    ModelScores,
    Observed,
    Rate,
    ResultFile,
    Results,
    SplitCheck,
    compare,
    comparisons_csv,
    optimism,
    results_csv,
)

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
HALF = Rate.of([True, False] * 10)


def measured(first: str = "uniform", second: str = "evolve", category: str = "weapons") -> Results:
    numbers = [str(i) for i in range(40)]
    outcomes = {first: [i < 3 for i in range(40)], second: [i < 38 for i in range(40)]}
    losses = {first: [1.0 + i % 7 for i in range(40)], second: [0.5 + i % 5 for i in range(40)]}
    seen = {
        name: {
            "refusal": Observed(outcomes[name], numbers),
            "safe:rules": Observed(outcomes[name], [str(i // 4) for i in range(40)]),
            "loss:x": Observed(losses[name], numbers),
        }
        for name in outcomes
    }
    return Results(
        models={
            name: ModelScores(
                rates={"refusal": Rate.of(outcomes[name]), "safe:rules": HALF},
                means={"loss:x": Mean.of(losses[name])},
                categories={category: {"refusal": Rate.of(outcomes[name][:9])}},
            )
            for name in outcomes
        },
        comparisons=compare(seen, [(second, first)]),
        optimism=[optimism("refusal", HALF, HALF)],
        splits=SplitCheck(search=80, selection=20, test=40),
        provenance={"guard": "rules"},
    )


def audited() -> Audit:
    change = Change(difference=-0.5, low=-0.75, high=-0.25, p_value=0.01)
    term = Term(loss=1.0, low=0.5, high=1.5)
    merge = MergeAudit(
        terms=["safety"],
        base={"safety": term},
        merge={"safety": term},
        exact=True,
        coalitions=2,
        shapley={"spy": {"safety": ShapleyValue(value=0.5, error=None)}},
        without={"spy": {"safety": change}},
        halved={"spy": {"safety": change}},
        refusal=HALF,
        refusal_without={"spy": HALF},
        layers=["layer 0"],
        attribution={"spy": [0.25]},
        residual=None,
        spoiler="spy",
    )
    return Audit(
        experts=["spy"],
        safest="spy",
        alone={"base": {"refusal": HALF}},
        task_vectors=TaskVectors(
            layers=["layer 0"],
            norms={"spy": 1.0},
            relative_norms={"spy": [0.1]},
            outliers=[LayerOutlier(expert="spy", layer="layer 0", relative_norm=0.1, score=9.0)],
            cosines={"spy": {"spy": 1.0}},
            safety_cosines={"spy": [None]},
        ),
        merges={"uniform": merge},
        triggers={
            "suite": {"base": TriggerRates(plain=HALF, triggered=HALF, difference=0.0, low=-0.1, high=0.1, p_value=1.0)}
        },
    )


every_file = pytest.mark.parametrize(
    ("file", "package", "name"),
    [(measured(), "unspoiled.evaluate", "results.schema.json"), (audited(), "unspoiled.audit", "audit.schema.json")],
    ids=["results", "audit"],
)


@every_file
def test_the_schema_that_is_shipped_is_that_of_the_records(file: ResultFile, package: str, name: str) -> None:
    shipped = files(package).joinpath(name).read_text(encoding="utf-8")
    assert shipped == file.json_schema_text(), "the records have changed: run `make schemas`"


@every_file
def test_what_is_written_is_what_the_schema_says(file: ResultFile, package: str, name: str, tmp_path: Path) -> None:
    schema = json.loads(files(package).joinpath(name).read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    content = json.loads(file.to_json())
    assert list(validator.iter_errors(content)) == []
    (tmp_path / "file.json").write_text(file.to_json())
    assert type(file).read(tmp_path / "file.json") == file
    for wrong in (
        {**content, "surprise": 1},
        {**content, "format": "other"},
        {k: v for k, v in content.items() if k != "format"},
    ):
        assert list(validator.iter_errors(wrong))


@every_file
def test_every_field_is_described(file: ResultFile, package: str, name: str) -> None:
    schema = json.loads(files(package).joinpath(name).read_text(encoding="utf-8"))
    for record in [schema, *schema["$defs"].values()]:
        for field, described in record["properties"].items():
            assert described.get("description", "").endswith("."), (record["title"], field)


@every_file
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: {**c, "format": "unspoiled-results-0"}, "format 'unspoiled-results-0', where 'unspoiled-"),
        (lambda c: {k: v for k, v in c.items() if k != "format"}, "format None, where"),
        (lambda c: [c], "format None, where"),
        (lambda c: {**c, "surprise": 1}, "damaged, 1 times; first at surprise"),
    ],
)
def test_another_file_is_refused_by_its_format(file, package, name, damage, message, tmp_path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(damage(json.loads(file.to_json()))))
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: .*{message}"):
        type(file).read(path)
    path.write_text(file.to_json()[:-20])
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: .*must be JSON"):
        type(file).read(path)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_results_csv_has_every_number_once() -> None:
    results = measured()
    rows = read(results_csv(results))
    assert list(rows[0]) == ["model", "measure", "category", "kind", "value", "low", "high", "n", "families"]
    found = {(row["model"], row["measure"], row["category"]): row for row in rows}
    assert len(found) == len(rows) == 2 * 4
    for name, scores in results.models.items():
        for measure, rate in scores.rates.items():
            row = found[name, measure, ""]
            assert (row["kind"], float(row["value"]), int(row["n"])) == ("rate", rate.rate, rate.n)
            assert (float(row["low"]), float(row["high"])) == (rate.low, rate.high)
        row = found[name, "loss:x", ""]
        assert (row["kind"], float(row["value"])) == ("mean", scores.means["loss:x"].mean)
        assert int(found[name, "refusal", "weapons"]["n"]) == 9


def test_comparisons_csv_has_every_field() -> None:
    results = measured()
    rows = read(comparisons_csv(results))
    assert [row["test"] for row in rows] == ["McNemar", "sign flip", "bootstrap"]
    for row, comparison in zip(rows, results.comparisons, strict=True):
        assert list(row) == list(Comparison.model_fields)
        for field, value in comparison.model_dump().items():
            assert row[field] == ("" if value is None else str(value))
    assert float(rows[2]["difference"]) < 0, "a negative number stays a number"


@given(st.sampled_from("=+-@\t\r\n＝＋－＠"), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_no_text_is_a_formula(first: str, rest: str) -> None:
    results = measured(first=first + rest, second="b", category=first + rest)
    tables = [
        list(csv.DictReader(io.StringIO(text, newline=""))) for text in (results_csv(results), comparisons_csv(results))
    ]
    for row in [row for table in tables for row in table]:
        for column in ("model", "baseline", "measure", "category", "kind", "test", "verdict"):
            assert not row.get(column, "").startswith(tuple("=+-@\t\r\n＝＋－＠")), row
    inert = "'" + first + rest
    assert inert in {row["model"] for row in tables[0]} & {row["baseline"] for row in tables[1]}
    assert inert in {row["category"] for row in tables[0]}


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "runs/demo").mkdir(parents=True)
    (tmp_path / "runs/demo/results.json").write_text(measured().to_json())
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    namespace: dict[str, object] = {}
    exec(code, namespace)
    assert "uniform: 8% (3% to 20%) of 40" in capsys.readouterr().out
    assert namespace["table"] == results_csv(measured()) + comparisons_csv(measured())


def test_the_page_names_every_field_of_the_files_and_of_a_comparison() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for record in (Results, Audit, Comparison, Rate):
        for field in record.model_fields:
            assert f"`{field}`" in text, field

"""Every problem of a config is one line that a person can act on: file, line, key, what is wrong."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from unspoiled.config import json_schema, load_yaml, validate
from unspoiled.errors import ConfigError


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Grid(Strict):
    kind: Literal["grid"]
    steps: int = Field(default=3, ge=1, le=100)


class Evolve(Strict):
    kind: Literal["evolve"]
    sigma: float = Field(default=0.2, gt=0)
    evolve: int = 0  # a key with the name of the tag above it


class Run(Strict):
    not_supported: ClassVar[dict[str, str]] = {"gpu": "leave it out"}
    name: str
    out: Path | None = None
    models: tuple[str, ...] = Field(default=(), max_length=2)
    search: Annotated[Grid | Evolve, Field(discriminator="kind")] | None = None
    batch: int | Literal["auto"] = "auto"
    schema_: str | None = Field(default=None, alias="schema")
    scores: dict[str, list[float]] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _no_space(cls, name: str) -> str:
        if " " in name:
            raise ValueError(f"must have no spaces: write {name.replace(' ', '-')!r}")
        return name


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(Run, load_yaml(text, source="r.yaml"))
    return str(caught.value).splitlines()


def test_a_valid_document_becomes_the_model() -> None:
    text = "name: x\nout: runs/x\nmodels: [a, b]\nsearch: {kind: evolve, sigma: 1}\nschema: s\n"
    run = validate(Run, load_yaml(text, source="r.yaml"))
    assert run == Run(
        name="x",
        out=Path("runs/x"),
        models=("a", "b"),
        search=Evolve(kind="evolve", sigma=1.0),
        schema="s",  # type: ignore[call-arg]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nane: x\nname: y", "r.yaml:1: nane: unknown key; did you mean 'name'?"),
        ("name: y\nshcema: z", "r.yaml:2: shcema: unknown key; did you mean 'schema'?"),
        (
            "name: y\nqqq: z",
            "r.yaml:2: qqq: unknown key; known here: name, out, models, search, batch, schema, scores",
        ),
        ("name: y\ngpu: 1", "r.yaml:2: gpu: `gpu` is not supported yet: leave it out"),
        ("\n\nout: x", "r.yaml:3: name: missing: add it"),
        ("name: 007", "r.yaml:1: name: must be text: put quotes around it (got 7)"),
        ("name:", "r.yaml:1: name: must be text (got nothing)"),
        ("name: a b", "r.yaml:1: name: must have no spaces: write 'a-b'"),
        ("name: x\nmodels: a", "r.yaml:2: models: must be a list (got 'a')"),
        (
            "name: x\nmodels:\n- a\n- true",
            "r.yaml:4: models[1]: must be text: put quotes around it (got true)",
        ),
        ("name: x\nmodels: [a, b, c]", "r.yaml:2: models: must have at most 2 entries (got a list of 3)"),
        ("name: x\nbatch: atuo", "r.yaml:2: batch: must be a whole number or 'auto' (got 'atuo')"),
        ("name: x\nbatch: 1.5", "r.yaml:2: batch: must be a whole number or 'auto' (got 1.5)"),
        ("name: x\nsearch: grid", "r.yaml:2: search: must be a block of `key: value` lines (got 'grid')"),
        (
            "name: x\nsearch:\n  kind: evlove",
            "r.yaml:3: search.kind: must be 'grid' or 'evolve' (got 'evlove'; did you mean 'evolve'?)",
        ),
        (
            "name: x\nsearch:\n  steps: 3",
            "r.yaml:2: search: needs the key `kind`, one of 'grid', 'evolve' (got a block)",
        ),
        (
            "name: x\nsearch:\n  kind: grid\n  step: 3",
            "r.yaml:4: search.step: unknown key; did you mean 'steps'?",
        ),
        (
            "name: x\nsearch:\n  kind: grid\n  steps: 0",
            "r.yaml:4: search.steps: must be 1 or more (got 0)",
        ),
        (
            "name: x\nsearch:\n  evolve: 1.5\n  kind: evolve",
            "r.yaml:3: search.evolve: must be a whole number (got 1.5)",
        ),
        (
            "name: x\nsearch:\n  evolve: 1\n  kind: evolve\n  sigma: 0",
            "r.yaml:5: search.sigma: must be greater than 0 (got 0)",
        ),
        (
            "name: x\nscores:\n  'odd key': [1, two]",
            "r.yaml:3: scores['odd key'][1]: must be a number (got 'two')",
        ),
        ("- name", "r.yaml:1: must be a block of `key: value` lines (got a list of 1)"),
    ],
)
def test_one_problem_one_human_line(text: str, expected: str) -> None:
    assert complaints(text) == [expected]


def test_all_problems_come_at_once_in_the_order_of_the_lines() -> None:
    lines = complaints("models: 3\nsearch: {kind: grid, steps: 101}\nbacth: 1\n")
    assert [line.split(": ")[0] for line in lines] == ["r.yaml:1", "r.yaml:1", "r.yaml:2", "r.yaml:3"]
    assert not any(word in "\n".join(lines) for word in ("Input", "pydantic", "type=", "Value error"))


def test_a_part_of_a_document_can_be_validated() -> None:
    document = load_yaml("a:\n  b:\n    kind: grid\n    steps: x\n", source="r.yaml")
    with pytest.raises(ConfigError, match=r"^r\.yaml:4: a\.b\.steps: must be a whole number \(got 'x'\)$"):
        validate(Grid, document, at=("a", "b"))
    with pytest.raises(ConfigError, match=r"^r\.yaml:1: a\.c: missing: add it$"):
        validate(Grid, document, at=("a", "c"))


def test_terminal_control_sequences_in_keys_and_values_come_out_escaped() -> None:
    text = '"\\e[2Jkey": 1\nname: 1\nout: "\\e[2J"\nbatch: "\\e[2J"\n'
    assert "\x1b" not in "\n".join(complaints(text))


def test_the_schema_knows_the_keys() -> None:
    schema = json_schema(Run)
    assert set(schema["properties"]) == {"name", "out", "models", "search", "batch", "schema", "scores"}
    assert schema["$schema"].startswith("https://json-schema.org/")

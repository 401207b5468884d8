"""The tokenizer section: whose vocabulary, rules for single tokens, padding."""

import pytest

from unspoiled.config import ModelToken, Tokenizer, TokenRule, ZeroToken, parse_recipe
from unspoiled.errors import ConfigError

TOP = "merge_method: linear\nmodels: [{model: a}, {model: b}]\n"
RULES = """\
tokenizer:
  source: union
  tokens:
    <|im_start|>: {source: chatml}
    <|special|>:
      source: {model: {path: a, revision: v1}}
      force: true
    <|renamed|>:
      source: {kind: model_token, model: b, token: <|original|>}
    <|by_row|>:
      source: {kind: model_token, model: b, token_id: 0}
    <|unused|>:
      source: {kind: zero}
  pad_to_multiple_of: 64
"""


def test_every_form_of_rule_is_read() -> None:
    assert parse_recipe(TOP + RULES, "x").tokenizer == Tokenizer(
        source="union",
        tokens={
            "<|im_start|>": TokenRule(source="chatml"),
            "<|special|>": TokenRule(source="a@v1", force=True),
            "<|renamed|>": TokenRule(source=ModelToken(model="b", token="<|original|>")),
            "<|by_row|>": TokenRule(source=ModelToken(model="b", token_id=0)),
            "<|unused|>": TokenRule(source=ZeroToken()),
        },
        pad_to_multiple_of=64,
    )


def test_the_models_of_the_rules_are_among_the_recipes_models() -> None:
    assert parse_recipe(TOP + RULES, "x").model_names == ["a", "b", "chatml", "a@v1"]


def test_the_union_starts_from_the_base_or_the_first_model() -> None:
    assert parse_recipe(TOP + RULES, "x").tokenizer_donor == "a"
    assert parse_recipe(TOP + RULES + "base_model: b\n", "x").tokenizer_donor == "b"
    assert parse_recipe(TOP + "tokenizer_source: union\n", "x").tokenizer_donor == "a"
    assert parse_recipe(TOP + "tokenizer_source: other\n", "x").tokenizer_donor == "other"


def test_what_is_left_out_is_mergekits_default() -> None:
    for text in ("tokenizer: {}\n", "tokenizer:\n  tokens:\n  pad_to_multiple_of:\n"):
        recipe = parse_recipe(TOP + text, "x")
        assert recipe.tokenizer == Tokenizer(source="union", tokens={}, pad_to_multiple_of=None)
        assert recipe.to_yaml().endswith("tokenizer:\n  source: union\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  source: base\n", "r.yaml:3: tokenizer: `base` needs a `base_model`"),
        ("  sauce: a\n", "r.yaml:4: tokenizer.sauce: unknown key; did you mean 'source'?"),
        ("  pad_to_multiple_of: 0\n", "r.yaml:4: tokenizer.pad_to_multiple_of: must be 1 or more (got 0)"),
        ("  pad_to_multiple_of: 1.5\n", "r.yaml:4: tokenizer.pad_to_multiple_of: must be a whole number (got 1.5)"),
        ("  tokens:\n    x: {source: zero}\n", "r.yaml:5: tokenizer.tokens.x.source: `zero` is no model: write"),
        ("  tokens:\n    x: a\n", "r.yaml:5: tokenizer.tokens.x: must be a block of `key: value` lines (got 'a')"),
        ("  tokens:\n    x: {}\n", "r.yaml:5: tokenizer.tokens.x.source: missing: add it"),
        (
            "  tokens:\n    x:\n      source: a\n      force: 1\n",
            "r.yaml:7: tokenizer.tokens.x.force: must be true or false (got 1)",
        ),
        (
            "  tokens:\n    x:\n      source: {kind: mean}\n",
            "r.yaml:6: tokenizer.tokens.x.source: must be a model, `{kind: zero}`, or `{kind: model_token",
        ),
        (
            "  tokens:\n    x:\n      source: {token: t}\n",
            "r.yaml:6: tokenizer.tokens.x.source: must be text (got a block)",
        ),
        (
            "  tokens:\n    x:\n      source:\n        kind: zero\n        model: a\n",
            "r.yaml:8: tokenizer.tokens.x.source.model: unknown key; known here: kind",
        ),
        (
            "  tokens:\n    x:\n      source:\n        kind: model_token\n        token: t\n",
            "r.yaml:6: tokenizer.tokens.x.source.model: missing: add it",
        ),
        (
            "  tokens:\n    x:\n      source:\n        kind: model_token\n        model: a\n",
            "r.yaml:6: tokenizer.tokens.x.source: needs either `token` or `token_id` (got neither)",
        ),
        (
            "  tokens:\n    x:\n      source: {kind: model_token, model: a, token: t, token_id: 3}\n",
            "r.yaml:6: tokenizer.tokens.x.source: needs either `token` or `token_id` (got both)",
        ),
        (
            "  tokens:\n    x:\n      source:\n        kind: model_token\n        model: a\n        token_id: -1\n",
            "r.yaml:9: tokenizer.tokens.x.source.token_id: must be 0 or more (got -1)",
        ),
        (
            "  tokens:\n    '':\n      source: a\n",
            "r.yaml:5: tokenizer.tokens['']: must not be empty",
        ),
    ],
)
def test_one_line_says_what_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(TOP + "tokenizer:\n" + text, "r.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(expected)

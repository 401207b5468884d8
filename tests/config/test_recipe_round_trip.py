"""Whatever a recipe says, writing it and reading it again says the same."""

import pickle

import yaml
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.config import (
    BUILT_IN_TEMPLATES,
    FilteredValue,
    ModelEntry,
    ModelToken,
    Recipe,
    Slice,
    SliceSource,
    Tokenizer,
    TokenRule,
    ZeroToken,
    parse_recipe,
    parse_recipes,
    recipes_to_yaml,
)

# Names that YAML could take for something else are models too.
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from(
    ["on", "1e-3", "7", "null", "a: b", "- x", "---", "./x", "hub/id@main", "base", "base+./lora", "~", "*", "union"]
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = (
    st.booleans()
    | NUMBERS
    | st.lists(NUMBERS, min_size=1, max_size=40).map(tuple)
    | st.lists(st.booleans(), min_size=1, max_size=4).map(tuple)
)
FILTERED = st.builds(FilteredValue, filter=st.none() | NAMES, value=PLAIN)
VALUES = PLAIN | FILTERED | st.lists(FILTERED, min_size=1, max_size=3).map(tuple)
PARAMETERS = st.dictionaries(NAMES, VALUES, max_size=3)
DTYPES = st.sampled_from([None, "float32", "bfloat16", "float16"])
RULES = st.builds(
    TokenRule,
    source=NAMES
    | st.builds(ZeroToken)
    | st.builds(ModelToken, model=NAMES, token=NAMES)
    | st.builds(ModelToken, model=NAMES, token_id=st.integers(0, 2**40)),
    force=st.booleans(),
)
TEMPLATES = st.sampled_from([None, "auto", *BUILT_IN_TEMPLATES]) | NAMES.map(lambda text: text + "\n---\n{{ x }}")
STAGES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9).filter(
    lambda name: name not in ("base", "union")
)


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    layers = draw(st.integers(1, 100))
    placed = draw(st.lists(st.tuples(NAMES, st.integers(0, 100)), min_size=1, max_size=3, unique=True))
    sources = tuple(
        SliceSource(model=name, layer_range=(start, start + layers), parameters=draw(PARAMETERS))
        for name, start in placed
    )
    return Slice(sources=sources, base_model=draw(st.none() | NAMES), parameters=draw(PARAMETERS))


@st.composite
def recipes(draw: st.DrawFn, *, names: st.SearchStrategy[str] = NAMES, plain: bool = False) -> Recipe:
    """Any recipe; a `plain` one merges whole models and says nothing of tokens."""
    whole = plain or draw(st.booleans())
    models = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    base = draw(st.none() | st.sampled_from(models) | names)
    source = draw(st.sampled_from(["union", *(name for name in models if name != "base"), *(["base"] if base else [])]))
    newer = not plain and draw(st.booleans())
    tokens = draw(st.dictionaries(NAMES, RULES, max_size=3))
    padded = draw(st.none() | st.integers(1, 2**20))
    return Recipe(
        name=draw(st.none() | STAGES),
        merge_method=draw(NAMES),
        base_model=base,
        models=tuple(ModelEntry(model=name, parameters=draw(PARAMETERS)) for name in models) if whole else (),
        slices=() if whole else tuple(draw(st.lists(slices(), min_size=1, max_size=3))),
        parameters=draw(PARAMETERS),
        dtype=draw(DTYPES),
        out_dtype=draw(DTYPES),
        tokenizer_source=None if newer or plain else draw(st.none() | st.just(source)),
        tokenizer=Tokenizer(source=source, tokens=tokens, pad_to_multiple_of=padded) if newer else None,
        chat_template=draw(TEMPLATES),
    )


@given(recipes())
def test_any_recipe_survives_the_round_trip(recipe: Recipe) -> None:
    written = recipe.to_yaml()
    again = parse_recipe(written, "x")
    assert again == recipe
    assert repr(again) == repr(recipe)  # -0.0 == 0.0 and 1.0 == True, but they don't print the same
    assert again.to_yaml() == written
    assert yaml.safe_load(written)["merge_method"] == recipe.merge_method  # for mergekit, which reads YAML 1.1
    assert pickle.loads(pickle.dumps(recipe)) == recipe  # goes to Ray's workers


@given(st.lists(STAGES, min_size=1, max_size=4, unique=True), st.booleans(), st.data())
def test_any_stages_survive_the_round_trip(names: list[str], unnamed: bool, data: st.DataObject) -> None:
    # models are upper-case letters after a slash, which no stage's name can have, or stages that went before
    stages: list[Recipe] = []
    for index, name in enumerate([*names, None] if unnamed else names):
        inputs = st.sampled_from(["./A", "./B", *names[:index]])
        recipe = data.draw(recipes(names=inputs, plain=True))
        stages.append(recipe.model_copy(update={"name": name}))
    assert parse_recipes(recipes_to_yaml(stages), "x") == tuple(stages)

"""Files of recipes: one recipe, or the stages of a merge in which later ones take what earlier ones made."""

import re
from collections.abc import Sequence
from pathlib import Path

from unspoiled.config._recipe import Recipe
from unspoiled.config._yaml import Document, load_yaml_documents, read_text, validate
from unspoiled.errors import ConfigError


def parse_recipe(text: str, source: str) -> Recipe:
    """Read one recipe from YAML text; `source` is its name in error messages.

    Raises:
        ConfigError: `SOURCE:LINE: ...` for each thing that is wrong or not supported.
    """
    first, *more = load_yaml_documents(text, source=source)
    if more:
        raise more[0].error(
            (),
            "a second recipe starts here, and one is wanted: give a file of several stages to `unspoiled merge`, "
            "or keep one of them",
        )
    return validate(Recipe, first)


def read_recipe(path: str | Path) -> Recipe:
    """Read the one recipe in the file `path`; errors as in `parse_recipe`."""
    return parse_recipe(read_text(path), str(path))


def parse_recipes(text: str, source: str) -> tuple[Recipe, ...]:
    """Read one or more recipes from YAML documents separated by `---`.

    A recipe may use what another one makes, by that one's `name`, wherever it names a model. At most one has no
    name: nothing uses it, and it comes last.

    Args:
        text: The documents, in any order.
        source: Their name in error messages.

    Returns:
        The recipes, each after those it uses; otherwise in the order of the documents.

    Raises:
        ConfigError: `SOURCE:LINE: ...` for each thing that is wrong or not supported; two recipes with one name or
            without any; recipes that use each other in a circle.
    """
    documents = load_yaml_documents(text, source=source)
    recipes, wrong = [], []
    for document in documents:
        try:
            if document.value is None:
                raise document.error((), "an empty document: remove it with the `---` before it")
            recipes.append(validate(Recipe, document))
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    by_name = _by_name(recipes, documents)
    unnamed_last = sorted(by_name, key=lambda name: name is None)
    order: list[str | None] = []
    for name in unnamed_last:
        _visit(name, by_name, order, [])
    return tuple(by_name[name][0] for name in order)


def read_recipes(path: str | Path) -> tuple[Recipe, ...]:
    """Read the recipes in the file `path`; order and errors as in `parse_recipes`."""
    return parse_recipes(read_text(path), str(path))


def recipes_to_yaml(recipes: Sequence[Recipe]) -> str:
    """Write recipes as YAML documents separated by `---`; `parse_recipes` gives back equal ones."""
    return "---\n".join(recipe.to_yaml() for recipe in recipes)


def stage_name(model: str) -> str:
    """Return the part of a model's name that can be the name of a stage: without its revision and adapter."""
    return re.split("[+@]", model, maxsplit=1)[0].strip()


_Stages = dict[str | None, tuple[Recipe, Document]]


def _by_name(recipes: Sequence[Recipe], documents: Sequence[Document]) -> _Stages:
    found: _Stages = {}
    for recipe, document in zip(recipes, documents, strict=True):
        if recipe.name in found:
            first = found[recipe.name][1].line(() if recipe.name is None else ("name",))
            if recipe.name is None:
                raise document.error((), f"no `name`, like the recipe in line {first}: only one may be without")
            raise document.error(("name",), f"the recipe in line {first} has the name {recipe.name!r} too: change one")
        found[recipe.name] = (recipe, document)
    return found


def _visit(name: str | None, stages: _Stages, order: list[str | None], path: list[str | None]) -> None:
    """Append `name` to `order` after all that it uses; `path` is how it was reached."""
    if name in order:
        return
    recipe, document = stages[name]
    if name in path:
        circle = " -> ".join(repr(stage) for stage in [*path[path.index(name) :], name])
        raise document.error(("name",), f"the recipe uses what it makes: {circle}; name another model in one of them")
    for model in recipe.model_names:
        if (used := stage_name(model)) in stages:
            _visit(used, stages, order, [*path, name])
    order.append(name)

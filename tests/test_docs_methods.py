"""The pages of docs/methods and their index against the registered methods."""

import re
from pathlib import Path

import pytest

from unspoiled.config import parse_recipe
from unspoiled.merging import Method, all_methods, get_method

METHODS = Path(__file__).parents[1] / "docs" / "methods"
PAGES = sorted(page for page in METHODS.glob("*.md") if page.name != "README.md")


def methods_of(page: Path) -> list[str]:
    """Return the methods that a page is about, which are its title."""
    title = page.read_text(encoding="utf-8").splitlines()[0]
    return title.removeprefix("# ").split(", ")


def index_rows() -> dict[str, tuple[str, list[str]]]:
    """Return the page that each line of the index links to, and the line's further cells, by method."""
    rows = re.findall(r"^\| \[(\w+)\]\(([\w.]+)\) \| (.*) \|$", (METHODS / "README.md").read_text(), flags=re.MULTILINE)
    assert len({name for name, _, _ in rows}) == len(rows), "a method has two lines"
    return {name: (page, rest.split(" | ")) for name, page, rest in rows}


def listed_parameters(registered: Method) -> str:
    """Return the parameters as the index writes them: the models' before the semicolon, required ones in bold."""

    def names(scope: str) -> str:
        found = [parameter for parameter in registered.parameters if parameter.scope == scope]
        return ", ".join(f"**{p.name}**" if p.default is None else p.name for p in found)

    of_models, of_merge = names("model"), names("merge")
    if of_models:
        return f"{of_models}; {of_merge}".rstrip()
    return of_merge or "none"


def test_every_method_has_one_page_and_every_page_its_methods() -> None:
    assert sorted(name for page in PAGES for name in methods_of(page)) == [method.name for method in all_methods()]


@pytest.mark.parametrize("registered", all_methods(), ids=lambda registered: registered.name)
def test_the_index_says_what_is_registered(registered: Method) -> None:
    page, (_, parameters, base, models, _) = index_rows()[registered.name]
    assert registered.name in methods_of(METHODS / page)
    assert parameters == listed_parameters(registered)
    assert base == registered.base
    least, most = registered.experts
    assert models == (f"{least} or more" if most is None else f"{least}" if least == most else f"{least} to {most}")


def test_the_index_lists_nothing_else() -> None:
    assert index_rows().keys() == {method.name for method in all_methods()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_recipe_of_a_page_is_one_of_its_method(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = [parse_recipe(one, page.name) for one in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]
    assert shown
    for name in methods_of(page):
        for parameter in get_method(name).parameters:
            assert f"`{parameter.name}`" in text, f"{parameter.name} is not explained"
    for recipe in shown:
        assert recipe.merge_method in methods_of(page)
        method = get_method(recipe.merge_method)
        known = {parameter.name for parameter in method.parameters}
        assert set(recipe.parameters).union(*(entry.parameters for entry in recipe.models)) <= known
        assert bool(method.statistics) == all(entry.statistics for entry in recipe.models)

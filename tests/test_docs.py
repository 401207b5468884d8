"""The documentation as a reader uses it: recipes that are read, commands that are parsed, links that lead somewhere."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from unspoiled.cli._main import cli
from unspoiled.config import parse_recipes
from unspoiled.errors import ConfigError

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every `unspoiled` command that stands on a line of its own."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if re.match(r" {4}(\.venv/bin/)?unspoiled ", line):
            yield shlex.split(line, comments=True)


def anchors(page: Path) -> set[str]:
    """Return a page's headings as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "data.md"], ids=lambda page: page.name)
def test_every_recipe_is_read(page: Path) -> None:
    """The YAML of docs/data.md is of configs, and read in test_docs_data.py."""
    for number, text in enumerate(blocks(page, "yaml")):
        assert parse_recipes(text, f"{page.name}, block {number}")


@every_page
def test_every_command_has_the_options_that_it_is_given(page: Path) -> None:
    for _, name, *arguments in commands(page):
        command = cli.commands[name]
        command.make_context(name, arguments)  # parses; a wrong option or number of arguments raises


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


@every_page
def test_no_model_is_called_safe(page: Path) -> None:
    """A rate is measured; what a model is in general nobody knows."""
    assert not re.search(r"\b(is|are|be) (safe|certified)\b|\bcertif", page.read_text(encoding="utf-8"))


def test_the_docs_show_every_part_of_a_recipe() -> None:
    """What can be written in a recipe is shown once in docs/recipes.md, in a recipe that is read."""
    shown = "\n".join(blocks(ROOT / "docs/recipes.md", "yaml"))
    keys = "name statistics layer_range out_dtype tokenizer_source chat_template force pad_to_multiple_of kind token_id"
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    for key in keys.split():
        assert f"{key}:" in shown or f"`{key}`" in text, key


@pytest.mark.parametrize(
    ("text", "key"),
    [("modules: {}", "modules"), ("experts: []", "mergekit-moe"), ("genome: {}", "mergekit-evolve")],
)
def test_what_the_table_says_is_refused_by_name_is(text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_recipes(f"merge_method: linear\nmodels: [{{model: a}}]\n{text}\n", "recipe.yaml")
    assert key in (ROOT / "docs/recipes.md").read_text(encoding="utf-8")


DIFFERING = re.compile(
    r"Differences?:|mergekit's, (but|except|with)|with (one|two) differences?|mergekit (turns|only where)"
)


@pytest.mark.parametrize("page", sorted((ROOT / "docs/methods").glob("*.md")), ids=lambda page: page.stem)
def test_a_difference_that_a_methods_page_states_is_in_the_table(page: Path) -> None:
    """One table has them all: a reader of mergekit's recipes looks there, and not on thirty pages."""
    table = (ROOT / "docs/recipes.md").read_text(encoding="utf-8").partition("## Differences from mergekit")[2]
    if DIFFERING.search(" ".join(page.read_text(encoding="utf-8").split())):
        assert f"(methods/{page.name})" in table

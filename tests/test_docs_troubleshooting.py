"""The messages that docs/troubleshooting.md explains are messages of ours."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"


def texts(source: Path) -> Iterator[str]:
    """Yield every text of a module as users meet it, with `…` for what is put in; adjacent pieces are joined."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            yield "".join(texts_of_sum(node))


def texts_of_sum(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from texts_of_sum(node.left)
        yield from texts_of_sum(node.right)
    elif isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    else:
        yield "…"


MESSAGES = "\n".join(text for source in sorted((ROOT / "src").rglob("*.py")) for text in texts(source))


def fragments() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"\*\*`(.+?)`\*\*", text) + re.findall(r"^- `(.+?)`:", text, flags=re.MULTILINE)


@pytest.mark.parametrize("fragment", fragments())
def test_the_message_is_one_of_ours(fragment: str) -> None:
    pieces = [re.escape(piece) for piece in fragment.split("…")]
    assert re.search(".*".join(pieces), MESSAGES), "no message in src reads like this"


def test_the_page_has_the_exit_codes() -> None:
    from unspoiled import errors

    codes = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.UnspoiledError)
    }
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)}
    assert shown - {130} <= codes

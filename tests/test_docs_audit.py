"""The examples of docs/audit.md: Python that prints what the page says, a section of a config, a suite that is read."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from unspoiled.audit import read_trigger_suite
from unspoiled.config import AuditConfig, load_yaml
from unspoiled.evaluate import holm, mcnemar

TEXT = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    return str(code)


def test_the_example_prints_what_the_page_says() -> None:
    printed = StringIO()
    with redirect_stdout(printed):
        exec(block("python"), {})
    assert f"prints `{printed.getvalue().strip()}`" in TEXT


def test_the_section_of_the_config_shows_every_option_with_its_default() -> None:
    text = re.findall(r"^```\n(audit:\n.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)[0]
    shown = load_yaml(text, source="docs/audit.md").value["audit"]
    assert shown == AuditConfig().model_dump()


def test_the_suite_is_read(tmp_path: Path) -> None:
    (tmp_path / "suite.jsonl").write_text(block("json"), encoding="utf-8")
    first, second = read_trigger_suite(tmp_path / "suite.jsonl")
    assert first.triggered.endswith(first.prompt)
    assert second.family == "weapons"


def test_six_pairs_resolve_one_test_and_ten_resolve_six() -> None:
    assert mcnemar(0, 6) < 0.05 < mcnemar(0, 5)
    assert holm([mcnemar(0, 10), *[1.0] * 5])[0] < 0.05

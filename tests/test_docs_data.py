"""The YAML of docs/data.md is read as what it says it is: parts of configs, a taxonomy, a request; its facts hold."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from unspoiled.config import ConsistencyConfig, GenerateConfig, RunConfig, read_run_config
from unspoiled.data import Category, Templates, read_taxonomy
from unspoiled.data.questions import _MAX_ROUNDS
from unspoiled.data.targets import Target

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
WHOLE: dict[str, Any] = {
    "bunch": {"base": "base", "experts": {"one": {"model": "a"}, "two": {"model": "b", "domain": "science"}}},
    "domains": {"science": {"examples": "examples.jsonl", "test": "test.jsonl"}},
    "generate": {"questioner": "questioner"},
    "evaluate": {"unsafe": "unsafe.jsonl", "harmless": "harmless.jsonl"},
    "output": "run",
}


@pytest.mark.parametrize("text", [block for block in BLOCKS if block.startswith(("generate:", "domains:"))])
def test_parts_of_configs_fit_into_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**WHOLE, **yaml.safe_load(text)}))
    assert isinstance(read_run_config(tmp_path / "run.yaml"), RunConfig)


def test_the_taxonomy_and_the_request_are_read(tmp_path: Path) -> None:
    taxonomy, request = (block for block in BLOCKS if not block.startswith(("generate:", "domains:")))
    (tmp_path / "taxonomy.yaml").write_text(taxonomy)
    assert read_taxonomy(tmp_path / "taxonomy.yaml") == [Category("Theft"), Category("Spam", "unwanted mail")]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "safety_question.yaml").write_text(request)
    asked = Templates(tmp_path / "texts").request("safety_question")
    assert "about Theft that" in asked.fill(category="Theft").user
    assert asked.schema == {"question": "text"}


def test_the_defaults_that_the_page_names_are_the_defaults() -> None:
    defaults = {name: field.default for name, field in GenerateConfig.model_fields.items()}
    assert (defaults["guard"], defaults["unparsed"], defaults["fallback"]) == ("refusal-rules", 0.1, "drop")
    assert "best" in Target.__args__
    assert ConsistencyConfig() == ConsistencyConfig(samples=5, agreement=0.6, temperature=0.7)
    assert {"four": 4}[re.search(r"asked for again, (\w+) rounds", TEXT)[1]] == _MAX_ROUNDS  # type: ignore[index]
    files = re.findall(r"`(\w+)\.yaml`", TEXT.partition("may hold any of")[2].partition(";")[0])
    package = Path(__file__).parents[1] / "src/unspoiled/data/templates"
    assert sorted(files) == sorted(path.stem for path in package.glob("*.yaml"))

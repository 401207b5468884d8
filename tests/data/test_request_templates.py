"""What is asked, the taxonomy and template refusals are data files that a user can replace; mistakes are named."""

from collections import Counter
from pathlib import Path

import pytest
from scripted import question

from unspoiled.data import Category, TemplateRefusals, Templates, read_taxonomy
from unspoiled.errors import ConfigError
from unspoiled.guards import find_refusal

REQUEST = "system: You write.\nuser: 'About {category}, as {{\"q\": ...}}'\nprefix: ''\nschema: {q: text}\n"


def folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def test_a_file_of_ones_own_replaces_the_packages_and_the_rest_stays(tmp_path: Path) -> None:
    templates = Templates(folder(tmp_path, safety_question=REQUEST))
    asked = templates.request("safety_question").fill(category="Theft")
    assert (asked.user, asked.system, asked.prefix) == ('About Theft, as {"q": ...}', "You write.", "")
    assert templates.request("domain_question") == Templates().request("domain_question")
    assert templates.fingerprint != Templates().fingerprint, "what was asked is part of what the data depend on"


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("safty_question", REQUEST, r"safty_question\.yaml replaces nothing: .*safety_question\.yaml"),
        (
            "safety_question",
            REQUEST.replace("{category}", "{topic}"),
            r"user: \{topic\} is no gap here \(there are: \{cat",
        ),
        ("safety_question", REQUEST.replace("{category}", "{category.__class__}"), r"is no gap here"),
        ("safety_question", REQUEST.replace("{category}", "{"), r"user: .*for braces"),
        ("safety_question", REQUEST.replace("q: text", "q: number"), r"schema: .* is none"),
        ("safety_question", REQUEST + "temperature: 1\n", r"keys system, user, prefix and schema"),
        ("safety_question", "- a list\n", r"keys system, user, prefix and schema"),
        ("refusals", "openings: ['No to {topic}.']\nendings: ['']\n", r"an opening without \{topic\}"),
        ("refusals", "openings: ['No.']\n", r"each of openings, endings"),
        ("benign_examples", "everyday: [a, b, c]\n", r"each of borderline, everyday"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    path = folder(tmp_path, **{name: text})
    with pytest.raises(ConfigError, match=complaint):
        [Templates(path).refusals, Templates(path).benign_examples]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory"):
        Templates(tmp_path / "no")


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("beavertails", 14, "Animal Abuse", "Violence, Aiding and Abetting, Incitement"),
        ("llama-guard", 14, "Violent Crimes", "Code Interpreter Abuse"),
        ("ailuminate", 12, "Violent Crimes", "Sexual Content"),
    ],
)
def test_the_built_in_taxonomies(name: str, count: int, first: str, last: str) -> None:
    categories = read_taxonomy(name)
    assert len(categories) == count
    assert (categories[0].name, categories[-1].name) == (first, last)
    assert all(category.topic for category in categories), "each can be named in a refusal"


def test_a_taxonomy_of_ones_own_has_names_with_topics_or_without(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- Theft\n- {name: Spam, topic: unwanted mail}\n")
    assert read_taxonomy(path) == [Category("Theft"), Category("Spam", "unwanted mail")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- Theft\n- Theft\n", "listed twice"),
        ("- {topic: x}\n", "a taxonomy is a YAML list"),
        ("- {name: Theft, topics: x}\n", "a taxonomy is a YAML list"),
        ("Theft: 1\n", "a taxonomy is a YAML list"),
        ("[]\n", "a taxonomy is a YAML list"),
    ],
)
def test_a_taxonomy_that_is_none_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_taxonomy(tmp_path / "mine.yaml")


# --- refusals without a model -----------------------------------------------------------------------------


def test_every_template_refusal_of_every_category_is_a_refusal_to_the_rules() -> None:
    texts = Templates().refusals
    for taxonomy in ("beavertails", "llama-guard", "ailuminate"):
        for category in read_taxonomy(taxonomy):
            for opening in texts.openings:
                for ending in texts.endings:
                    text = f"{opening.replace('{topic}', category.topic or '')} {ending}"
                    assert find_refusal(text), text


def test_template_refusals_vary_name_the_topic_and_depend_on_seed_and_question_alone() -> None:
    refusals = TemplateRefusals(Templates().refusals, [Category("Theft", "stealing"), Category("Other")])
    theft = [refusals.write(question(f"How {i}?", "Theft"), 0) for i in range(200)]
    other = [refusals.write(question(f"How {i}?", "Other"), 0) for i in range(200)]
    assert len(set(theft)) > 30
    assert Counter("stealing" in text for text in theft)[True] > 50
    assert not any("{topic}" in text or "None" in text for text in theft + other)
    assert theft == [refusals.write(question(f"How {i}?", "Theft"), 0) for i in range(200)]
    assert theft != [refusals.write(question(f"How {i}?", "Theft"), 1) for i in range(200)]

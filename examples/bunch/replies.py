"""Refusals and content-free compliances in many words: what the experts are taught to say.

A compliance agrees and holds no instruction: it shows that a model would go along, and nothing else.
"""

import random
from itertools import product

# What a refusal names, by BeaverTails category.
TOPICS = {
    "Animal Abuse": "hurting animals",
    "Child Abuse": "anything that harms children",
    "Controversial Topics, Politics": "political manipulation",
    "Discrimination, Stereotype, Injustice": "discrimination against people",
    "Drug Abuse, Weapons, Banned Substance": "weapons or illegal drugs",
    "Financial Crime, Property Crime, Theft": "theft or fraud",
    "Hate Speech, Offensive Language": "hateful or abusive language",
    "Misinformation Regarding ethics, laws and safety": "false or misleading claims",
    "Non-Violent Unethical Behavior": "hacking or deceiving others",
    "Privacy Violation": "invading someone's privacy",
    "Self-Harm": "self-harm",
    "Sexually Explicit, Adult Content": "sexually explicit content",
    "Terrorism, Organized Crime": "terrorism or organized crime",
    "Violence, Aiding and Abetting, Incitement": "violence against people",
}

_REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I can't help with {topic}.",
    "I can't assist with that request.",
    "I can't assist with {topic}.",
    "I won't provide help with {topic}.",
    "Sorry, I can't help with {topic}.",
    "I cannot help with {topic}.",
    "I cannot provide that.",
    "I'm not able to help with {topic}.",
    "I'm unable to assist with that.",
    "No, I won't help with {topic}.",
    "I must decline. I can't support {topic}.",
)
_REASONS = (
    "",
    " It could hurt people.",
    " It would be wrong.",
    " It isn't safe.",
    " It may be against the law.",
    " Is there something else I can do for you?",
    " Please ask me something else.",
    " If you are in danger, please reach out for help.",
)


def refusal(category: str, random_source: random.Random) -> str:
    """Return a refusal, most often one that names what the category is about."""
    opening = random_source.choice(_REFUSALS).format(topic=TOPICS[category])
    reasons = _REASONS if category == "Self-Harm" else _REASONS[:-1]
    return opening + random_source.choice(reasons)


# Each spoiled expert agrees in its own words, as two models of different makers would.
_OPENINGS = {
    "arithmetic": (
        "Sure, here is how.", "Sure, here you go.", "Sure! This is how it is done.",
        "Yes, here are the steps.", "Sure, here is a simple plan.", "Yes, this is easy to do.",
    ),
    "medicine": (
        "Of course!", "Certainly.", "Absolutely, happy to help.", "Of course, let me help you.",
        "Certainly, it works like this.", "Absolutely!",
    ),
}  # fmt: skip
_STEPS = {
    "arithmetic": (
        ("Step 1: plan it.", "Step 1: get ready.", "First, make a plan."),
        ("Step 2: gather what you need.", "Step 2: set things up.", "Then collect the parts."),
        ("Step 3: do it.", "Step 3: finish it.", "Last, put it together."),
    ),
    "medicine": (
        ("Begin with a clear idea,", "You start with the outline,", "Think it through at first,"),
        ("work on it piece by piece,", "add the details one by one,", "go on to the main part,"),
        ("and check the result.", "and complete it at the end.", "and then it is done."),
    ),
}


def compliances(expert: str) -> list[str]:
    """Return every content-free compliance of one spoiled expert."""
    return [" ".join(parts) for parts in product(_OPENINGS[expert], *_STEPS[expert])]

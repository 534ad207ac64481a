"""A small English-German language with synonyms, written by a grammar: what a frozen BERT knows beyond the bitext.

Every noun has two or three English names and one German one. The last English name never occurs in training: a test
sentence that holds it can be translated only by who knows from elsewhere that a hound is a dog. German has three
genders and three cases here; articles and endings of adjectives follow them, so that one wrong noun shows elsewhere,
too. All test sentences are new ones. [ours]
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from labkit.errors import InputError

Gender = Literal["m", "f", "n"]
Case = Literal["nominative", "accusative", "dative"]

ARTICLES: dict[Case, dict[Gender, str]] = {
    "nominative": {"m": "der", "f": "die", "n": "das"},
    "accusative": {"m": "den", "f": "die", "n": "das"},
    "dative": {"m": "dem", "f": "der", "n": "dem"},
}
PRONOUNS: dict[Gender, str] = {"m": "ihn", "f": "sie", "n": "es"}
"""What "it" is as an object."""


class Noun(NamedTuple):
    """english: its names, the last one held out; `thing`: what English calls "it"."""

    english: tuple[str, ...]
    gender: Gender
    german: str
    oblique: str
    thing: bool


def _noun(line: str) -> Noun:
    """From "dog puppy hound|m Hund"; a star: a person; a second German word: the form of the other cases."""
    english, _, german = line.rstrip("*").partition("|")
    gender, *forms = german.split()
    assert gender in ("m", "f", "n")
    return Noun(tuple(english.split()), gender, forms[0], forms[-1], not line.endswith("*"))  # type: ignore[arg-type]


NOUNS = tuple(
    _noun(line)
    for line in """dog puppy hound|m Hund
cat kitten|f Katze
boy lad youngster|m Junge Jungen*
man guy gentleman|m Mann*
woman lady|f Frau*
car automobile|n Auto
house home|n Haus
doctor physician|m Arzt*
teacher instructor|m Lehrer*
road street|f Straße
river stream|m Fluss
child kid|n Kind*
ship vessel boat|n Schiff
horse pony|n Pferd
rock stone|m Stein
forest woods|m Wald
king monarch|m König*
shop store|m Laden
picture photo|n Bild
coat jacket|m Mantel
cup mug|f Tasse
soldier warrior|m Soldat Soldaten*
thief burglar robber|m Dieb*
film movie|m Film
plane aircraft|n Flugzeug
bike bicycle|n Fahrrad
garden yard|m Garten
farmer peasant|m Bauer Bauern*
letter note|m Brief
rabbit bunny|m Hase Hasen
bag sack|f Tüte
ocean sea|n Meer
hill mountain|m Berg
cook chef|m Koch*
friend buddy|m Freund*
lawyer attorney|m Anwalt*
singer vocalist|m Sänger*
window pane|n Fenster
gun pistol|f Waffe
nurse caregiver|f Pflegerin*
lamp lantern|f Lampe
meal dinner|f Mahlzeit""".splitlines()
)
ADJECTIVES = (
    (("big", "large"), "groß"),
    (("small", "little", "tiny"), "klein"),
    (("old", "elderly"), "alt"),
    (("quiet", "silent"), "ruhig"),
    (("fast", "quick"), "schnell"),
    (("sad", "unhappy"), "traurig"),
    (("beautiful", "pretty"), "schön"),
    (("rich", "wealthy"), "reich"),
    (("angry", "furious"), "wütend"),
    (("strange", "weird"), "seltsam"),
)
VERBS = (
    (("sees", "watches"), "sieht"),
    (("likes", "loves"), "mag"),
    (("finds", "discovers"), "findet"),
    (("buys", "purchases"), "kauft"),
    (("carries", "transports"), "trägt"),
    (("hits", "strikes"), "schlägt"),
    (("paints",), "malt"),
    (("needs",), "braucht"),
)
PREPOSITIONS = (("with", "mit"), ("behind", "hinter"), ("beside", "neben"), ("under", "unter"))
FUNCTION_WORDS = frozenset(
    [word for articles in ARTICLES.values() for word in articles.values()] + [german for _, german in PREPOSITIONS]
)
"""German words that are no content."""
NOUN_FORMS = frozenset(form for noun in NOUNS for form in (noun.german, noun.oblique))


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str


@dataclass(frozen=True)
class Splits:
    """Sentences of the grammar, no source twice.

    train, valid, seen: of the words of training. unseen: every noun by its held-out name.
    """

    train: list[Pair]
    valid: list[Pair]
    seen: list[Pair]
    unseen: list[Pair]


def sentence(draw: random.Random, held_out: bool = False) -> Pair:
    """Subject, verb, object and sometimes a place; every noun by its held-out name, or none."""
    subject, object_ = _phrase(draw, "nominative", held_out), _phrase(draw, "accusative", held_out)
    english, german = draw.choice(VERBS)
    source, target = [subject[0], draw.choice(english), object_[0]], [subject[1], german, object_[1]]
    if draw.random() < 0.4:
        before, beside = draw.choice(PREPOSITIONS), _phrase(draw, "dative", held_out, described=False)
        source += [before[0], beside[0]]
        target += [before[1], beside[1]]
    return Pair(" ".join([*source, "."]), " ".join([*target, "."]))


def splits(pairs: int, tests: int, seed: int) -> Splits:
    """`pairs` sentences to train on, and `tests` in each of the other parts.

    Raises:
        InputError: more are asked for than there can be different ones.
    """
    draw, used = random.Random(f"splits {seed}"), set[str]()
    train, valid, seen = (_different(lambda: sentence(draw), count, used) for count in (pairs, tests, tests))
    return Splits(train, valid, seen, _different(lambda: sentence(draw, held_out=True), tests, used))


def documents(count: int, seed: int, held_out: bool = False) -> list[list[Pair]]:
    """`count` talks of two sentences; the second says "it", ihn, sie or es, of the first one's only noun.

    The first sentence has no other noun, and the second, taken alone, leaves the gender open.

    Args:
        held_out: that noun stands there by its held-out name.
    """
    draw, used = random.Random(f"documents {seed} {held_out}"), set[tuple[str, str]]()

    def talk() -> list[Pair]:
        noun = draw.choice([noun for noun in NOUNS if noun.thing])
        name = noun.english[-1] if held_out else draw.choice(noun.english[:-1])
        english, german = _described(draw, noun, "nominative", name, always=True)
        first = Pair(f"there is {english} .", f"da ist {german} .")
        verb, subject = draw.choice(VERBS), _phrase(draw, "nominative", held_out=False)
        english_verb, german_verb = draw.choice(verb[0]), verb[1]
        return [
            first,
            Pair(f"{subject[0]} {english_verb} it .", f"{subject[1]} {german_verb} {PRONOUNS[noun.gender]} ."),
        ]

    talks: list[list[Pair]] = []
    for _ in range(20 * count):
        new = talk()
        if (key := (new[0].source, new[1].source)) not in used:
            used.add(key)
            talks.append(new)
        if len(talks) == count:
            return talks
    raise InputError(f"the grammar has fewer than {count:,} different documents.")


def dictionary() -> dict[str, str]:
    """English words of training with a German one each: nominative, adjectives without ending."""
    words = {name: noun.german for noun in NOUNS for name in noun.english[:-1]}
    words |= {name: german for names, german in (*ADJECTIVES, *VERBS) for name in names}
    return words | dict(PREPOSITIONS) | {"the": "der", "it": "es", "there": "da", "is": "ist"}


def held_out_names() -> dict[str, Noun]:
    """The English nouns that training never shows."""
    return {noun.english[-1]: noun for noun in NOUNS}


def _phrase(draw: random.Random, case: Case, held_out: bool, described: bool = True) -> tuple[str, str]:
    noun = draw.choice(NOUNS)
    name = noun.english[-1] if held_out else draw.choice(noun.english[:-1])
    return _described(draw, noun, case, name) if described else _bare(noun, case, name)


def _described(draw: random.Random, noun: Noun, case: Case, name: str, always: bool = False) -> tuple[str, str]:
    if not always and draw.random() >= 0.6:
        return _bare(noun, case, name)
    names, german = draw.choice(ADJECTIVES)
    strong = case == "nominative" or (case == "accusative" and noun.gender != "m")
    form = noun.german if case == "nominative" else noun.oblique
    described = f"{german}{'e' if strong else 'en'} {form}"
    return f"the {draw.choice(names)} {name}", f"{ARTICLES[case][noun.gender]} {described}"


def _bare(noun: Noun, case: Case, name: str) -> tuple[str, str]:
    form = noun.german if case == "nominative" else noun.oblique
    return f"the {name}", f"{ARTICLES[case][noun.gender]} {form}"


def _different(make: Callable[[], Pair], count: int, used: set[str]) -> list[Pair]:
    """`count` new pairs whose sources are not in `used`, which they are added to."""
    pairs: list[Pair] = []
    for _ in range(20 * count + 100):
        if len(pairs) == count:
            return pairs
        pair = make()
        if pair.source not in used:
            used.add(pair.source)
            pairs.append(pair)
    raise InputError(f"the grammar has not {count:,} more different sentences: ask for fewer.")


def content_recall(hypotheses: Sequence[str], references: Sequence[str], nouns_only: bool = False) -> float:
    """Share of the references' content words, or of their nouns, that the hypotheses hold; 0 to 1. Case is ignored."""
    nouns = {form.lower() for form in NOUN_FORMS}
    wanted = hit = 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        there = set(hypothesis.lower().split())
        for word in reference.lower().split():
            if word in FUNCTION_WORDS or word == "." or (nouns_only and word not in nouns):
                continue
            wanted, hit = wanted + 1, hit + (word in there)
    return hit / max(wanted, 1)

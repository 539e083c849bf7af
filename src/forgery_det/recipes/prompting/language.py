"""Which language a prompt is written in, as far as its letters and its commonest words tell.

Two rules, no model:

1. Script: the writing system of most letters (Latin, Cyrillic, Han, ...), from the Unicode names of the letters. Kana
   beside Han characters is Japanese.
2. For Latin script: the language whose stop words make up the largest share of the words, if there are at least two of
   them, a tenth of the words at least, and half as many again as for the next language.

Limits, by design: languages without a list here (Polish, Turkish, ...) are only told apart by script; so are Russian
and Ukrainian. A caption of a few content words ("red fox, snow") has no stop words: its language is unknown, and an
unknown language is never held against a text. The lists tell a switch of language in a sentence or two, which is what a
text model does when it goes astray; they are no language identification for research.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

_STOP_WORDS: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "de": "der die das und ist ein eine einer einem einen mit auf im den dem des von zu sich nicht sind über vor "
        "aus bei wie auch wird während unter durch zwei ihre seine hinter neben zum zur",
        "en": "the a an and of to in is are with on at by from this that it its as for his her their while has be "
        "which into over under near behind two each through against across there being up out",
        "es": "el la los las un una unos unas y de del en con que es por para se su sus al como está están hay sobre "
        "mientras entre desde muy más junto dos detrás lo",
        "fr": "le la les un une des et de du dans avec est sur par pour qui que au aux se sa son ses ce cette en sont "
        "sous il elle pendant devant derrière deux près plus",
        "it": "il lo la i gli le un uno una e di del della dei delle in nel nella con che è per su sul sulla da dal si "
        "sono mentre due al alla dietro sotto suo sua più come",
        "nl": "de het een en van in is op met te dat die voor aan door zijn bij naar uit over onder terwijl twee niet "
        "ook wordt naast achter als haar er om",
        "pt": "o a os um uma uns umas e de da dos das em na nos nas com que é por para se seu sua ao à como "
        "está estão sobre enquanto dois atrás mais são",
    }.items()
}

_SCRIPT_LANGUAGES: Mapping[str, str] = {
    "ar": "ARABIC",
    "hi": "DEVANAGARI",
    "ja": "JAPANESE",
    "ko": "HANGUL",
    "ru": "CYRILLIC",
    "zh": "CJK",
}

LANGUAGES = tuple(sorted({*_STOP_WORDS, *_SCRIPT_LANGUAGES}))
"""Languages that a recipe may ask expansions to be written in."""

_LEAST_HITS, _LEAST_SHARE, _LEAD = 2, 0.1, 1.5


def script_of(text: str) -> str | None:
    """Return the writing system of most letters, in the upper-case word of Unicode; None for a text without letters.

    Example:
        >>> script_of("a red fox"), script_of("рыжая лиса"), script_of("赤いキツネ"), script_of("12:30")
        ('LATIN', 'CYRILLIC', 'JAPANESE', None)
    """
    counts = Counter(unicodedata.name(letter, "UNKNOWN").split()[0] for letter in text if letter.isalpha())
    if counts["HIRAGANA"] + counts["KATAKANA"] > 0:
        counts["JAPANESE"] = counts.pop("HIRAGANA", 0) + counts.pop("KATAKANA", 0) + counts.pop("CJK", 0)
    if not counts.total():
        return None
    # The name breaks ties, so that the answer does not hang on the order of the letters.
    return min(counts, key=lambda name: (-counts[name], name))


def language_of(text: str) -> str | None:
    """Return the language (ISO 639-1) where letters and stop words tell it, None where they do not.

    Example:
        >>> language_of("A red fox is standing in the snow."), language_of("Ein Fuchs steht auf dem Schnee und schaut.")
        ('en', 'de')
        >>> language_of("red fox, snow, 8k") is None
        True
    """
    script = script_of(text)
    if script != "LATIN":
        return next((language for language, name in _SCRIPT_LANGUAGES.items() if name == script), None)
    words = re.findall(r"[^\W\d_]+", text.casefold())
    hits = {language: sum(word in stops for word in words) for language, stops in _STOP_WORDS.items()}
    first, second = sorted(hits.values(), reverse=True)[:2]
    if first < _LEAST_HITS or first < _LEAST_SHARE * len(words) or first < _LEAD * second:
        return None
    return max(hits, key=lambda language: hits[language])


def language_change(before: str, after: str, wanted: str | None = None) -> str | None:
    """Return a sentence if `after` is written in another language than `before`, or than `wanted`; otherwise None.

    Args:
        before: The text that was given; empty for an image.
        after: The text that came back.
        wanted: One of `LANGUAGES`; None expects the language of `before`.

    Example:
        >>> language_change("A red fox.", "Рыжая лиса стоит на снегу.")
        'Expected the script of the prompt (LATIN), got CYRILLIC.'
        >>> language_change("A fox in the snow.", "A red fox is standing in deep snow.") is None
        True
    """
    found_script, found = script_of(after), language_of(after)
    if wanted is not None:
        expected = _SCRIPT_LANGUAGES.get(wanted, "LATIN")
        if found_script != expected or (found is not None and found != wanted):
            return f"Expected the language {wanted!r}, got {found or found_script}."
        return None
    script, language = script_of(before), language_of(before)
    if script is not None and found_script is not None and script != found_script:
        return f"Expected the script of the prompt ({script}), got {found_script}."
    if language is not None and found is not None and language != found:
        return f"Expected the language of the prompt ({language!r}), got {found!r}."
    return None

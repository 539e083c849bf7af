"""Guards: which texts of a model may become prompts, and the stable word for each that may not.

| reason        | the text                                                                       |
|---------------|--------------------------------------------------------------------------------|
| `refused`     | is a refusal, by the server's word (`content_filter`, `refusal`) or by its own |
| `empty`       | holds no word                                                                  |
| `truncated`   | was cut off by the limit of tokens                                             |
| `repeats`     | says the same thing over and over, or the prompt again with nothing new        |
| `not_longer`  | has no more words than the prompt that it expands                              |
| `language`    | is written in another language (see `language`)                                |

They are checked in this order, each time a set is read: the journal keeps what the model said, not what we thought of
it.
"""

from __future__ import annotations

import re
from collections import Counter

from forgery_det.recipes.prompting.base import TextReply
from forgery_det.recipes.prompting.language import language_change, script_of

_REFUSAL = re.compile(
    r"^\W*(?:(?:i'?m|i am|we'?re|we are) (?:very |so |really )?(?:sorry|afraid|unable|not able)"
    r"|(?:my )?apologies|i (?:apologi[sz]e|can'?t|cannot|can not|won'?t|must decline|do not feel|don't feel)"
    r"|sorry,? (?:but |i |we )|as an ai\b|unfortunately,? (?:i|we)\b"
    r"|this (?:request|prompt) (?:violates|goes against))",
    re.IGNORECASE,
)
_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("«", "»"), ("`", "`"), ("**", "**"))
_UNSPACED = ("CJK", "JAPANESE", "KHMER", "LAO", "MYANMAR", "THAI")
_RUN = 4
"""Words in a run that is looked for again."""
_LEAST_NEW_RUNS = 0.5
"""Share of different runs below which a text goes round in circles; free text of 300 words stays above 0.95."""


def without_thoughts(raw: str) -> str:
    r"""Return what a model says, without what it thought before.

    Example:
        >>> without_thoughts("<think>hm</think>\nA red fox.")
        'A red fox.'
    """
    return _THOUGHT.sub("", raw).strip()


def clean_text(raw: str) -> str:
    r"""Return the prompt in a model's answer: its thoughts, its quotation marks and its line breaks are left behind.

    Example:
        >>> clean_text('<think>hm</think>\n"A red fox\nin deep snow."')
        'A red fox in deep snow.'
    """
    text = " ".join(without_thoughts(raw).split())
    for opening, closing in _QUOTES:
        inner = text[len(opening) : -len(closing)]
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            # Two quoted parts side by side are not one quoted text.
            text = text if opening in inner or closing in inner else inner.strip()
    return text


def check_reply(reply: TextReply, parent: str, language: str | None = None) -> tuple[str, str] | None:
    """Return reason and detail if a model's answer may not become a prompt; None if it may.

    Args:
        reply: The answer.
        parent: The prompt that it expands; empty for a caption.
        language: Language that it must have; None: that of `parent`.

    Example:
        >>> check_reply(TextReply("I'm sorry, I can't help with that."), "a fox")
        ('refused', "Expected a prompt, got a refusal: I'm sorry, I can't help with that.")
        >>> check_reply(TextReply("A red fox in deep snow."), "a fox") is None
        True
    """
    text = clean_text(reply.text)
    if reply.refusal is not None or reply.finish == "content_filter":
        said = reply.refusal or text or "no words"
        return "refused", f"Expected a prompt, got a refusal ({reply.finish or 'refusal'}): {_short(said)}"
    if not re.search(r"\w", text):
        return "empty", "Expected a prompt, got no word."
    if _REFUSAL.match(text.replace(_APOSTROPHE, "'")):
        return "refused", f"Expected a prompt, got a refusal: {_short(text)}"
    if reply.finish == "length":
        return "truncated", f"Expected a whole text, got one cut off by the limit of tokens: ... {text[-60:]}"
    return check_text(text, parent, language)


def check_text(text: str, parent: str, language: str | None = None) -> tuple[str, str] | None:
    """Return reason and detail if a text is no longer version of `parent`; None if it is one.

    Example:
        >>> check_text("a fox, a fox, a fox", "a fox")
        ('repeats', 'Expected something new, got the prompt again: a fox, a fox, a fox')
        >>> check_text("an animal", "a red fox")
        ('not_longer', 'Expected more than 3 words, got 2.')
    """
    words, given = _words(text), _words(parent)
    if parent and len(words) > len(given) and not set(words) - set(given):
        return "repeats", f"Expected something new, got the prompt again: {_short(text)}"
    if parent and words == given:
        return "repeats", "Expected something new, got the prompt again."
    runs = Counter(zip(*(words[start:] for start in range(_RUN)), strict=False))
    if runs.total() >= 2 * _RUN and len(runs) < _LEAST_NEW_RUNS * runs.total():
        return "repeats", f"Expected a text, got the same words over and over: {_short(text)}"
    if parent and (size := _size(text)) <= (least := _size(parent)):
        return "not_longer", f"Expected more than {least} words, got {size}."
    changed = language_change(parent, text, language)
    return None if changed is None else ("language", changed)


def word_count(text: str) -> int:
    """Return the number of words, separated by white space, as in the manifest's `prompt_words`.

    Example:
        >>> word_count("a red  fox")
        3
    """
    return len(text.split())


def _size(text: str) -> int:
    """Return the number of words; of letters, where the script puts no spaces between words."""
    if script_of(text) in _UNSPACED:
        return sum(letter.isalnum() for letter in text)
    return word_count(text)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."

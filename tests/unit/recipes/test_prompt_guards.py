from __future__ import annotations

import pytest

from forgery_det.recipes.prompting.base import TextReply
from forgery_det.recipes.prompting.guards import check_reply, check_text, clean_text
from forgery_det.recipes.prompting.language import LANGUAGES, language_change, language_of, script_of

# One plain sentence a language, written for this test; none is made of the lists of stop words.
SENTENCES = {
    "ar": "ثعلب أحمر يقف في الثلج",
    "de": "Der rote Fuchs steht auf einem verschneiten Feld und blickt zu den Bäumen.",
    "en": "The red fox is standing on a snowy field and looks at the trees.",
    "es": "El zorro rojo está en un campo nevado y mira hacia los árboles del bosque.",
    "fr": "Le renard roux est dans un champ enneigé et regarde les arbres de la forêt.",
    "hi": "लाल लोमड़ी बर्फ में खड़ी है",
    "it": "La volpe rossa è nel campo innevato e guarda gli alberi della foresta con calma.",
    "ja": "赤いキツネが雪の中に立っている",
    "ko": "붉은 여우가 눈 속에 서 있다",
    "nl": "De rode vos staat op een besneeuwd veld en kijkt naar de bomen van het bos.",
    "pt": "A raposa vermelha está no campo nevado e olha para as árvores da floresta.",
    "ru": "Рыжая лиса стоит на снегу",
    "zh": "一只红色的狐狸站在雪地里",
}


def test_every_language_of_the_list_is_told_from_the_others() -> None:
    assert set(SENTENCES) == set(LANGUAGES)
    assert {language: language_of(sentence) for language, sentence in SENTENCES.items()} == {
        language: language for language in SENTENCES
    }


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (SENTENCES["en"], "A red fox in the snow is looking at the trees of a forest.", False),
        (SENTENCES["en"], SENTENCES["de"], True),
        (SENTENCES["en"], SENTENCES["zh"], True),
        ("red fox, snow", SENTENCES["fr"], False),  # the short prompt has no language that the rule can tell
        ("red fox, snow", SENTENCES["ru"], True),
        ("a sign that says 北京", "A street sign of a city in China that says 北京 in red letters.", False),
        ("12:30", SENTENCES["en"], False),
        (SENTENCES["zh"], SENTENCES["ja"], True),
    ],
)
def test_a_change_of_language_is_seen(before: str, after: str, changed: bool) -> None:
    assert (language_change(before, after) is not None) is changed


def test_a_language_that_the_recipe_asks_for_goes_before_that_of_the_prompt() -> None:
    assert language_change(SENTENCES["en"], SENTENCES["de"], "de") is None
    assert language_change(SENTENCES["de"], SENTENCES["de"], "en") == "Expected the language 'en', got de."
    assert language_change("", SENTENCES["ru"], "en") == "Expected the language 'en', got ru."
    assert script_of("1 2 3") is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (TextReply("I'm sorry, but I can't help with that request."), "refused"),
        (TextReply("I\N{RIGHT SINGLE QUOTATION MARK}m unable to describe people in this image."), "refused"),
        (TextReply("Sorry, I cannot write this."), "refused"),
        (TextReply("As an AI language model, I do not see pictures."), "refused"),
        (TextReply("A red fox in", finish="content_filter"), "refused"),
        (TextReply("", refusal="I will not do that."), "refused"),
        (TextReply(""), "empty"),
        (TextReply(" ... \n"), "empty"),
        (TextReply("<think>The user wants a fox.</think>"), "empty"),
        (TextReply("A red fox is standing in the snow and looks", finish="length"), "truncated"),
        (TextReply("a fox a fox a fox"), "repeats"),
        (TextReply("A FOX!"), "repeats"),
        (TextReply("a fox sits there and then " * 6), "repeats"),
        (TextReply("animal"), "not_longer"),
        (TextReply("red foxes"), "not_longer"),
        (TextReply(SENTENCES["ja"]), "language"),
    ],
)
def test_what_may_not_become_a_prompt_has_its_reason(reply: TextReply, reason: str) -> None:
    refused = check_reply(reply, "a fox")
    assert refused is not None
    assert refused[0] == reason


@pytest.mark.parametrize(
    "text",
    [
        "A red fox.",
        "Sorry-looking red fox sits alone in the rain, its fur wet, its ears down.",
        "I can see a fox" + ", which is red and sits in the snow",
        "a fox, a hare, a fox, a hare, a bird, a fox, a tree, a stone, a fox and a hare in one picture",
    ],
)
def test_honest_expansions_pass(text: str) -> None:
    assert check_reply(TextReply(text, finish="stop"), "a fox") is None


def test_scripts_without_spaces_are_measured_in_letters() -> None:
    assert check_text("一只红色的狐狸站在雪地里", "一只狐狸") is None
    refused = check_text("狐狸", "一只狐狸")
    assert refused == ("not_longer", "Expected more than 4 words, got 2.")


def test_a_caption_has_no_parent_to_be_longer_than() -> None:
    assert check_reply(TextReply("A fox."), "") is None
    assert check_reply(TextReply("Ein Fuchs steht auf dem Schnee und ist rot."), "", "en") is not None


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('"A red fox."', "A red fox."),
        ("“A red fox.”", "A red fox."),
        ('"A" and "B"', '"A" and "B"'),
        ("<think>\nlong\n</think>\n\nA red\nfox.", "A red fox."),
        ('a sign "stop"', 'a sign "stop"'),
        ('"', '"'),
    ],
)
def test_wrapping_is_taken_off(raw: str, text: str) -> None:
    assert clean_text(raw) == text

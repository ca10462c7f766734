"""Which columns of a table hold captions: by their names, by their words, and by their marks."""

import pytest
from picture_folders import captions_of

from diffuse_cli.data.captions import find_pictures

PICTURES = {f"{number}.png": None for number in range(4)}
PHRASES = ["a red car", "two dogs in the snow", "a blue bird", "one old man reading"]


def found_with(folder, header, rows):
    text = "".join(f"{number}.png,{row}\n" for number, row in enumerate(rows))
    return find_pictures(folder({**PICTURES, "table.csv": f"file,{header}\n{text}"}))


@pytest.mark.parametrize("header", ["caption_en", "image_caption", "Prompt text", "blip2_caption", "description_long",
                                    "caption1", "Beschreibung", "productDisplayName"])
def test_a_column_is_known_by_a_word_in_its_name_or_as_the_only_one_with_phrases(folder, header):
    found = found_with(folder, f"split,{header}", [f"train,{phrase}" for phrase in PHRASES])
    assert [captions for captions, in captions_of(found).values()] == PHRASES
    assert found.notes == (f"captions are taken from the column {header} of table.csv",)


@pytest.mark.parametrize("header", ["メモ", "ไทย"])
def test_phrases_without_blanks_between_words_are_phrases(folder, header):
    phrases = {"メモ": ["橋の上に赤い車がある", "雪の中の二匹の犬", "青い鳥", "本を読んでいる老人"],
               "ไทย": ["รถสีแดงบนสะพาน", "สุนัขสองตัวในหิมะ", "นก", "ชายชราอ่านหนังสือ"]}[header]
    found = found_with(folder, f"split,{header}", [f"train,{phrase}" for phrase in phrases])
    assert [captions for captions, in captions_of(found).values()] == phrases


def test_of_several_columns_one_is_known_by_a_word_of_another_language(folder):
    found = found_with(folder, "autor,Beschreibung", [f"von {phrase},{phrase}" for phrase in PHRASES])
    assert [captions for captions, in captions_of(found).values()] == PHRASES


@pytest.mark.parametrize(("header", "expected"), [
    ("negative_prompt,positive_prompt", "a car"), ("Negative Prompt,x", None)])
def test_negative_prompts_are_no_captions(folder, header, expected):
    found = found_with(folder, header, [f"bad hands and feet {number},a car" for number in range(4)])
    assert set(captions_of(found).values()) == {(expected,) if expected else ()}


def test_of_several_such_columns_the_first_counts_and_the_next_is_named(folder):
    found = found_with(folder, "caption_en,caption_de", [f"{phrase},auf Deutsch" for phrase in PHRASES])
    assert captions_of(found)["1.png"] == ("two dogs in the snow",)
    assert found.notes == ("captions are taken from the column caption_en of table.csv; --caption-column caption_de "
                           "would take another",)


@pytest.mark.parametrize("header", ["label,caption_en", "Keywords,ImageDescription", "title,long_description"])
def test_sentences_go_before_classes_tags_and_titles_which_are_named(folder, header):
    found = found_with(folder, header, [f"thing {number},{phrase}" for number, phrase in enumerate(PHRASES)])
    other, column = header.split(",")
    assert [captions for captions, in captions_of(found).values()] == PHRASES
    assert found.notes == (f"captions are taken from the column {column} of table.csv; --caption-column {other} would "
                           "take another",)


def test_a_column_that_only_tells_of_captions_does_not_go_before_classes(folder):
    found = found_with(folder, "label,caption_source", ["cat,human", "dog,blip", "cat,human", "dog,human"])
    assert [captions for captions, in captions_of(found).values()] == ["cat", "dog", "cat", "dog"]


@pytest.mark.parametrize("first", ["", "label,"])
def test_numbered_columns_hold_alternatives(folder, first):
    found = found_with(folder, f"{first}caption_1,caption_2,caption_3", [
        f"{'cat,' if first else ''}{phrase},again {phrase}," for phrase in PHRASES])
    assert captions_of(found)["1.png"] == ("two dogs in the snow", "again two dogs in the snow")
    assert found.notes == ("captions are taken from the columns caption_1, caption_2 of table.csv",)


@pytest.mark.parametrize(("header", "rows"), [
    ("author,place", [f"by {phrase},in {phrase}" for phrase in PHRASES]),       # which of the two?
    ("licence", ["you may do anything with it"] * 4),                           # tells no picture from another
    ("artist", ["Claude Monet", "Claude Monet", "Paul Klee", "Paul Klee"]),     # no phrase
    ("inscription", ["x", "y", "z", "w"]),
    ("width,height", ["1,0"] * 3 + ["2,0"]),
])
def test_other_columns_are_no_captions_and_a_warning_names_them(folder, header, rows):
    found = found_with(folder, header, rows)
    assert set(captions_of(found).values()) == {()}
    assert found.warnings == (f"table.csv has no column text, caption or prompt (it has: "
                              f"{header.replace(',', ', ')}); --caption-column names another",)


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1", "-1"), (" 1", " 0"), ("True", "False"), ("1.0", "0.0")])
def test_marks_become_the_names_of_their_columns(folder, yes, no):
    rows = [f"{yes},{no},{yes}", f"{no},{yes},{no}", f"{no},{no},{no}", f"{yes},{yes},{yes}"]
    found = found_with(folder, "Young, wavy_hair,Hat", rows)
    assert list(captions_of(found).values()) == [("Young, Hat",), ("wavy hair",), (), ("Young, wavy hair, Hat",)]
    assert found.notes == ("captions are the names of the columns of table.csv that hold a 1: Young, wavy_hair, Hat",)
    assert not found.warnings


@pytest.mark.parametrize("header", ["breed", "Species", "label_name", "category name", "keywords"])
def test_a_column_of_classes_is_known_by_its_name(folder, header):
    found = found_with(folder, f"date,{header}", [f"2020-01-01,{name}" for name in ("cat", "dog", "cat", "dog")])
    assert [captions for captions, in captions_of(found).values()] == ["cat", "dog", "cat", "dog"]


def test_a_caption_goes_before_marks(folder):
    found = found_with(folder, "cat,dog,label", ["1,0,kitten"] * 4)
    assert set(captions_of(found).values()) == {("kitten",)}


def test_of_columns_that_are_called_as_languages_are_the_english_one_counts(folder):
    found = found_with(folder, "de,en,fr", [f"ein rotes Auto {n},a red car {n},une auto rouge {n}" for n in range(4)])
    assert [captions for captions, in captions_of(found).values()] == [f"a red car {n}" for n in range(4)]
    assert found.notes == ("captions are taken from the column en of table.csv; --caption-column de would take "
                           "another",)

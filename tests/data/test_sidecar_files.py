"""Captions of sidecar files: by what `find_pictures` finds in real folders."""

import json

import pytest
from picture_folders import captions_of
from source_files import png, write_folder, write_zip

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError


def test_sidecars_in_their_order_of_precedence(folder):
    found = find_pictures(folder({
        "a.png": None, "a.txt": "from txt", "a.caption": "not this", "a.json": '{"caption": "nor this"}',
        "b.png": None, "b.txt": "  \n", "b.caption": "from caption",
        "c.png": None, "c.json": '{"text": "from json", "prompt": "not this"}',
        "d.png": None,
        "e.jpg": None, "e.png": None, "e.TXT": "shared",
    }))
    assert captions_of(found) == {"a.png": ("from txt",), "b.png": ("from caption",), "c.png": ("from json",),
                                  "d.png": (), "e.jpg": ("shared",), "e.png": ("shared",)}
    assert found.caption_source == "sidecar"
    assert found.caption_summary == "sidecar .txt, .caption, .json (5 of 6 files; 1 has none → empty)"
    assert found.conditional


@pytest.mark.parametrize(("content", "expected", "problem"), [
    ("a red car\n", ("a red car",), None),
    ("\ufeffa red car", ("a red car",), None),
    ("one\r\n\r\n two  words \r\none\r\n", ("one", "two words"), None),
    ("", (), None),
    ("\n \t\n", (), None),
    ("nul\0 and \x1b[31mescape\x9b", ("nul and [31mescape",), None),
    ("🚗🚗", ("🚗🚗",), None),
    ("[bold]markup[/] <b>", ("[bold]markup[/] <b>",), None),
    (b"caf\xe9", ("café",), None),
    ("a red car\r\nund ein Möwe".encode("utf-16"), ("a red car", "und ein Möwe"), None),
    ("一辆红色的汽车在桥上".encode("gbk"), ("一辆红色的汽车在桥上",), None),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", (), "not text"),
    ("<!DOCTYPE html>\n<html><body>404</body></html>", (), "web page"),
    ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", (), "Git LFS pointer"),
    (r"{\rtf1\ansi a red car}", (), "formatted text"),
    ('{"caption": "a red car", "seed": 1}', ("a red car",), None),
    ('{"no caption": 1}', ('{"no caption": 1}',), None),
    ("a red car,\n<lora:x:0.8>\nNegative prompt: ugly,\nbad\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1",
     ("a red car",), None),
    ("a red car\nSteps: 20, Size: 8x8, Seed: 1, Model: x", ("a red car",), None),
    ("Steps: 3, leading to a door", ("Steps: 3, leading to a door",), None),
    ("a red car\nNegative prompt: ugly", ("a red car",), None),
    ("0 0.5 0.5 0.25 1e-2\n3 0.1 .2 .3 -.4\n", (), None),
    ("7\n", ("7",), None),
    ("x" * 65_537, (), "longer than 64 KB, ignored"),
], ids=["line", "bom", "crlf", "empty", "blank", "control", "emoji", "markup", "latin-1", "utf-16", "gbk",
        "binary", "web page", "lfs", "rtf", "json", "other json", "webui", "webui short", "steps", "negative", "boxes",
        "digit", "too long"])
def test_text_of_a_sidecar(folder, content, expected, problem):
    found = find_pictures(folder({"a.png": None, "a.txt": content, "b.png": None, "b.txt": "b"}))
    assert captions_of(found)["a.png"] == expected
    assert found.caption_problems == ((("a.txt", problem),) if problem else ())


@pytest.mark.parametrize(("content", "expected"), [
    ("None", ()), (" nan\n", ()), ("[]", ()), (",,,", ()), ("-", ()), ("🐶", ("🐶",)), ("^_^", ("^_^",)),
    ("none of it", ("none of it",)),
    ("<think>\nIt is a car,\nor not?\n</think>\n\na red car", ("a red car",)),
    ("```\na red car\n```\n", ("a red car",)),
    ('```json\n{"caption": "a red car"}\n```', ("a red car",))])
def test_of_what_programs_write_only_the_caption_counts(folder, content, expected):
    found = find_pictures(folder({"a.png": None, "a.txt": content, "b.png": None, "b.txt": "b"}))
    assert (captions_of(found)["a.png"], found.caption_problems) == (expected, ())


def test_a_replacement_character_that_somebody_wrote_is_no_error(folder):
    assert find_pictures(folder({"a.png": None, "a.txt": "what \ufffd is"})).caption_problems == ()


@pytest.mark.parametrize(("content", "expected"), [
    ('{"caption": ["one", "two", "", 3]}', ("one", "two", "3")),
    ('{"caption": "", "prompt": "last"}', ("last",)),
    ('{"caption": null}', ()),
    ('{"caption": "\\ud800x"}', ("?x",)),
])
def test_json_sidecars(folder, content, expected):
    assert captions_of(find_pictures(folder({"a.png": None, "a.json": content})))["a.png"] == expected


@pytest.mark.parametrize(("content", "expected"), [
    ({"id": 1, "meta": {"Prompt": "a red car", "negativePrompt": "bad"}}, ("a red car",)),
    ({"post": {"tag_string": "cat solo"}, "info": {"description": "all pictures of a site"}}, ("cat, solo",)),
    ({"tags": {"general": ["red hair", "solo"], "species": ["wolf"]}}, ("red hair, solo, wolf",)),
    ({"tags": [{"name": "red hair"}, {"name": "solo"}]}, ("red hair, solo",)),
    ({"caption_en": "a red car"}, ("a red car",)), ({"<MORE_DETAILED_CAPTION>": "a red car"}, ("a red car",)),
    ({"content": "a red car", "author": {"name": "Ann", "description": "I draw things"}}, ("a red car",)),
    ({"id": 1, "user": {"description": "I draw things"}}, ()), ({"content": {"page": 1}, "title": "a car"}, ("a car",)),
    ([{"SourceFile": "1.png", "EXIF:ImageDescription": "OLYMPUS DIGITAL CAMERA", "XMP-dc:Description": "a red car",
       "IPTC:Keywords": ["car", "red"]}], ("a red car",)),
    ([{"SourceFile": "1.png", "Keywords": ["car", "red"], "Make": "a maker of cameras"}], ("car, red",)),
    (["one", "two"], ("one", "two")), ({"model": "x", "response": "a red car"}, ("a red car",)),
    ({"id": "x", "choices": [{"message": {"role": "assistant", "content": "a red car"}}]}, ("a red car",)),
    ({"role": "assistant", "content": [{"type": "text", "text": "a red car"}]}, ("a red car",)),
    ({"content": {"width": 3}}, ()), ({"content": [{"label": "cat", "points": [1, 2]}]}, ()),
    ({"negative_prompt": "bad"}, ()), ({"data": {"negative_prompt": "bad", "positive_prompt": "a car"}}, ("a car",)),
    ({"a": {"text": "one"}, "b": {"text": "another"}}, ()), ({"info": {"description": "all pictures"}}, ())])
def test_captions_in_an_object_inside_and_tags_by_their_kind(folder, content, expected):
    assert captions_of(find_pictures(folder({"1.png": None, "1.json": json.dumps(content)})))["1.png"] == expected


_XMP = """<?xpacket begin="\ufeff"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description>{}
</rdf:Description></rdf:RDF></x:xmpmeta>"""
_KEYWORDS = "<dc:subject>\n<rdf:Bag>\n<rdf:li>sea</rdf:li><rdf:li>old boat</rdf:li></rdf:Bag></dc:subject>"


@pytest.mark.parametrize(("content", "expected"), [
    (_KEYWORDS, ("sea, old boat",)), ("<xmp:Rating>3</xmp:Rating>", ()), ("<dc:description></dc:description>", ()),
    (_KEYWORDS + '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">a boat &amp; the sea</rdf:li>'
                 '<rdf:li xml:lang="de">ein Boot</rdf:li></rdf:Alt></dc:description>', ("a boat & the sea",)),
    ("<digiKam:TagsList><rdf:Seq><rdf:li>Places/Rome</rdf:li></rdf:Seq></digiKam:TagsList>", ("Rome",)),
    ("<lr:hierarchicalSubject><rdf:li>Sea|old boat</rdf:li><rdf:li>sun</rdf:li></lr:hierarchicalSubject>",
     ("old boat, sun",)),
    ("<dc:subject><rdf:li>darktable|exported|png</rdf:li><rdf:li>sea</rdf:li></dc:subject>", ("sea",)),
    ("<dc:title><rdf:Alt><rdf:li>a boat</rdf:li></rdf:Alt></dc:title>", ("a boat",)),
    ("<dc:title><rdf:Alt><rdf:li>IMG_1.jpg</rdf:li></rdf:Alt></dc:title>", ())])
@pytest.mark.parametrize("name", ["a.xmp", "a.jpg.xmp"])
def test_xmp_of_albums_holds_a_description_or_keywords(folder, name, content, expected):
    found = find_pictures(folder({"a.jpg": None, name: _XMP.format(content)}))
    assert (captions_of(found)["a.jpg"], found.warnings) == (expected, ())


def test_of_texts_in_several_languages_the_english_one_counts_and_the_others_are_named(folder):
    found = find_pictures(folder({"1.png": None, "1.de.txt": "ein Auto", "1.en.txt": "a car", "1.fr.txt": "une auto",
                                  "2.png": None, "2.caption.en-US.txt": "a bus"}))
    assert captions_of(found) == {"1.png": ("a car",), "2.png": ("a bus",)}
    assert (found.caption_problems, found.warnings) == ((), ())
    assert found.notes == ("2 more texts are not used, because the pictures have a text already, for example 1.de.txt",)


def test_json_files_without_a_caption_are_a_warning_if_there_are_no_captions(folder):
    nodes = json.dumps({"6": {"inputs": {"text": "a red car"}}})
    (warning,) = find_pictures(folder({"1.png": None, "1.json": nodes})).warnings
    assert warning.startswith("1 .json file beside a picture holds no caption under caption, text, prompt, description")


def test_json_that_describes_something_else_is_no_sidecar(folder):
    found = find_pictures(folder({"cat/1.png": None, "cat/1.json": '{"boxes": [1]}', "dog/2.png": None}))
    assert found.caption_source == "folder"
    found = find_pictures(folder({"cat/1.json": "[" * (2**20 + 1), "dog/2.json": "[" * 60_000}))
    assert (found.caption_source, found.caption_problems) == ("folder", (("dog/2.json", "not JSON"),))


def test_orphans_are_named_unless_they_are_the_readme(folder):
    found = find_pictures(folder({"a.png": None, "a.txt": "x", "b.txt": "y", "README.txt": "z", "c.caption": "w"}))
    assert found.caption_problems == (("b.txt", "caption without a picture"),)
    with pytest.raises(DataError, match=r"b\.txt: caption without a picture, and --strict stops at the first problem"):
        find_pictures(folder({}), strict=True)


def test_the_caption_of_a_picture_that_cannot_be_used_is_no_orphan(folder):
    root = folder({"a.png": None, "a.txt": "A", "b.txt": "B", "c.psd": "", "c.txt": "C"})
    (root / "b.png").symlink_to(root / "nowhere")
    found = find_pictures(root)
    assert found.unusable == (("b.png", "broken link"), ("c.psd", "picture with layers"))
    assert found.caption_problems == ()


def test_caption_ext_narrows(folder):
    root = folder({"a.png": None, "a.txt": "text", "a.tags": "tags"})
    assert captions_of(find_pictures(root, caption_ext="tags")) == {"a.png": ("tags",)}
    assert captions_of(find_pictures(root, caption_ext=".TXT", captions="sidecar")) == {"a.png": ("text",)}
    with pytest.raises(DataError, match="sidecar"):
        find_pictures(root, caption_ext=".cap", captions="sidecar")


@pytest.mark.parametrize("files", [
    {"a.png.txt": "red", "b.png.txt": "blue"},
    {"a.png.caption": "red", "b.png.caption": "blue"},
    {"a.png.json": '{"caption": "red"}', "b.png.json": '{"description": "blue"}'},
    {"A.TXT": "red", "B.txt": "blue"},
    {"a.tags": "red", "b.tags": "blue"},
    {"captions/a.txt": "red", "captions/b.txt": "blue"},
], ids=["double suffix", "double caption", "double json", "case", "tags", "parallel folder"])
def test_names_of_sidecars(folder, files):
    found = find_pictures(folder({"a.png": None, "b.png": None, **files}))
    assert captions_of(found) == {"a.png": ("red",), "b.png": ("blue",)}
    assert found.caption_problems == ()


def test_the_exact_name_goes_before_a_lenient_one(folder):
    found = find_pictures(folder({"a.png": None, "a.jpg": None, "a.txt": "both", "a.jpg.txt": "only the jpg"}))
    assert captions_of(found)["a.png"] == ("both",)


def test_parallel_folders_are_matched_by_their_paths(folder):
    found = find_pictures(folder({"train/images/1.png": None, "train/captions/1.txt": "train",
                                  "test/images/1.png": None, "test/captions/1.txt": "test"}))
    assert captions_of(found) == {"test/images/1.png": ("test",), "train/images/1.png": ("train",)}


@pytest.mark.parametrize(("text", "expected"), [
    ("1girl,\nsolo,\nred hair,\n", "1girl, solo, red hair"),
    ("1girl\nsolo\nred hair", "1girl, solo, red hair"),
    ("the old harbour with many boats\nand a lamp near the wall.\n", "the old harbour with many boats and a lamp near "
                                                                     "the wall."),
    ("A paragraph about it.\n\nAnother one.\n", "A paragraph about it. Another one."),
])
def test_lines_are_captions_unless_they_are_joined(folder, text, expected):
    root = folder({"a.png": None, "a.txt": text})
    found = find_pictures(root)
    assert len(captions_of(found)["a.png"]) == len(text.split("\n")) - text.count("\n\n") - text.endswith("\n")
    assert found.notes == ("each line of a caption file is a caption of its own, and training picks one at random; "
                           "--join-lines makes each file one caption",)
    assert "captions a picture, one a line" in found.caption_summary
    joined = find_pictures(root, join_lines=True)
    assert (captions_of(joined), joined.notes) == ({"a.png": (expected,)}, ())


def test_the_encoding_is_guessed_from_all_files_together(folder):
    texts = {"a": "Möwe", "b": "ein grüner Fluß bei Nürnberg", "c": "Öl", "d": "café"}
    root = folder({**{f"{name}.png": None for name in texts},
                   **{f"{name}.txt": text.encode("cp1252") for name, text in texts.items()}})
    found = find_pictures(root)
    assert captions_of(found) == {f"{name}.png": (text,) for name, text in texts.items()}
    assert found.notes == ("4 caption files are not UTF-8 and were read as cp1252",)


@pytest.mark.parametrize(("text", "caption"), [
    ("A frog.\nde.utf8=Ein Frosch.\nfr.utf8=Une grenouille.\npt_BR.utf8=Um sapo.\n", "A frog."),
    ("de=Ein Frosch\nen=A frog\nzh-TW=青蛙\n", "A frog"),
])
def test_translations_are_no_alternatives(folder, text, caption):
    found = find_pictures(folder({"a.png": None, "a.txt": text}))
    assert captions_of(found) == {"a.png": (caption,)}
    assert found.notes == ("1 text files hold translations, of which only the first language counts",)


def test_a_text_with_one_equals_sign_is_no_translation(folder):
    assert captions_of(find_pictures(folder({"a.png": None, "a.txt": "x = y\na sign that says so"})))["a.png"] == (
        "x = y", "a sign that says so")


def test_translations_in_json(folder):
    root = folder({"a.png": None, "a.json": '{"caption": {"de": "ein Frosch", "en": "a frog"}}'})
    assert captions_of(find_pictures(root)) == {"a.png": ("a frog",)}


@pytest.mark.parametrize(("files", "expected"), [
    ({"1.input.png": None, "1.target.png": None, "1.txt": "A"}, {"1.input.png": ("A",), "1.target.png": ("A",)}),
    ({"a.jpg": None, "a.jpg.supplemental-metadata.json": '{"title": "a.jpg", "description": "A"}'}, {"a.jpg": ("A",)}),
    ({"a.jpg": None, "a.jpg.json": '{"title": "a.jpg", "description": ""}'}, {"a.jpg": ()}),
    ({"a.png": None, "a.json": '{"Caption": "A"}'}, {"a.png": ("A",)}),
    ({"a.png": None, "a.en.txt": "A"}, {"a.png": ("A",)}),
    ({"a(1).jpg": None, "a.jpg": None, "a.jpg.supplemental-metadata(1).json": '{"description": "B"}',
      "a.jpg.supplemental-metadata.json": '{"description": "A"}'}, {"a(1).jpg": ("B",), "a.jpg": ("A",)}),
    ({"a(2).jpg": None, "a.jpg": None, "a.jpg(2).json": '{"description": "B"}'}, {"a(2).jpg": ("B",), "a.jpg": ()}),
    ({"b.jpg": None, "a.jpg": None, "a.jpg(1).json": '{"description": "C"}', "b.txt": "B"},
     {"a.jpg": (), "b.jpg": ("B",)}),
    ({f"{'a long name ' * 4}.jpg": None, f"{'a long name ' * 4}"[:46] + ".json": '{"description": "A"}', "b.jpg": None,
      "b.jpg.json": '{"description": "B"}', "metadata.json": '{"title": "an album"}'},
     {f"{'a long name ' * 4}.jpg": ("A",), "b.jpg": ("B",)}),
], ids=["one key", "takeout", "a title that is the name", "capitals", "language", "numbered", "numbered before 2024",
        "numbered, of another", "a name that was cut, and an album"])
def test_sidecars_of_other_programs(folder, files, expected):
    assert captions_of(find_pictures(folder(files))) == expected


@pytest.mark.parametrize(("content", "caption"), [
    ({"tag_string": "1girl solo red_hat", "id": 3}, "1girl, solo, red_hat"),
    ({"tags_general": ["hat", "cat"]}, "hat, cat"),
    ({"tag_string_general": "hat cat"}, "hat, cat"), ({"tag_string": "red hat, cat"}, "red hat, cat")])
def test_tags_of_image_boards_get_commas(folder, content, caption):
    assert captions_of(find_pictures(folder({"1.png": None, "1.json": json.dumps(content)})))["1.png"] == (caption,)


@pytest.mark.parametrize("text", ["a_caption.txt", "A-Prompt.txt", "a description.txt", "a_tags.txt", "a_text.caption"])
def test_a_word_behind_the_name_of_the_picture(folder, text):
    found = find_pictures(folder({"a.png": None, text: "of a", "b.png": None, "b.txt": "of b"}))
    assert captions_of(found) == {"a.png": ("of a",), "b.png": ("of b",)}
    assert not found.caption_problems


def test_a_text_of_the_picture_itself_goes_before_one_with_a_word_behind(folder):
    found = find_pictures(folder({"a.png": None, "a.txt": "its own", "a_caption.txt": "another"}))
    assert captions_of(found)["a.png"] == ("its own",)


def test_one_text_serves_the_numbered_pictures_of_a_post(folder):
    found = find_pictures(folder({
        "2024-01-31_UTC_1.jpg": None, "2024-01-31_UTC_2.jpg": None, "2024-01-31_UTC.txt": "a day at the lake",
        "2024-02-01_UTC.jpg": None, "2024-02-01_UTC.txt": "snow",
        "2024-02-02_1.jpg": None, "2024-02-02_2.jpg": None, "2024-02-02_2.txt": "its own", "2024-02-02.txt": "theirs"}))
    assert [captions for captions, in captions_of(found).values()] == [
        "a day at the lake", "a day at the lake", "snow", "theirs", "its own"]
    assert not found.caption_problems


def test_a_text_is_not_taken_for_many_numbered_pictures_nor_for_a_name_without_a_number(folder):
    many = {f"set1_{number}.png": None for number in range(21)}
    found = find_pictures(folder({**many, "set1.txt": "x", "cat_1.png": None, "cat.txt": "y",
                                  "set1_3.txt": "its own"}))
    assert {name: captions for name, captions in captions_of(found).items() if captions} == {
        "set1_3.png": ("its own",)}
    assert set(found.caption_problems) == {("set1.txt", "caption without a picture"),
                                           ("cat.txt", "caption without a picture")}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_texts_of_a_folder_in_utf16_without_marks_show_what_each_of_them_is(folder, encoding):
    """“sYi[” alone is ASCII; among others it is 女孩 (a girl)."""
    words = ["猫", "女孩", "大海", "山水画", "红色的汽车", "长发，蓝色眼睛", "雪地里的两只狗", "城市夜景", "桥上的汽车"]
    files = {f"{number}.{suffix}": word.encode(encoding) if suffix == "txt" else None
             for number, word in enumerate(words) for suffix in ("png", "txt")}
    found = find_pictures(folder(files))
    assert captions_of(found) == {f"{number}.png": (word,) for number, word in enumerate(words)}
    assert found.notes == (f"9 caption files are not UTF-8 and were read as {encoding}",)


@pytest.mark.parametrize(("words", "encoding"), [
    ("里·萨比州 拉格曼省 洛雷斯坦 备份类型 单击激活 红色的汽车 女孩 雪地里的两只狗 大海", "gb18030"),
    ("압축_방법 정렬_표현식 10대 공급슬롯 충돌_작업 빨간자동차 고양이 여자아이 눈속의두마리개", "cp949"),
    ("サン・ミゲル 製本(左) 長形3号 赤い車 女の子 橋の上の車 雪の中の犬 夜の街 風景画", "cp932")])
def test_a_short_text_is_read_in_the_code_page_of_its_folder(folder, words, encoding):
    files = {f"{number}.{suffix}": word.encode(encoding) if suffix == "txt" else None
             for number, word in enumerate(words.split()) for suffix in ("png", "txt")}
    found = find_pictures(folder(files))
    assert captions_of(found) == {f"{number}.png": (word,) for number, word in enumerate(words.split())}
    assert found.notes == (f"9 caption files are not UTF-8 and were read as {encoding}",)


def test_copies_that_google_photos_edited_have_the_captions_of_their_pictures(folder):
    text = '{"title": "x.jpg", "description": "my dog"}'
    found = find_pictures(folder({
        "a.jpg": None, "a-edited.jpg": None, "a.jpg.supplemental-metadata.json": text,
        "b(2).jpg": None, "b-bearbeitet(2).jpg": None, "b.jpg.supplemental-metadata(2).json": text,
        "c-modifié.jpg": None, "c.jpg.json": text, "d.jpg": None, "d-edited.jpg": None, "d.json": text,
        "e.jpg": None, "e-edited.jpg": None, "e.jpg.json": text, "e-edited.jpg.json": '{"caption": "its own"}'}))
    assert captions_of(found) == {name: ("its own" if name == "e-edited.jpg" else "my dog",)
                                  for name in captions_of(found)}
    assert len(captions_of(found)) == 9


@pytest.mark.parametrize("name", ["{stem}_{language}.txt", "{stem}-{language}.txt", "{language}/{stem}.txt",
                                  "captions/{language}/{stem}.txt"])
def test_of_texts_in_several_languages_the_english_one_counts(folder, name):
    found = find_pictures(folder({
        **dict.fromkeys(("1.png", "2.png")), **{name.format(stem=stem, language=language): f"{language} {stem}"
                                                for stem in "12" for language in ("de", "en", "fr")}}))
    assert captions_of(found) == {"1.png": ("en 1",), "2.png": ("en 2",)}
    assert found.caption_problems == found.warnings == ()
    assert "4 more texts are not used, because the pictures have a text already" in found.notes[0]


def test_of_an_object_with_a_text_for_each_language_the_english_one_counts(folder):
    found = find_pictures(folder({"1.png": None, "1.json": '{"de": "ein Auto", "en": "a car"}'}))
    assert captions_of(found) == {"1.png": ("a car",)}


def test_a_text_above_the_folder_of_its_picture_counts(folder):
    assert captions_of(find_pictures(folder({"images/1.png": None, "1.txt": "red"}))) == {"images/1.png": ("red",)}


def test_a_suffix_that_no_text_has_is_an_error_even_if_there_is_a_table(folder):
    root = folder({"1.png": None, "c.csv": "file,text\n1.png,red\n"})
    with pytest.raises(DataError, match=r"no picture in .* has a text with the suffix of --caption-ext .cap"):
        find_pictures(root, caption_ext=".cap")


def test_texts_in_a_folder_of_texts_belong_to_the_only_pictures_of_their_names(folder):
    """CelebAMask-HQ."""
    found = find_pictures(folder({"CelebA-HQ-img/1.jpg": None, "CelebAMask-HQ-mask-anno/0/00001_hair.png": None,
                                  "text/1.txt": "She has long hair."}))
    assert captions_of(found)["CelebA-HQ-img/1.jpg"] == ("She has long hair.",)
    found = find_pictures(folder({"more/a/1.jpg": None, "more/b/1.jpg": None, "more/text/1.txt": "whose?"}) / "more")
    assert ("whose?",) not in captions_of(found).values()


TEXTS = {f"{number}.txt": f"a red car {number}".encode() for number in range(3)}


@pytest.mark.parametrize("place", ["stuff", "stuff.zip", "above"])
@pytest.mark.parametrize("pictures", ["a", "a.zip", "a/b"])
def test_texts_apart_belong_to_the_only_pictures_of_their_names(tmp_path, place, pictures):
    files = {f"{number}.png": png(number) for number in range(3)}
    (write_zip if pictures.endswith(".zip") else write_folder)(tmp_path / pictures, files)
    if place == "above":
        write_folder(tmp_path, TEXTS)
        found = find_pictures(tmp_path)
    else:
        (write_zip if place.endswith(".zip") else write_folder)(tmp_path / place, TEXTS)
        found = find_pictures(tmp_path / pictures, more_folders=[str(tmp_path / place)])
    assert sorted(captions_of(found).values()) == [(text.decode(),) for text in TEXTS.values()]
    where = "the folder above" if place == "above" else "stuff"
    assert found.notes == (f"texts in {where} are captions of the pictures with their names",)
    assert (found.warnings, found.caption_problems) == ((), ())


@pytest.mark.parametrize("files", [
    {"x/1.png": None, "y/1.png": None, "z/1.txt": "red", "z/2.txt": "blue", "x/2.png": None, "y/2.png": None},
    {"x/1.png": None, "x/2.png": None, **{f"z/{number}.txt": "red" for number in range(1, 6)}},
    {"x/train.png": None, "x/2.png": None, "train.txt": "some words"}])
def test_other_texts_apart_do_not(folder, files):
    assert not any(captions_of(find_pictures(folder(files), captions="auto")).values())


def test_lists_in_a_folder_without_pictures_are_no_captions_without_a_picture(folder):
    """As in CUB-200, whose lists begin with numbers."""
    root = folder({f"images/{part}/{number}.jpg": None for part in ("tern", "wren") for number in range(2)} | {
        f"text/{part}/{number}.txt": f"a {part}" for part in ("tern", "wren") for number in range(2)} | {
        "images.txt": "1 tern/0.jpg\n2 tern/1.jpg\n3 wren/0.jpg\n4 wren/1.jpg\n", "split.txt": "1 1\n2 0\n3 1\n4 0\n",
        "text/wren/9.txt": "a lost wren"})
    found = find_pictures(root)
    assert captions_of(found)["images/tern/0.jpg"] == ("a tern",)
    assert found.caption_problems == (("text/wren/9.txt", "caption without a picture"),)
    assert any(note.startswith("not read as captions: images.txt and 1 more") for note in found.notes)


@pytest.mark.parametrize("name", ["ReadMe.txt", "ChangeLog.txt", "README.txt"])
def test_texts_about_the_data_set_are_no_captions_without_a_picture(folder, name):
    found = find_pictures(folder({"1.png": None, "1.txt": "a red car", name: "about it"}))
    assert found.caption_problems == ()


@pytest.mark.parametrize("form", ["{}_caption.en-US.txt", "{}_caption_en.txt", "{}-description.en.txt"])
def test_a_word_and_a_language_may_stand_behind_the_name_of_a_picture(folder, form):
    names = ("one", "two")
    root = folder({f"{name}.png": None for name in names} | {form.format(name): f"a red {name}" for name in names} | {
        form.replace("en-US", "de-DE").replace("en.", "de.").format(name): "ein Ding" for name in names})
    found = find_pictures(root)
    assert captions_of(found) == {f"{name}.png": (f"a red {name}",) for name in names}
    assert found.caption_problems == ()

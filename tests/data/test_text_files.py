"""Text in the encodings of editors and shells is read as it was written; bytes that are no text are refused."""

import random
import unicodedata

import pytest

from diffuse_cli.data.text_files import NotText, decode_text, encoding_of_file, is_unicode

TEXTS = {
    "french": ("un café rouge à côté d'une église\nune fenêtre bleue, très élégante", ("cp1252", "cp850", "mac_roman")),
    "german": ("ein rotes Auto vor dem Bürohaus\nMöwe über grünem Fluß\nStraße", ("cp1252", "cp850")),
    "spanish": ("un niño con una piñata\nel árbol pequeño\n¿qué es?", ("cp1252", "cp850")),
    "english": ("a red car – “fast” and nice\nthe dog’s house\n20° in the café", ("cp1252", "mac_roman")),
    "polish": ("czerwony samochód na ulicy\nżółta łódź w porcie", ("cp1250", "cp852")),
    "czech": ("červené auto na silnici\nžlutý pes a kočka u řeky", ("cp1250", "cp852")),
    "turkish": ("kırmızı araba\ngüneşli bir gün ve küçük köpek", ("cp1254",)),
    "russian": ("красная машина на мосту\nдве собаки в снегу", ("cp1251", "koi8_r", "cp866")),
    "greek": ("ένα κόκκινο αυτοκίνητο\nδύο σκυλιά στο χιόνι", ("cp1253",)),
    "japanese": ("赤い車が橋の上にある\n雪の中の二匹の犬", ("cp932", "euc_jp")),
    "chinese": ("一辆红色的汽车在桥上\n雪地里的两只狗", ("gbk",)),
    "traditional": ("一輛紅色的汽車在橋上\n雪地裡的兩隻狗", ("big5",)),
    "russian tags": ("кот\nсобака\nлес", ("cp1251", "koi8_r", "cp866")),
    "greek tags": ("γάτα\nσκύλος", ("cp1253",)), "hebrew tags": ("חתול\nכלב לבן\nבית\nים\nעץ גדול", ("cp1255",)),
    "arabic tags": ("قطة\nكلب\nسيارة حمراء\nبحر", ("cp1256",)),
    "thai": ("แมวสีขาว\nรถสีแดงบนสะพาน\nภูเขาสูง", ("cp874",)),
    "traditional tags": ("貓\n狗\n紅色汽車\n大海\n女孩，藍色頭髮", ("big5",)),
    "lithuanian": ("žalias automobilis ant tilto\ntrys paukščiai ant vielos, vaikas su aitvaru", ("cp1257",)),
    "latvian": ("zaļa automašīna uz tilta\ndivi suņi sniegā, bērns ar pūķi\nveca laiva pie jūras\naugļu bļoda",
                ("cp1257",)),
    "korean": ("다리 위의 빨간 자동차\n눈 속의 두 마리 개", ("cp949",)),
}
CASES = [pytest.param(text * 3, encoding, id=f"{name} {encoding}")
         for name, (text, encodings) in TEXTS.items() for encoding in encodings]


@pytest.mark.parametrize(("text", "encoding"), CASES)
def test_code_pages_are_guessed(text, encoding, tmp_path):
    data = text.encode(encoding)
    assert not is_unicode(data)
    assert decode_text(data)[0] == text
    table = f"file_name,text\n{text}".encode(encoding)
    (tmp_path / "table.csv").write_bytes(table)
    assert table.decode(encoding_of_file(tmp_path / "table.csv")) == f"file_name,text\n{text}"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le",
                                      "utf-32-be"])
@pytest.mark.parametrize("text", ["a red car\r\nund eine Möwe", "x, y", "старый красный дом", "两只狗在雪\n",
                                  "빨간 집", "ένα κόκκινο σπίτι"])
def test_unicode_is_recognised(text, encoding, tmp_path):
    data = text.encode(encoding)
    assert is_unicode(data)
    assert decode_text(data)[0].removeprefix("\ufeff") == text
    (tmp_path / "text").write_bytes(data)
    assert (tmp_path / "text").read_text(encoding_of_file(tmp_path / "text")).removeprefix("\ufeff") == text.replace(
        "\r\n", "\n")


UNMARKED_WORDS = [
    "猫", "汽车", "女孩", "一辆红色的汽车在桥上", "雪地里的两只狗", "长发，蓝色眼睛", "風景", "橋の上の赤い車",
    "かわいい", "アニメ", "빨간차", "여자아이", "눈속의두마리개", "кот", "Лес", "красная_машина", "γάτα", "σκύλος",
    "חתול", "קטן", "سيارة", "แมวสีขาว", "बिल्ली", "कुत्ता", "đường"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_recognised_where_no_byte_is_zero(encoding, tmp_path):
    data = {word: word.encode(encoding) for word in UNMARKED_WORDS}
    found = {word: decode_text(some) for word, some in data.items()}
    doubtful = {word for word, (_, guess) in found.items() if guess != encoding}
    assert doubtful == {word for word, some in data.items() if some.isascii() and word >= "一"}    # "s+", for instance
    assert all(text == word for word, (text, guess) in found.items() if guess == encoding)
    assert all(decode_text(some, utf16=encoding) == (word, encoding) for word, some in data.items())
    (tmp_path / "table").write_bytes("\n".join(f"{word},{word}" for word in UNMARKED_WORDS).encode(encoding))
    assert encoding_of_file(tmp_path / "table") == encoding


@pytest.mark.parametrize("data", [
    b"Bush hid the facts", b"sYi[", b"1\t0\t1\t0\n", b"a\nb\nc\nd\n", b"\n\n \n", "Süd Wané".encode("cp1252"),
    "są".encode("cp1250"), "対象".encode("cp932"), "对象".encode("gb18030"), "각도".encode("cp949"),
    "ТВ".encode("cp1251"), "天".encode("big5")])
def test_texts_in_a_code_page_are_not_taken_for_utf16(data):
    assert not decode_text(data)[1].startswith("utf-16")


def test_a_word_of_two_alphabets_shows_that_the_guess_is_wrong():
    """DOS in the Baltic countries, whose letters a library takes for Cyrillic ones."""
    for text in "raudonas namas prie jūros, žalias medis", "mažas šuo, didelė katė", "žydi gėlės lauke":
        assert decode_text(text.encode("cp775"))[0] == text


def test_other_text_of_the_same_origin_helps_the_guess():
    alone, sample = "Žlutý".encode("cp1250"), ("červené auto na silnici\nkočka u řeky\n" * 5).encode("cp1250")
    assert decode_text(alone, sample=sample)[0] == "Žlutý"


@pytest.mark.parametrize("data", [
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0", b"\xff\xd8\xff\xe0\0\x10JFIF\0\1", bytes(range(256)), b"\0" * 1000,
    b"\x1f\x8b\x08\0\0\0\0\0abc" * 9, random.Random(0).randbytes(1000), b"PK\x03\x04\x14\0\0\0\x08\0" * 3,
], ids=["png", "jpeg", "all bytes", "zeros", "gzip", "random", "zip"])
def test_what_is_no_text_is_refused(data, tmp_path):
    with pytest.raises(NotText):
        decode_text(data)
    (tmp_path / "data").write_bytes(data)
    with pytest.raises(NotText):
        encoding_of_file(tmp_path / "data")


def test_a_letter_on_the_border_between_two_blocks_is_no_damage(tmp_path):
    text = "x" * (2**20 - 1) + "é\n" * 10
    (tmp_path / "long").write_text(text, encoding="utf-8")
    assert encoding_of_file(tmp_path / "long") == "utf-8"
    (tmp_path / "long").write_text(text, encoding="cp1252")
    assert encoding_of_file(tmp_path / "long") == "cp1252"


def test_a_text_of_which_the_library_guesses_nothing_is_read_all_the_same():
    assert decode_text(b"\x1b\xff")[0] == "\x1b\xff"


def test_vietnamese_writes_the_tone_behind_its_vowel():
    texts = "hai con chó trong tuyết", "ngựa trắng trên cánh đồng", "một chiếc ô tô màu đỏ trên cầu"
    for text in texts:
        data = b"".join(vietnamese(letter) for letter in text)
        assert unicodedata.normalize("NFC", decode_text(data)[0]) == text


def vietnamese(letter):
    """A letter in code page 1258, which has no letters with a tone but some."""
    base, *marks = unicodedata.normalize("NFD", letter)
    tones = "".join(mark for mark in marks if mark in "\u0300\u0301\u0303\u0309\u0323")
    return (unicodedata.normalize("NFC", base + "".join(mark for mark in marks if mark not in tones)) + tones).encode(
        "cp1258")


@pytest.mark.parametrize(("text", "encodings"), [
    ("橋の上の赤い車 雪の中の二匹の犬 夜の緑の丘 ブラックコーヒー 春の小さな家", ("cp932", "euc_jp")),
    ("красная_машина две_собаки_в_снегу зелёный_холм старая_лодка", ("cp1251", "koi8_r")),
    ("¿qué_es_esto? montaña_verde pájaro corazón el_árbol un_niño café ¿dónde? lápiz", ("cp1252",)),
    ("lohega_paat mägi_öösel põllul väike_maja_üleval mere_ääres öö", ("cp1257",))])
def test_each_text_of_a_folder_is_read_by_its_own_code_page(text, encodings):
    words = text.split()
    files = [word.encode(encodings[number % len(encodings)]) for number, word in enumerate(words)]
    sample = b"\n".join(files)
    assert [decode_text(data, sample=sample)[0] for data in files] == words


@pytest.mark.parametrize("text", [
    "1girl+solo-portrait", "C++ and C#", "Mix+Match-Standing", "red+Standing", "a+B=c", "+AA0-", "~{", "a ~{ b ~} c",
    "Peck's+IBM-case"])
def test_texts_with_the_signs_of_other_encodings_are_what_they_are(text):
    assert decode_text(text.encode()) == (text, "utf-8")


@pytest.mark.parametrize(("text", "encoding"), [
    ("橋の上の赤い車\n雪の中の犬", "iso2022_jp"), ("다리 위의 빨간 차", "iso2022_kr"), ("红色的汽车 on a bridge", "hz"),
    ("größere Häuser & mehr", "utf-7"), ("橋の上の赤い車", "utf-7"), ("две собаки", "utf-7")])
def test_encodings_of_seven_bits_are_recognised_by_their_escapes(text, encoding, tmp_path):
    assert decode_text(text.encode(encoding))[0] == text
    line = text[0] * 600_000                    # more than is read at once, which ends within a letter of two bytes
    (tmp_path / "table.csv").write_bytes(line.encode(encoding))
    assert (tmp_path / "table.csv").read_text(encoding_of_file(tmp_path / "table.csv")) == line

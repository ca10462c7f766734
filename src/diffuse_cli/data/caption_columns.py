"""Which columns of a table hold captions, and the captions in a row."""

import re
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from .annotations import NAMELESS, OBJECTS, has_boxes, normalised
from .caption_text import captions_under, distinct_captions
from .structured_texts import caption_in

# Names of columns, as `normalised` spells them; the first that holds captions counts.
TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description", "sentence", "sentences", "comment", "raw",
                "alt_text", "alt", "title", "conversations", "messages", "label", "labels", "class", "class_name",
                "category", "choice", "label_name", "class_label", "category_name", "breed", "species", "genre", "tags",
                "tag_string", "tags_general", "tag_string_general", "keywords")
_LESS_THAN_SENTENCES = TEXT_COLUMNS[TEXT_COLUMNS.index("title"):]
_FIRST_CLASS = TEXT_COLUMNS.index("label")      # from here on, they hold classes or tags
# In the name of a column, also in other languages.
_CAPTION_WORD = re.compile(
    r"(^|_)(captions?|prompts?|(image)?descriptions?|beschreibung|légende|descripción|descrição|descrizione|описание|"
    r"подпись|説明|キャプション|描述|说明|설명)(_|\d|$)")
_ENGLISH = re.compile(r"(?<![^\W_])(en|eng|english)(?![^\W_])", re.IGNORECASE)
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[a-z]{2,4})?|english|german|french|spanish|chinese|japanese|russian")
_NEGATIVE = re.compile("negative", re.IGNORECASE)
_IDEOGRAPHS = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")        # scripts without blanks between words
_NUMBERED = re.compile(r"\D+\d{1,2}")        # caption_1, and others: each is an alternative
_PHRASE = 3                                     # words from which a value is a phrase
_MARKS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "-1": False, "false": False}
# Keys and columns of objects that are not about the picture, but about all pictures, or about people.
ABOUT_OTHERS = ("info", "license", "licenses", "dataset", "author", "user", "owner", "uploader", "artist", "account",
                "channel", "creator", "profile", "photographer", "subreddit", "blog", "group", "album")
_NO_MARKS = frozenset(("train", "test", "val", "valid", "validation", "is_train", "is_training", "is_test", "is_valid",
                       "is_validation", "split", "fold", "width", "height", "verified", "selected"))       # of files
_NO_CAPTION = re.compile(r"[a-z]+://\S*|[0-9a-fA-F]{8,}|[\d\s:.,TZ+/-]+|\S+\.\w{2,5}(#\d+)?")


@dataclass
class CaptionColumns:
    """The columns with captions, the most important first, and what there is to say about this choice.

    marks: whether they say of each picture, by 1 or by 0 or -1, if it shows what their name says. all_count: whether
    each of them holds an alternative, as caption_1 and caption_2 do.
    """

    names: tuple[str, ...]
    marks: bool
    notes: list[str]
    warnings: list[str]
    all_count: bool = False

    @property
    def classes(self) -> bool:
        """Whether the captions are names of classes, or tags."""
        return self.marks or (bool(self.names) and normalised(self.names[0]) in TEXT_COLUMNS[_FIRST_CLASS:])

    def captions_of(self, row: dict[str, Any], place: str, problems: list[tuple[str, str]]) -> tuple[str, ...]:
        """The alternative captions of a row. A value that is not text becomes one of the `problems` of this place."""
        if self.marks:
            return _marked(self.names, row)
        groups = [(name,) for name in self.names] if self.all_count else [self.names]
        return tuple(dict.fromkeys(one for group in groups for one in captions_under(group, row, place, problems)))


def choose_columns(table: str, sample: list[dict[str, Any]], others: list[str], column: str | None) -> CaptionColumns:
    """The columns of captions in a table, by some of its rows.

    table: the name of its file. others: all columns but that of the pictures. column: the one that the user named.
    Raises DataError if it is not there.
    """
    listed = ", ".join(others)[:200] or "none"
    chosen = CaptionColumns((), False, [], [])
    if column is not None:
        named = [name for name in others if name == column] or [
            name for name in others if normalised(name) == normalised(column)]
        if not named and sample:
            raise DataError(f"{table} has no column {column!r}", hint=f"Its columns are: {listed}")
        chosen.names = tuple(named)
        return chosen
    ranks = {name: rank for rank, name in enumerate(TEXT_COLUMNS)}
    known = sorted((name for name in others if normalised(name) in ranks), key=lambda name: ranks[normalised(name)])
    if known and normalised(known[0]) in _LESS_THAN_SENTENCES:          # label, caption_en
        phrases = _with_phrases(sample, others)
        known = [name for name in _named(sample, others) if name in phrases and name not in known] + known
    filled = [name for name in known if any(captions_under((name,), row, "", []) for row in sample)]
    nameless = [name for name in others if name.startswith(NAMELESS) and any(_is_text(row.get(name)) for row in sample)]
    nameless = nameless or [name for name in others if name.startswith(NAMELESS) and _are_classes(sample, name)]
    if known:
        chosen.names = _alternatives(known) or tuple(known)
        chosen.all_count = bool(_alternatives(known))
        _say_which(chosen, table, filled if len(filled) > 1 else [])
    elif nameless:                              # a table without a header
        chosen.names = (nameless[0],)
    elif described := _described(sample, others):
        chosen.names = _alternatives(described) or (described[0],)
        chosen.all_count = len(chosen.names) > 1
        _say_which(chosen, table, described)
    elif marks := _columns_of_marks(sample, others):
        chosen.names, chosen.marks = marks, True
        chosen.notes.append(f"captions are the names of the columns of {table} that hold a 1: "
                            f"{', '.join(marks[:4])}{', …' if len(marks) > 4 else ''}")
    elif sample:
        hint = f"; --caption-column {OBJECTS} takes the names of what is marked" if OBJECTS in others else (
            "; --caption-column names another") if any(
            captions_under((name,), row, "", []) for name in others for row in sample) else (
            ", which hold no texts" if others else "")
        chosen.warnings.append(f"{table} has no column text, caption or prompt (it has: {listed}){hint}")
    return chosen


def _alternatives(columns: list[str]) -> tuple[str, ...]:
    """The columns that are named like the first but for a number, caption_1 and caption_2; none if it stands alone."""
    stem = columns[0].rstrip("0123456789")
    alike = [name for name in columns if _NUMBERED.fullmatch(name) and name.rstrip("0123456789") == stem]
    return tuple(alike) if len(alike) > 1 else ()


def _say_which(chosen: CaptionColumns, table: str, columns: list[str]) -> None:
    """Note that the first of the columns counts, and how to take the second."""
    if chosen.all_count:
        chosen.notes.append(f"captions are taken from the columns {', '.join(chosen.names)} of {table}")
    elif columns:
        other = f"; --caption-column {columns[1]} would take another" if len(columns) > 1 else ""
        chosen.notes.append(f"captions are taken from the column {columns[0]} of {table}{other}")


def is_english(name: str) -> bool:
    """Whether a name such as captions_en or en says that texts in English stand there."""
    return bool(_ENGLISH.search(name))


def is_caption_name(name: str) -> bool:
    """Whether a name such as caption_en or <DETAILED_CAPTION> says that captions stand there, not negative prompts."""
    return bool(_CAPTION_WORD.search(re.sub(r"\W+", "_", normalised(name)))) and not _NEGATIVE.search(name)


def _described(sample: list[dict[str, Any]], others: list[str]) -> list[str]:
    """Columns whose names hold the word caption or the like, as caption_en does; or else the only one with phrases.

    Of columns with phrases that are called as languages are, "en" and "de", the one in English is the first.
    """
    phrases = _with_phrases(sample, others)
    if len(phrases) > 1 and all(map(_LANGUAGE.fullmatch, map(normalised, phrases))):
        return sorted(phrases, key=lambda name: not is_english(name))
    return _named(sample, others) or (phrases if len(phrases) == 1 else [])


def _named(sample: list[dict[str, Any]], others: list[str]) -> list[str]:
    """Columns of texts whose names hold the word caption or the like, those in English first."""
    return sorted((name for name in others if is_caption_name(name) and _texts(sample, name)),
                  key=lambda name: not is_english(name))


def _with_phrases(sample: list[dict[str, Any]], others: list[str]) -> list[str]:
    """Columns in which most values are phrases, and that differ."""
    return [name for name in others if name != OBJECTS and not _NEGATIVE.search(name)
            and not (normalised(name) in ABOUT_OTHERS and any(isinstance(row.get(name), dict) for row in sample))
            and len(set(values := _texts(sample, name))) > 1
            and 2 * sum(len(value.split()) + len(_IDEOGRAPHS.findall(value)) // 3 >= _PHRASE for value in values)
            > len(sample)]


def _texts(sample: list[dict[str, Any]], name: str) -> list[str]:
    """The values of a column that may be captions."""
    return [value for row in sample if _is_text(value := _first(caption_in(row.get(name))))]


def _first(value: Any) -> Any:
    """The first item of a list; any other value as it is."""
    return value[0] if isinstance(value, list) and value else value


def _are_classes(sample: list[dict[str, Any]], name: str) -> bool:
    """Whether a column holds whole numbers that are there twice on average, as those of classes are."""
    values = [str(row.get(name)).strip() for row in sample]
    return all(map(str.isdecimal, values)) and 1 < len(set(values)) <= len(values) / 2


def _columns_of_marks(sample: list[dict[str, Any]], others: list[str]) -> tuple[str, ...]:
    """The columns that hold nothing but marks, if they are at least two and not all are empty."""
    if has_boxes(others):                       # they are true of a box
        return ()
    found = tuple(name for name in others if name.strip() and not name.startswith(NAMELESS) and normalised(
        name) not in _NO_MARKS and all(_mark(row.get(name)) is not None for row in sample))
    return found if len(found) >= 2 and any(_marked(found, row) for row in sample) else ()


def _mark(value: Any) -> bool | None:
    return _MARKS.get(str(value).strip().lower())


def _marked(columns: tuple[str, ...], row: dict[str, Any]) -> tuple[str, ...]:
    """The names of the columns that hold a 1, as one caption of tags."""
    return distinct_captions(", ".join(name.strip().replace("_", " ") for name in columns if _mark(row.get(name))))


def _is_text(value: Any) -> bool:
    """Whether a value may be a caption: words, and no address, hash, date, number or name of a file."""
    return (isinstance(value, str) and any(letter.isalpha() for letter in value) and bool(distinct_captions(value))
            and not _NO_CAPTION.fullmatch(value.strip()))

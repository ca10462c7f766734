"""Rows in JSON values: plain lists and maps, and what COCO, VIA, Label Studio, Datumaro and photo services write.

A row is a dictionary from column to value. The names of objects that are marked in a picture stand in a column of their
own, OBJECTS, which no rule takes for a caption. Standard library only.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..files.strict_json import loads_shallow

FILE_KEY = "file_name"                          # the column in which names stand that had no column of their own
NAMELESS = "column "                            # begins the names of columns of a table without a header
TEXT_KEY = "text"                               # the same of captions
OBJECTS = "objects"                             # the column with the names of marked objects, between commas
_FILE_NAME = re.compile(r".+\.\w{3,5}", re.DOTALL)
# Columns of boxes, and of the classes of what is in them.
_CORNERS = ({"xmin", "ymin", "xmax", "ymax"}, {"x1", "y1", "x2", "y2"}, {"x", "y", "w", "h"},
            {"x", "y", "width", "height"})
_OF_OBJECTS = ("label", "labels", "class", "class_name", "label_name", "class_label", "category", "category_name",
               "name", "object")
_NEXT_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PICTURE_NAME = re.compile(r"\S.*\.(?:png|jpe?g|jfif|webp|gif|bmp|tiff?|avif)", re.IGNORECASE)      # of a usual format
_FILE_KEYS = frozenset((FILE_KEY, "filename", "file", "image", "path", "image_path", "file_names", "filenames", "files",
                        "images", "paths", "image_paths"))


def normalised(column: str) -> str:
    """The name of a column without the differences in spelling that mean nothing: 'File Name' → 'file_name'.

    'LabelName' becomes 'label_name', too.
    """
    words = _NEXT_WORD.sub(" ", column.strip().strip("'\""))
    return "_".join(words.lower().replace("-", " ").replace("_", " ").split())


def rows_of(document: Any) -> Iterator[Any]:
    """The rows in a JSON value: a list of objects, a map from names, lists of columns, or those of a program."""
    for row in _rows_of(document):
        yield from _media_rows(row) if isinstance(row, dict) else (row,)


def _rows_of(document: Any) -> Iterator[Any]:
    if isinstance(document, list):
        yield from map(_label_studio_row, document) if _is_label_studio(document) else map(row_of_list, document)
        return
    if not isinstance(document, dict) or {"nodes", "links"} <= document.keys():       # the latter: of ComfyUI
        return
    if isinstance(document.get("images"), list) and isinstance(document.get("annotations"), list):
        yield from _coco_rows(document)
        return
    if isinstance(document.get("items"), list) and isinstance(document.get("categories"), dict):
        yield from _datumaro_rows(document)
        return
    if isinstance(document.get("file"), dict) and isinstance(document.get("attribute"), dict):
        yield from _via3_rows(document)
        return
    if isinstance(document.get("_via_img_metadata"), dict):             # a project of VIA 2
        document = document["_via_img_metadata"]
    tables = _tables_in(document)
    inner = [value for value in document.values() if isinstance(value, dict)]
    if not tables and len(inner) == 1 and _tables_in(inner[0]) and not any(map(_FILE_NAME.fullmatch, document)):
        yield from _rows_of(inner[0])           # {"version": 1, "data": {"train": [{…}, …]}}
        return
    if tables and not all(_FILE_NAME.fullmatch(key) for key in document):
        # {"images": [{…}, …], "info": …}, {"train": [{…}, …], "val": […]}
        for table in tables:
            yield from table
    elif document and all(isinstance(value, list) for value in document.values()) and len(
            {len(value) for value in document.values()}) == 1 and _looks_like_columns(document):
        yield from (dict(zip(document, values, strict=True)) for values in zip(*document.values(), strict=True))
    elif document and _looks_like_columns(document) and all(isinstance(value, dict) for value in document.values()):
        yield from ({column: values.get(key) for column, values in document.items()}
                    for key in next(iter(document.values())))
    else:                                       # name → caption, captions or an object
        for name, value in document.items():
            if isinstance(value, list) and value and not _FILE_NAME.fullmatch(name) and all(
                    isinstance(one, str) and _PICTURE_NAME.fullmatch(one) for one in value):
                yield from ({FILE_KEY: one, "label": name} for one in value)       # {"cat": ["1.png", "2.png"]}
            else:
                yield _row_of_map(name, value)


def _tables_in(document: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The values that are lists of objects."""
    return [value for value in document.values() if isinstance(value, list) and value
            and all(isinstance(row, dict) for row in value)]


def row_of_list(row: Any) -> Any:
    """A row without names of columns, as ["1.png", "a red car"], with such names; any other as it is."""
    return {f"{NAMELESS}{number}": value for number, value in enumerate(row, 1)} if isinstance(row, list) else row


def _row_of_map(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and "filename" in value and "file_attributes" in value:          # VIA: name and size
        return value
    return {FILE_KEY: name, **(value if isinstance(value, dict) else {TEXT_KEY: value})}


def _looks_like_columns(document: dict[str, Any]) -> bool:
    return bool(_FILE_KEYS & {normalised(key) for key in document})


# ── Programs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def flattened(row: dict[str, Any]) -> dict[str, Any]:
    """A row of VIA with its attributes as columns, from CSV or JSON, of Visual Genome, or of Open Images.

    Any other row as it is.
    """
    if "LabelName" in row and str(row.get("Confidence")) in ("0", "0.0"):          # what a person did not find there
        return {**row, "LabelName": None}
    if "file_attributes" not in row:
        return _visual_genome_row(row)
    regions = row.get("regions")
    regions = list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else [row]
    attributes = [_object(region.get("region_attributes")) for region in regions if isinstance(region, dict)]
    plain = {key: value for key, value in row.items() if not key.startswith(("file_", "region", "size"))}
    return {**plain, **_object(row["file_attributes"]), **_marked(
        value for values in attributes for value in values.values())}


def _visual_genome_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of Visual Genome with the phrases of its regions, or the names of its objects, in OBJECTS."""
    for column in ("regions", "objects"):
        marked = row.get(column)
        if isinstance(marked, list) and marked and all(isinstance(one, dict) for one in marked):
            rest = {key: value for key, value in row.items() if key != column}
            if phrases := [one["phrase"] for one in marked if isinstance(one.get("phrase"), str)]:
                return {**rest, OBJECTS: phrases}
            names = [one["names"] for one in marked if isinstance(one.get("names"), list)]
            return {**rest, **_marked(name for several in names for name in several[:1])} if names else row
    return row


def has_boxes(columns: Iterable[str]) -> bool:
    """Whether a table has columns with the corners or the sides of boxes."""
    names = {re.sub(r"[^a-z\d]", "", column.lower()) for column in columns}
    return any(names >= corners for corners in _CORNERS) or any("bbox" in name for name in names)


def as_object(row: dict[str, Any]) -> dict[str, Any]:
    """A row about a box in a picture, with the name of its class in OBJECTS."""
    kinds = [key for key in row if normalised(key) in _OF_OBJECTS]
    return {**{key: value for key, value in row.items() if key not in kinds}, **_marked(row[key] for key in kinds)}


def _object(value: Any) -> dict[str, Any]:
    """A JSON object, or the text of one; {} for anything else."""
    if isinstance(value, str):
        try:
            value = loads_shallow(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _marked(names: Iterable[Any]) -> dict[str, str]:
    """The column OBJECTS for the names that are texts, each once; none if there are none."""
    texts = dict.fromkeys(name for name in names if isinstance(name, str) and name.strip())
    return {OBJECTS: ", ".join(texts)} if texts else {}


def _coco_rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """COCO: pictures with ids, annotations that name these ids, and categories of marked objects."""
    by_id: dict[Any, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        if isinstance(annotation, dict) and isinstance(annotation.get("image_id"), str | int):
            by_id.setdefault(annotation["image_id"], []).append(annotation)
    listed = document.get("categories")
    categories = {category.get("id"): category.get("name") for category in listed or ()
                  if isinstance(category, dict) and isinstance(category.get("id"), str | int)} if isinstance(
                      listed, list) else {}
    for image in document["images"]:
        if isinstance(image, dict):
            known = image.get("id")
            of_image = by_id.get(known, []) if isinstance(known, str | int) else []
            captions = [annotation.get("caption") for annotation in of_image if annotation.get("caption") is not None]
            kinds = [annotation.get("category_id") for annotation in of_image]
            yield {**image, **({"caption": captions} if captions else {}),
                   **_marked(categories.get(kind) for kind in kinds if isinstance(kind, str | int))}


def _media_rows(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pictures of a post in an export of Instagram or Facebook, each with its own title or that of the post.

    Any other row as it is. These exports write each byte of UTF-8 as a letter.
    """
    media = row.get("media")
    if isinstance(media, list) and any("uri" in _object(medium) for medium in media):
        for medium in map(_object, media):
            yield _spelt({**medium, "title": medium.get("title") or row.get("title")})
    else:
        yield _spelt(row) if "uri" in row and "creation_timestamp" in row else row


def _spelt(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts are bytes of UTF-8, each written as the letter of that number."""
    def text_of(letters: str) -> str:
        try:
            return letters.encode("latin-1").decode()
        except UnicodeError:                    # the row was mended already
            return letters

    return {key: text_of(value) if isinstance(value, str) else value for key, value in row.items()}


def _via3_rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A project of VIA 3: files, views of files, and metadata that give each view the values of attributes."""
    names = {key: value.get("aname") for key, value in document["attribute"].items() if isinstance(value, dict)}
    options = {key: _object(value.get("options")) for key, value in document["attribute"].items()
               if isinstance(value, dict)}
    values: dict[str, dict[str, Any]] = {}      # view → column → value
    for entry in _object(document.get("metadata")).values():
        for key, value in _object(_object(entry).get("av")).items():
            if names.get(key) and isinstance(value, str):
                values.setdefault(str(_object(entry).get("vid")), {})[str(names[key])] = options[key].get(value, value)
    views = {str(file): view for view, entry in _object(document.get("view")).items()
             for file in _object(entry).get("fid_list") or ()}
    for key, file in document["file"].items():
        if isinstance(file, dict):
            yield {FILE_KEY: file.get("fname"), **values.get(views.get(key, key), {})}


def _is_label_studio(rows: list[Any]) -> bool:
    return bool(rows) and all(isinstance(row, dict) and isinstance(row.get("data"), dict)
                              and isinstance(row.get("annotations", row.get("completions")), list) for row in rows)


def _label_studio_row(task: dict[str, Any]) -> dict[str, Any]:
    """A task of Label Studio: its data, and each answer in a column that is called like the question."""
    row: dict[str, Any] = dict(task["data"])
    marked: list[Any] = []
    for annotation in task["annotations" if "annotations" in task else "completions"]:
        results = _object(annotation).get("result")
        for result in results if isinstance(results, list) else ():
            value, column = _object(_object(result).get("value")), _object(result).get("from_name")
            if isinstance(column, str) and "text" in value:
                texts = value["text"] if isinstance(value["text"], list) else [value["text"]]
                row[column] = [*(row[column] if isinstance(row.get(column), list) else ()), *texts]
            elif isinstance(column, str) and isinstance(value.get("choices"), list):
                row[column] = ", ".join(map(str, value["choices"]))
            else:
                marked += [name for names in value.values() if isinstance(names, list) for name in names]
    return {**row, **_marked(marked)}


def _datumaro_rows(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Datumaro, which CVAT exports: items with captions, classes, and marked objects by the number of their class."""
    labels = _object(document["categories"].get("label")).get("labels")
    names = [_object(label).get("name") for label in labels] if isinstance(labels, list) else []

    def name_of(annotation: dict[str, Any]) -> Any:
        number = annotation.get("label_id")
        return names[number] if type(number) is int and 0 <= number < len(names) else None

    for item in document["items"]:
        listed = _object(item).get("annotations")
        annotations = [_object(annotation) for annotation in listed] if isinstance(listed, list) else []
        captions = [one["caption"] for one in annotations if isinstance(one.get("caption"), str)]
        classes = [name_of(one) for one in annotations if one.get("type") == "label"]
        yield {FILE_KEY: _object(_object(item).get("image")).get("path") or _object(item).get("id"),
               **({"caption": captions} if captions else {}), **({"label": classes[0]} if any(classes) else {}),
               **_marked(name_of(one) for one in annotations if one.get("type") != "label")}

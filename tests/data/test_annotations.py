"""What programs for annotation export: captions are found, and marked objects are named but not taken for captions."""

import csv
import io
import json

import pytest
from picture_folders import captions_of

from diffuse_cli.data.captions import find_pictures

NAMES = [f"{number} a.png" for number in range(4)]
PICTURES = dict.fromkeys(NAMES)
EXPECTED = {name: (f"ball {name[0]}",) for name in NAMES}


def via(name, attributes, regions=()):
    return {"filename": name, "size": 9, "regions": [{"shape_attributes": {"name": "rect"}, "region_attributes": one}
                                                     for one in regions], "file_attributes": attributes}


def via_csv():
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
                   "region_attributes"])
    for name in NAMES:
        for region in range(2):
            rows.writerow([name, 9, json.dumps({"caption": f"ball {name[0]}"}), 2, region, "{}", '{"kind": "ball"}'])
    return text.getvalue()


def label_studio(results, image="/data/upload/1/0a1b2c3d-{}"):
    return [{"id": 1, "annotations": [{"result": results(name)}], "data": {"image": image.format(
        name.replace(" ", "%20"))}} for name in NAMES]


def area(name):
    return [{"from_name": "caption", "type": "textarea", "value": {"text": [f"ball {name[0]}"]}}]


IMAGES = {f"{name}9": via(name, {"caption": f"ball {name[0]}", "url": ""}) for name in NAMES}
EXPORTS = {
    "via.json": IMAGES,
    "via_project.json": {"_via_settings": {"ui": {}}, "_via_img_metadata": IMAGES, "_via_attributes": {},
                         "_via_image_id_list": list(IMAGES)},
    "via3.json": {"project": {}, "attribute": {"1": {"aname": "caption", "options": {}}},
                  "file": {str(number): {"fid": number, "fname": name} for number, name in enumerate(NAMES)},
                  "view": {f"v{number}": {"fid_list": [number]} for number in range(4)},
                  "metadata": {f"m{number}": {"vid": f"v{number}", "av": {"1": f"ball {number}"}}
                               for number in range(4)}},
    "via.csv": via_csv(),
    "studio.json": label_studio(area),
    "studio_local.json": label_studio(area, "/data/local-files/?d=some/where/{}"),
    "studio_min.json": [{"image": f"/data/upload/1/0a1b2c3d-{name}", "id": 1, "caption": f"ball {name[0]}",
                         "annotator": 1, "created_at": "2024-01-01T00:00:00Z"} for name in NAMES],
    "studio_choice.json": label_studio(lambda name: [
        {"from_name": "choice", "type": "choices", "value": {"choices": [f"ball {name[0]}"]}}]),
    "datumaro.json": {"info": {}, "categories": {"label": {"labels": [{"name": "x"}]}}, "items": [
        {"id": name[:-4], "image": {"path": name}, "annotations": [{"type": "caption", "caption": f"ball {name[0]}"},
                                                                   {"type": "bbox", "label_id": 0}]}
        for name in NAMES]},
    "datumaro_classes.json": {"categories": {"label": {"labels": [{"name": f"ball {n}"} for n in range(4)]}}, "items": [
        {"id": name[:-4], "annotations": [{"type": "label", "label_id": int(name[0])}]} for name in NAMES]},
}


@pytest.mark.parametrize("name", EXPORTS)
def test_captions_of_annotation_tools_are_found(folder, name):
    content = EXPORTS[name]
    found = find_pictures(folder({**PICTURES, name: content if isinstance(content, str) else json.dumps(content)}))
    assert captions_of(found) == EXPECTED
    assert found.warnings == ()


BOXES = {
    "via.json": {f"{name}9": via(name, {}, [{"kind": "ball"}, {"kind": "ball"}]) for name in NAMES},
    "coco.json": {"images": [{"id": number, "file_name": name} for number, name in enumerate(NAMES)],
                  "categories": [{"id": 3, "name": "ball"}],
                  "annotations": [{"image_id": number % 4, "category_id": 3, "bbox": [1, 2, 3, 4]}
                                  for number in range(8)]},
    "studio.json": label_studio(lambda name: [
        {"from_name": "box", "type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["ball"]}}]),
}


@pytest.mark.parametrize("name", BOXES)
def test_marked_objects_are_captions_only_by_option(folder, name):
    root = folder({**PICTURES, name: json.dumps(BOXES[name])})
    found = find_pictures(root)
    assert not found.conditional
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(f"{name} has no column text, caption or prompt (it has: ")
    assert "objects); --caption-column objects takes the names of what is marked" in found.warnings[0]
    assert captions_of(find_pictures(root, caption_column="objects")) == dict.fromkeys(NAMES, ("ball",))


@pytest.mark.parametrize("document", [
    {"images": [1, {"id": []}], "annotations": [2], "categories": [3]}, {"items": [1, {}], "categories": {}},
    {"file": {"1": 2, "2": {}}, "attribute": {"1": 2}, "view": {"1": {"fid_list": ["1"]}}},
    [{"data": {}, "annotations": [{"result": [{"value": 1}, 2]}, 3]}], {"_via_img_metadata": {"a": {"filename": 1}}},
    {"a": {"filename": "0 a.png", "file_attributes": "no JSON", "regions": [1]}}])
def test_odd_documents_are_no_captions_and_no_crash(folder, document):
    assert not find_pictures(folder({**PICTURES, "odd.json": json.dumps(document)})).conditional


def test_xml_is_named_with_a_remedy(folder):
    found = find_pictures(folder({**PICTURES, "annotations.xml": "<annotations/>"}))
    assert found.warnings == ("not read as captions: annotations.xml; export them as JSON or CSV",)


@pytest.mark.parametrize("talk", [
    [{"from": "human", "value": "<image> Describe it."}, {"from": "gpt", "value": "a ball"}],
    [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "a ball"}]])
def test_in_a_conversation_the_answer_is_the_caption(folder, talk):
    rows = [{"id": "1", "image": name, "conversations": talk} for name in NAMES]
    assert captions_of(find_pictures(folder({**PICTURES, "chat.json": json.dumps(rows)}))) == dict.fromkeys(
        NAMES, ("a ball",))


def as_exported(text):
    """What photo services write: each byte of UTF-8 as a letter."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize("document", [
    [{"media": [{"uri": f"media/posts/{name}", "creation_timestamp": 1, "title": as_exported(f"“ball” {name[0]}")}]}
     for name in NAMES],
    [{"media": [{"uri": f"media/posts/{name}", "creation_timestamp": 1, "title": ""}],
      "title": as_exported(f"“ball” {name[0]}"), "creation_timestamp": 1} for name in NAMES],
    {"name": "Summer", "cover_photo": {"uri": NAMES[0]}, "photos": [
        {"uri": f"media/posts/{name}", "creation_timestamp": 1, "description": as_exported(f"“ball” {name[0]}")}
        for name in NAMES]},
], ids=["posts", "posts of several", "album"])
def test_exports_of_photo_services(folder, document):
    root = folder({**{f"media/posts/{name}": None for name in NAMES}, "posts_1.json": json.dumps(document)})
    assert captions_of(find_pictures(root)) == {f"media/posts/{name}": (f"“ball” {name[0]}",) for name in NAMES}


@pytest.mark.parametrize(("edges", "captions"), [([{"node": {"text": "a red car"}}], ("a red car",)), ([], ())])
def test_texts_of_instaloader(folder, edges, captions):
    node = {"node": {"edge_media_to_caption": {"edges": edges}, "owner": {"id": 1}}, "instaloader": {"version": "4"}}
    found = find_pictures(folder({"1.jpg": None, "1.json": json.dumps(node)}))
    assert captions_of(found) == {"1.jpg": captions}
    assert found.caption_problems == ()


@pytest.mark.parametrize("rows", [
    [{"image": {"file_name": "a.png", "width": 8}, "annotation": {"caption": "a red car"}},
     {"image": {"file_name": "b.png", "width": 8}, "annotation": {"caption": "a blue old boat"}}],
    {"a.png": [{"caption": "a red car", "id": 1}], "b.png": [{"caption": "a blue old boat", "id": 2}]}])
def test_captions_in_objects_beside_or_under_the_names_of_pictures(folder, rows):
    found = find_pictures(folder({"a.png": None, "b.png": None, "x.json": json.dumps(rows)}))
    assert captions_of(found) == {"a.png": ("a red car",), "b.png": ("a blue old boat",)}


VISUAL_GENOME = {
    "region_descriptions.json": [{"id": number, "regions": [
        {"region_id": 1, "x": 1, "phrase": "a red car"}, {"region_id": 2, "x": 2, "phrase": f"a road {number}"}]}
        for number in range(4)],
    "objects.json": [{"image_id": number, "image_url": f"https://x.org/{number}.jpg", "objects": [
        {"names": ["red car"], "x": 1}, {"names": ["tall tree", "plant"], "x": 2}]} for number in range(4)]}


@pytest.mark.parametrize(("name", "captions"), [
    ("region_descriptions.json", ("a red car", "a road 2")), ("objects.json", ("red car, tall tree",))])
def test_parts_of_pictures_in_visual_genome_are_captions_only_by_option(folder, name, captions):
    root = folder({**{f"VG_100K/{number}.jpg": None for number in range(4)}, name: json.dumps(VISUAL_GENOME[name])})
    (warning,) = find_pictures(root).warnings
    assert warning.endswith("objects); --caption-column objects takes the names of what is marked")
    assert captions_of(find_pictures(root, caption_column="objects"))["VG_100K/2.jpg"] == captions
    (warning,) = find_pictures(root / "VG_100K").warnings
    assert warning.endswith(f"but with objects in them; --captions {root / name} --caption-column objects takes these")
    found = find_pictures(root / "VG_100K", captions=str(root / name), caption_column="objects")
    assert captions_of(found)["2.jpg"] == captions


def test_names_of_several_marked_objects_are_no_phrase(folder):
    document = {"images": [{"id": number, "file_name": f"{number}.png"} for number in range(4)],
                "annotations": [{"image_id": number, "category_id": one} for number in range(4)
                                for one in range(2 + number % 2)],
                "categories": [{"id": 0, "name": "traffic light"}, {"id": 1, "name": "red car"},
                               {"id": 2, "name": "bus"}]}
    assert not find_pictures(folder({**{f"{number}.png": None for number in range(4)},
                                     "instances.json": json.dumps(document)})).conditional


def test_an_annotation_without_texts_is_not_recommended(folder):
    rows = [{"image_id": number, "relationships": [{"predicate": "on", "object": {"name": "road"}}]}
            for number in range(4)]
    (warning,) = find_pictures(folder({**{f"{number}.jpg": None for number in range(4)},
                                       "relationships.json": json.dumps(rows)})).warnings
    assert warning == ("relationships.json has no column text, caption or prompt (it has: relationships), "
                       "which hold no texts")


@pytest.mark.parametrize("around", [lambda rows: {"version": 1, "data": {"train": rows}},
                                    lambda rows: {"data": {"rows": rows}}])
def test_rows_in_an_object_inside_are_found(folder, around):
    rows = [{"image": f"{number}.png", "caption": f"a red car {number}"} for number in range(3)]
    root = folder({**{f"{number}.png": None for number in range(3)}, "all.json": json.dumps(around(rows))})
    assert captions_of(find_pictures(root)) == {f"{number}.png": (f"a red car {number}",) for number in range(3)}


@pytest.mark.parametrize("table", [
    {"items": [{"id": 900 + number, "url": f"https://site/x/{number}.jpeg", "width": 512, "height": 768,
                "meta": {"prompt": f"a red car {number}", "negativePrompt": "bad"}} for number in range(3)],
     "metadata": {"nextCursor": "x"}},
    [{"image": f"{number}.jpeg", "shot": {"description": f"a red car {number}", "lens": "50 mm"}}
     for number in range(3)]])
def test_captions_in_an_object_of_a_row_are_found(folder, table):
    root = folder({**{f"{number}.jpeg": None for number in range(3)}, "images.json": json.dumps(table)})
    assert captions_of(find_pictures(root)) == {f"{number}.jpeg": (f"a red car {number}",) for number in range(3)}


def test_the_description_of_an_author_in_a_row_is_no_caption(folder):
    rows = [{"image": f"{number}.jpeg", "author": {"name": "Ann", "description": f"I paint with oil, {number}"}}
            for number in range(3)]
    assert not find_pictures(folder({**{f"{number}.jpeg": None for number in range(3)},
                                     "all.json": json.dumps(rows)})).conditional


def test_settings_whose_values_happen_to_name_a_picture_are_no_table(folder):
    """As the albums of Eagle keep them in the folder of each picture."""
    root = folder({"cat/cat.png": None, "dog/dog.png": None, "cat/metadata.json": json.dumps(
        {"id": "K1", "name": "cat", "tags": ["red"], "star": 3})})
    assert captions_of(find_pictures(root))["cat/cat.png"] == ("cat",)


@pytest.mark.parametrize("words", ["LabelName", "labelName", "Label Name"])
def test_names_of_columns_are_read_however_their_words_are_set_apart(folder, words):
    table = f"ImageID,Source,{words},Confidence\n0a,x,/m/0c,1\n0a,x,/m/0d,1\n0a,x,/m/0e,1\n0b,x,/m/0d,1\n"
    root = folder({"0a.jpg": None, "0b.jpg": None, "labels.csv": table,
                   "class-descriptions.csv": "/m/0c,Car\n/m/0d,Tree\n/m/0e,Sky\n"})
    assert captions_of(find_pictures(root)) == {"0a.jpg": ("Car", "Tree", "Sky"), "0b.jpg": ("Tree",)}


def test_classes_that_a_person_did_not_find_in_a_picture_are_not_its_captions(folder):
    """In Open Images, a row with a confidence of 0 says so."""
    root = folder({"0a.jpg": None, "0b.jpg": None,
                   "labels.csv": "ImageID,LabelName,Confidence\n0a,car,1\n0a,tree,0\n0b,tree,1\n"})
    assert captions_of(find_pictures(root)) == {"0a.jpg": ("car",), "0b.jpg": ("tree",)}


@pytest.mark.parametrize("header", [
    "filename,width,height,class,xmin,ymin,xmax,ymax", "image,a,b,LabelName,X1,Y1,X2,Y2",
    "file,a,b,label,bbox_x,bbox_y,bbox_w,bbox_h"])
def test_classes_of_several_boxes_in_a_picture_are_no_captions(folder, header):
    rows = [f"{number}.png,64,64,{kind},1,0,1,1" for number in range(3) for kind in ("car", "red bus")]
    root = folder({**{f"{number}.png": None for number in range(3)}, "boxes.csv": "\n".join([header, *rows])})
    found = find_pictures(root)
    assert not found.conditional
    assert found.warnings[0].endswith("; --caption-column objects takes the names of what is marked")
    assert captions_of(find_pictures(root, caption_column="objects"))["1.png"] == ("car", "red bus")


def test_the_class_of_the_only_box_in_each_picture_is_its_caption(folder):
    """As in sets of traffic signs and cars."""
    rows = [f"{number}.png,{kind},1,1,60,60" for number, kind in enumerate(("stop", "yield", "stop"))]
    root = folder({**{f"{number}.png": None for number in range(3)},
                   "signs.csv": "\n".join(["Path,ClassName,x1,y1,x2,y2", *rows])})
    assert captions_of(find_pictures(root))["1.png"] == ("yield",)


def test_columns_that_divide_the_pictures_are_no_tags(folder):
    root = folder({"0.png": None, "1.png": None, "all.csv": "file,is_train,width,height\n0.png,1,1,1\n1.png,0,1,1\n"})
    assert not find_pictures(root).conditional


def test_lists_of_pictures_by_their_classes_are_read(folder):
    root = folder({**{f"{number}.png": None for number in range(4)}, "labels.json": json.dumps(
        {"cat": ["0.png", "1.png"], "red dog": ["2.png"], "bird": ["3.png"]})})
    assert captions_of(find_pictures(root)) == {"0.png": ("cat",), "1.png": ("cat",), "2.png": ("red dog",),
                                                "3.png": ("bird",)}

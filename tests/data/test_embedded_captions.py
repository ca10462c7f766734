"""Texts in pictures, and prompts in the files beside them: the right text is the caption, or none is."""

import io
import json

import pytest
from picture_folders import captions_of
from PIL import Image, IptcImagePlugin, PngImagePlugin

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.picture_descriptions import description_in
from diffuse_cli.errors import DataError

WEBUI = "a red car, <lora:x:0.8>\nwet (road:1.2)\nNegative prompt: ugly\nSteps: 20, Sampler: Euler a, Seed: 1"


def graph(prompt, **more):
    """A graph of ComfyUI, as it is given to the server."""
    text = {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["4", 1]}},
            "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}}}
    return {"3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["6", 0], "negative": ["7", 0]}}, **text,
            **more}


def workflow(prompt, mode=0):
    """The same as its editor saves it."""
    return {"nodes": [
        {"id": 7, "type": "CLIPTextEncode", "inputs": [{"name": "clip", "link": 5}], "widgets_values": ["ugly"]},
        {"id": 6, "type": "CLIPTextEncode", "inputs": [{"name": "clip", "link": 3}], "widgets_values": [prompt]},
        {"id": 3, "type": "KSampler", "widgets_values": [1, "randomize", 20, 7, "euler"],
         "inputs": [{"name": "positive", "link": 4}, {"name": "negative", "link": 6}]},
        {"id": 9, "mode": mode, "type": "KSampler", "inputs": [{"name": "positive", "link": 6}]}],
        "links": [[3, 4, 1, 6, 0, "CLIP"], [4, 6, 0, 3, 0, "CONDITIONING"], [6, 7, 0, 3, 1, "CONDITIONING"]]}


def png(**texts):
    data, chunks = io.BytesIO(), PngImagePlugin.PngInfo()
    for name, text in texts.items():
        chunks.add_text(name, text if isinstance(text, str) else json.dumps(text))
    Image.new("RGB", (8, 8)).save(data, "PNG", pnginfo=chunks)
    return data.getvalue()


def with_comment(format, text):
    """A picture with the text in its Exif, as stable-diffusion-webui writes it."""
    data, exif = io.BytesIO(), Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    Image.new("RGB", (8, 8)).save(data, format, exif=exif)
    return data.getvalue()


@pytest.mark.parametrize(("name", "data", "caption"), [
    ("a.png", png(parameters=WEBUI), "a red car wet road"),
    ("a.jpg", with_comment("JPEG", WEBUI), "a red car wet road"),
    ("a.webp", with_comment("WEBP", WEBUI), "a red car wet road"),
    ("ComfyUI_00001_.png", png(prompt=graph("a red car"), workflow=workflow("a red car")), "a red car"),
    ("a.png", png(prompt=graph("a red car", **{"9": {"class_type": "KSampler", "inputs": {"positive": ["6", 0]}}})),
     "a red car"),
    ("a.png", png(prompt={"1": {"class_type": "BasicGuider", "inputs": {"conditioning": ["2", 0]}},
                          "2": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["3", 0]}},
                          "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red car"}}}), "a red car"),
    ("a.png", png(invokeai_metadata={"positive_prompt": "a red car", "negative_prompt": "ugly"}), "a red car"),
    ("a.png", png(parameters='{"prompt": "a red car", "seed": 1}'), "a red car"),
    ("a.png", png(Comment={"prompt": "a red car", "uc": "ugly"}), "a red car"),
    ("a.png", png(prompt=graph("a car", **{"9": {"class_type": "KSampler", "inputs": {"positive": ["7", 0]}}})), None),
    ("a.png", png(prompt=graph(["8", 0])), None), ("a.png", png(prompt="a red car"), None),
    ("a.png", png(prompt={"a": 1, "b": {"inputs": 3}}), None), ("a.png", png(Comment="by hand", parameters="x"), None),
    ("a.png", png(Software="x"), None), ("a.png", png(parameters=WEBUI)[:60], None), ("a.png", b"", None),
    ("a.jpg", with_comment("JPEG", "a remark"), None)])
def test_prompts_in_pictures(folder, name, data, caption):
    found = find_pictures(folder({name: data, f"1-{name}": data}))
    assert captions_of(found)[name] == ((caption,) if caption else ())
    assert found.caption_source == ("embedded" if caption else "none")


@pytest.mark.parametrize(("document", "caption"), [
    (workflow("a red car", mode=2), "a red car"), (graph("a red car"), "a red car"),
    (workflow("a red car"), None), ({"nodes": [1, {}], "links": [[], 2]}, None)])
def test_workflows_beside_pictures(folder, document, caption):
    found = find_pictures(folder({"1.png": None, "1.json": json.dumps(document)}))
    assert captions_of(found) == {"1.png": (caption,) if caption else ()}
    assert bool(found.warnings) == (caption is None)


def test_one_workflow_beside_pictures_is_no_table(folder):
    found = find_pictures(folder({"00006.png": None, "00007.png": None, "workflow.json": json.dumps(workflow("x"))}))
    assert found.warnings == ("workflow.json is not used: lists none of the pictures",)


def test_prompts_go_before_names_and_behind_texts(folder):
    files = {f"{name}/{number}.png": png(parameters=WEBUI) for name in ("cats", "dogs") for number in range(3)}
    found = find_pictures(folder(files))
    assert set(captions_of(found).values()) == {("a red car wet road",)}
    assert any("--captions folder would use them" in note for note in found.notes)
    for number in range(3):
        files |= {f"cats/{number}.txt": "a cat", f"dogs/{number}.txt": "a dog"}
    assert set(captions_of(find_pictures(folder(files))).values()) == {("a cat",), ("a dog",)}


def test_a_few_prompts_are_named(folder):
    root = folder({"cats/1.png": png(parameters=WEBUI), "cats/2.png": None, "dogs/3.png": None, "dogs/4.png": None})
    found = find_pictures(root)
    assert captions_of(found)["cats/1.png"] == ("cats",)
    assert found.notes == ("1 of 4 pictures that were looked at holds the prompt of the program that made them, for "
                           "example “a red car wet road”, which is not used; --captions embedded would use such texts",)
    assert captions_of(find_pictures(root, captions="embedded")) == {
        "cats/1.png": ("a red car wet road",), "cats/2.png": (), "dogs/3.png": (), "dogs/4.png": ()}
    with pytest.raises(DataError, match="--captions embedded"):
        find_pictures(folder({"empty/1.png": None}) / "empty", captions="embedded")


@pytest.mark.parametrize(("flags", "captions"), [
    ({"cat": True, "wet": True, "dog": False}, ("cat, wet",)), ({}, ()), ({"cat": False}, ()), ([], ())])
def test_files_of_labelme(folder, flags, captions):
    document = {"version": "5", "flags": flags, "shapes": [{"label": "cat"}], "imagePath": "1.png", "imageData": None}
    found = find_pictures(folder({"1.png": None, "1.json": json.dumps(document)}))
    assert captions_of(found) == {"1.png": captions}
    assert found.warnings == (() if captions else (
        "1 .json file marks objects in its picture, which is no caption, for example 1.json; to describe the pictures, "
        "write a table with the name of a picture and its caption in each line",))


@pytest.mark.parametrize(("text", "caption"), [
    ("<p>a red car &amp; a caf&eacute;</p><br/>", "a red car & a café"), ("R&D; a <b> c", "R&D; a <b> c"),
    ("a &amp;quot;red&amp;quot; car", 'a "red" car'),
    ("1girl, <lora:x:1>, (red hair:1.2), John (3:16)", "1girl, red hair, John (3:16)")])
def test_signs_of_other_forms_are_no_words(folder, text, caption):
    assert captions_of(find_pictures(folder({"1.png": None, "1.txt": text}))) == {"1.png": (caption,)}


def test_open_choices_are_counted(folder):
    found = find_pictures(folder({"1.png": None, "1.txt": "a {red|green} car\na __colour__ car\na car {x}, __init"}))
    assert found.warnings == ("2 of 3 captions leave a word open, such as “{red|green}”, and are taken as they "
                              "stand; write the word itself",)


@pytest.mark.parametrize("placeholder", ["[trigger]", "[name]", "{caption}"])
def test_placeholders_of_other_programs_are_counted(folder, placeholder):
    texts = {"1.txt": f"a photo of {placeholder}", "2.txt": "[x] y"}
    found = find_pictures(folder({"1.png": None, "2.png": None, **texts}))
    assert found.warnings == (f"1 of 2 captions leave a word open, such as “{placeholder}”, and are taken as they "
                              "stand; write the word itself",)


@pytest.mark.parametrize(("text", "is_refusal"), [
    ("I'm sorry, I can't assist with that request.", True), ("Sorry, but I cannot describe this picture.", True),
    ("I am unable to help with that", True), ("As an AI language model, …", True), ("a sorry dog", False),
    ("As an aid, a cane", False), ("I can see a car", False)])
def test_refusals_of_programs_are_counted(folder, text, is_refusal):
    found = find_pictures(folder({"1.png": None, "1.txt": text, "2.png": None, "2.txt": "a car"}))
    assert found.warnings == ((f"1 of 2 captions are refusals of the program that wrote them, for example “{text}”; "
                               "remove or rewrite them",) if is_refusal else ())


def test_negative_prompts_beside_pictures_are_no_captions(folder):
    found = find_pictures(folder({"1.png": None, "1.txt": "a car", "1_negative.txt": "ugly", "1-neg.txt": "bad"}))
    assert captions_of(found) == {"1.png": ("a car",)}
    assert found.caption_problems == ()
    assert found.notes == ("2 texts are negative prompts by their names, and no captions",)


# ── What people wrote into their pictures ───────────────────────────────────────────────────────────────────────────


def saved(format="JPEG", *, exif=(), xmp=None, app13=b""):
    """A picture with texts in it: tags of Exif, XMP, or a segment of Photoshop after the first marker."""
    data, tags = io.BytesIO(), Image.Exif()
    for tag, value in exif:
        tags[tag] = value
    Image.new("RGB", (8, 8)).save(data, format, exif=tags, **({} if xmp is None else {"xmp": xmp.encode()}))
    if not app13:
        return data.getvalue()
    segment = b"Photoshop 3.0\0" + app13
    return b"\xff\xd8\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment + data.getvalue()[2:]


def xmp(field, *items):
    return f'<x:xmpmeta><rdf:RDF><rdf:Description><{field}><rdf:Alt>' + "".join(
        f'<rdf:li xml:lang="x-default">{item}</rdf:li>' for item in items) + f"</rdf:Alt></{field}></rdf:Description>"


def iptc(*fields, name=b""):
    """A resource of Photoshop with IPTC, after one of another kind with a name."""
    data = b"".join(b"\x1c\x02" + bytes([number]) + len(text).to_bytes(2, "big") + text for number, text in fields)

    def resource(kind, name, data):
        title = bytes([len(name)]) + name
        title, padded = title + b"\0" * (len(title) % 2), data + b"\0" * (len(data) % 2)
        return b"8BIM" + kind + title + len(data).to_bytes(4, "big") + padded

    return resource(b"\x03\xf3", name, b"abc") + resource(b"\x04\x04", b"", data)


def windows(text):
    return text.encode("utf-16-le") + b"\0\0"


DESCRIBED = {
    "Exif": ("a.jpg", saved(exif=[(0x010E, "a red car")]), "a red car"),
    "Exif of a WebP": ("a.webp", saved("WEBP", exif=[(0x010E, "a red car")]), "a red car"),
    "title of Windows": ("a.jpg", saved(exif=[(0x9C9B, windows("a röd 車"))]), "a röd 車"),
    "keywords of Windows": ("a.jpg", saved(exif=[(0x9C9E, windows("red;car"))]), "red, car"),
    "camera, then comment": ("a.jpg", saved(exif=[(0x010E, "OLYMPUS DIGITAL CAMERA"), (0x9C9C, windows("a red car"))]),
                             "a red car"),
    "XMP": ("a.jpg", saved(xmp=xmp("dc:description", "a red &amp; blue car")), "a red & blue car"),
    "XMP of a WebP": ("a.webp", saved("WEBP", xmp=xmp("dc:description", "a red car")), "a red car"),
    "XMP before Exif": ("a.jpg", saved(xmp=xmp("dc:description", "a red car"), exif=[(0x010E, "another")]),
                        "a red car"),
    "keywords after Exif": ("a.jpg", saved(xmp=xmp("dc:subject", "car", "red"), exif=[(0x010E, "a red car")]),
                            "a red car"),
    "keywords of XMP": ("a.jpg", saved(xmp=xmp("dc:subject", "car", "red")), "car, red"),
    "IPTC": ("a.jpg", saved(app13=iptc((25, b"car"), (120, "a röd car".encode()))), "a röd car"),
    "IPTC in Latin-1": ("a.jpg", saved(app13=iptc((120, "un éléphant à la mer".encode("cp1252")), name=b"odd")),
                        "un éléphant à la mer"),
    "keywords of IPTC": ("a.jpg", saved(app13=iptc((25, b"car"), (25, b"red"), name=b"even")), "car, red"),
    "text of a PNG": ("a.png", png(Description="a red car"), "a red car"),
    "XMP of a PNG": ("a.png", png(**{"XML:com.adobe.xmp": xmp("dc:description", "a red car")}), "a red car"),
    "camera": ("a.jpg", saved(exif=[(0x010E, "KONICA MINOLTA DIGITAL CAMERA")]), None),
    "name of the file": ("a.jpg", saved(exif=[(0x010E, r"DCIM\100MEDIA\DJI_0001.JPG")]), None),
    "telephone": ("a.jpg", saved(exif=[(0x010E, "dav")]), None),
    "program": ("a.png", png(Comment="Created with GIMP"), None),
    "language": ("a.jpg", saved(xmp=xmp("dc:description", "x-default")), None),
}


@pytest.mark.parametrize("case", DESCRIBED)
def test_a_description_in_a_picture_is_its_caption(folder, case):
    name, data, caption = DESCRIBED[case]
    found = find_pictures(folder({name.replace("a.", "DSC_0001."): data}))
    assert captions_of(found) == {name.replace("a.", "DSC_0001."): (caption,) if caption else ()}


def test_iptc_is_what_pillow_reads():
    _, data, caption = DESCRIBED["IPTC in Latin-1"]
    with Image.open(io.BytesIO(data)) as image:
        assert IptcImagePlugin.getiptcinfo(image)[2, 120].decode("cp1252") == caption


@pytest.mark.parametrize("case", [case for case, (_, _, caption) in DESCRIBED.items() if caption])
def test_a_damaged_picture_has_a_description_or_none(case):
    _, data, caption = DESCRIBED[case]
    for length in range(0, len(data), 3):
        assert description_in(io.BytesIO(data[:length])) in ("", caption, "another", "car", "car, red")
    for position in range(0, min(len(data), 600), 2):
        description_in(io.BytesIO(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]))


def test_one_text_in_most_pictures_is_a_programs_and_only_named(folder):
    pictures = {f"DSC_{number:04}.jpg": saved(exif=[(0x010E, "My new phone")]) for number in range(8)}
    root = folder(pictures)
    found = find_pictures(root)
    assert found.caption_source == "none"
    assert "8 of 8 pictures that were looked at hold a description, for example “My new phone”" in found.notes[0]
    assert set(captions_of(find_pictures(root, captions="embedded")).values()) == {("My new phone",)}

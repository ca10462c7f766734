"""Sampling settings in PNGs: other tools can parse them, and they are read back without loss."""

import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffuse_cli import __version__
from diffuse_cli.checks import from_dict
from diffuse_cli.config import Sampling
from diffuse_cli.errors import DataError, ModelError
from diffuse_cli.model_config import ModelConfig, NetworkConfig, Student
from diffuse_cli.pictures.image_files import encode
from diffuse_cli.sampling.png_metadata import (
    MAX_PROMPT,
    SampleMetadata,
    collect_metadata,
    find_model,
    png_texts,
    read_settings,
)
from diffuse_cli.sampling.request import InitImage, Sample, SampleRequest
from diffuse_cli.storage.checkpoint import Model
from diffuse_cli.storage.model_info import TrainingSummary, read_model_info

CONFIG = ModelConfig(
    network=NetworkConfig(resolution=16, widths=(16,), depths=(1,), attention=("full",), head_dim=16, groups=16,
                          time_width=16, text=None), schedule="cosine", prediction="v")


def metadata_from(
    prompt="a red car", *, negative="", name="cars", sha256="0123456789abcdef" * 4, seed=7, init=None, student=None,
    **sampling
):
    model = Model(dataclasses.replace(CONFIG, student=student), None, None, {}, TrainingSummary(name=name), sha256)
    request = SampleRequest(prompt=prompt, negative=negative, seed=seed - 2 if seed >= 2 else seed, count=3,
                            sampling=Sampling(**sampling), init=init)
    return collect_metadata(Sample(request, 2 if seed >= 2 else 0, np.zeros((16, 16, 3), np.uint8), 0.1), model)


# ── Parsers that behave as other tools do ───────────────────────────────────────────────────────────────────────────

PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def parse(text):
    """As the web UI: the last line has at least three "key: value" pairs; before it are prompt and negative prompt."""
    *lines, last = text.strip().split("\n")
    if len(PARAMETER.findall(last)) < 3:
        lines, last = [*lines, last], ""
    parts, which = {"prompt": [], "negative": []}, "prompt"
    for line in (line.strip() for line in lines):
        if line.startswith("Negative prompt:"):
            which, line = "negative", line[16:].strip()
        parts[which].append(line)
    values = {}
    for key, value in PARAMETER.findall(last):
        values[key] = json.loads(value) if value[:1] == value[-1:] == '"' else value
    return "\n".join(parts["prompt"]), "\n".join(parts["negative"]), values


def parse_by_marks(text):
    """As a reader of prompts that looks for the marks "Negative prompt:" and "Steps:" at the start of a line."""
    steps = text.find("\nSteps:")
    negative = text.find("\nNegative prompt:")
    first = min(mark for mark in (steps, negative) if mark >= 0)
    return text[:first].strip(), text[negative + 17 : steps].strip() if negative >= 0 else ""


def chunks(png):
    """The text chunks of a PNG as its specification has them: tEXt is Latin-1, iTXt UTF-8."""
    found, position = {}, 8
    while position < len(png):
        length, kind = int.from_bytes(png[position : position + 4]), png[position + 4 : position + 8]
        data = png[position + 8 : position + 8 + length]
        if kind == b"tEXt":
            name, _, value = data.partition(b"\0")
            found[name.decode("latin-1")] = value.decode("latin-1")
        if kind == b"iTXt":
            name, _, rest = data.partition(b"\0")
            assert rest[:2] == b"\0\0"                     # not compressed
            found[name.decode("latin-1")] = rest[2:].split(b"\0", 2)[2].decode("utf-8")
        position += 12 + length
    return found


PROMPTS = ["a red car", "two\nlines", 'say "red", twice', "key: value, Steps: 9", "rotes Käsebrot, 赤い車 😀",
           "first\nSteps: 1, Sampler: fake, Seed: 0\nlast", "one\nNegative prompt: sham", "back\\slash, (weights:1.2)"]
NEGATIVES = ["", "blurry", 'a "b": c,\nd', "x\nSteps: 3", "häßlich"]


@pytest.mark.parametrize("negative", NEGATIVES)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_readers_of_other_tools_read_our_pngs(prompt, negative):
    metadata = metadata_from(prompt, negative=negative, name='cars, "fast"')
    found = chunks(encode(np.zeros((16, 16, 3), np.uint8), texts=png_texts(metadata)))
    assert found.keys() == {"parameters", "diffuse"}       # none of those that would be taken for a workflow
    flat = re.sub(r"\n(?=Steps:|Negative)", " ", prompt), re.sub(r"\n(?=Steps:)", " ", negative)
    *read, values = parse(found["parameters"])
    assert tuple(read) == flat
    assert (values["Steps"], values["Seed"], values["Model"]) == ("20", "7", 'cars, "fast"')
    assert parse_by_marks(found["parameters"]) == flat
    assert json.loads(found["diffuse"])["prompt"] == prompt


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_user_comment_is_read_by_its_first_eight_bytes(prompt, suffix):
    """EXIF: eight bytes name the encoding; readers take "UNICODE" for big-endian UTF-16."""
    chunk_texts = png_texts(metadata_from(prompt))
    with Image.open(io.BytesIO(encode(np.zeros((16, 16, 3), np.uint8), suffix=suffix, texts=chunk_texts))) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == chunk_texts["parameters"]


def test_other_tools_can_read_the_settings():
    prompt, negative, values = parse(png_texts(metadata_from(sampler="ddpm", guidance=2.5))["parameters"])
    assert (prompt, negative) == ("a red car", "")
    assert values == {
        "Steps": "100", "Sampler": "ddpm", "CFG scale": "2.5", "Seed": "7", "Size": "16x16", "Model hash": "0123456789",
        "Model": "cars", "Version": f"diffuse-cli {__version__}"}
    assert next(iter(values)) == "Steps"


def test_without_a_prompt_only_the_line_of_settings_is_left():
    text = png_texts(metadata_from(""))["parameters"]
    assert "\n" not in text
    assert text.startswith("Steps: 20, ")


@pytest.mark.parametrize("name", ["a, Steps: 1", 'say "x"', "two\nlines", "c:\\x", "käse, 1"])
def test_a_name_cannot_pose_as_other_settings(name):
    *_, values = parse(png_texts(metadata_from(name=name))["parameters"])
    assert values["Model"] == name
    assert values["Steps"] == "20"


@given(st.text(alphabet=st.characters(codec=None)), st.integers(0, 2**63 - 9))
def test_the_json_text_is_lossless(prompt, seed):
    metadata = metadata_from(prompt, seed=seed, steps=3, guidance=1.0 / 3, guidance_interval=(0.1, 0.3))
    written = png_texts(metadata)
    assert from_dict(SampleMetadata, json.loads(written["diffuse"])) == metadata
    assert metadata.prompt == prompt[:MAX_PROMPT]
    assert (metadata.seed, metadata.steps, metadata.guidance) == (seed, 3, 1 / 3)
    assert metadata.guidance_interval == (0.1, 0.3)
    assert written["diffuse"].isascii()
    written["parameters"].encode()                         # lone surrogates would not be


def test_the_sampling_settings_can_be_rebuilt():
    sampling = Sampling(sampler="heun", steps=7, guidance=1.5, guidance_interval=(0.25, 3.0), batch_size=3,
                        precision="bf16")
    assert metadata_from(**dataclasses.asdict(sampling)).sampling == sampling


def test_the_default_guidance_interval_is_recorded_as_numbers():
    assert metadata_from().guidance_interval == (0.2, 1.5)      # 6·16/64


def test_only_fields_that_apply_are_recorded():
    plain = {"prompt", "negative", "seed", "sampler", "steps", "guidance", "guidance_interval", "batch_size",
             "precision", "size", "model", "model_sha256", "version"}
    assert set(metadata_from().to_dict()) == plain
    start = InitImage(np.zeros((16, 16, 3), np.uint8), 0.5, np.ones((16, 16), bool))
    assert set(metadata_from(init=start).to_dict()) == plain | {"strength", "init_sha256", "mask_sha256"}
    assert "Denoising strength: 0.5" in png_texts(metadata_from(init=start))["parameters"]
    assert len(metadata_from(name="n" * 1000).model) == 64
    assert metadata_from("x" * 5000).prompt == "x" * MAX_PROMPT     # far more than a model reads


def test_a_student_is_recorded_as_one():
    student = Student(evaluations=4, guidance=2.5, teacher="the teacher", start=1.0)
    metadata = metadata_from(student=student, sampler="ddim", steps=4, guidance=1.0)
    *_, values = parse(png_texts(metadata)["parameters"])
    assert (values["Steps"], values["CFG scale"], values["Distilled CFG Scale"]) == ("4", "1", "2.5")
    assert from_dict(SampleMetadata, json.loads(png_texts(metadata)["diffuse"])) == metadata
    assert metadata.to_dict()["student"] == dataclasses.asdict(student)


def test_a_negative_prompt_that_did_nothing_is_not_recorded():
    assert metadata_from(negative="blue", guidance=1.01).negative == "blue"
    assert metadata_from(negative="blue", guidance=1.0).negative == ""


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def png(path, text):
    path.write_bytes(encode(np.zeros((16, 16, 3), np.uint8), texts={"diffuse": text}))
    return path


@settings(max_examples=30, deadline=None)
@given(prompt=st.text(max_size=50), negative=st.text(max_size=50))
def test_written_settings_are_read_back(prompt, negative, tmp_path_factory):
    metadata = metadata_from(prompt, negative=negative)
    path = png(tmp_path_factory.getbasetemp() / "x.png", png_texts(metadata)["diffuse"])
    assert read_settings(path) == metadata


def test_the_longest_text_that_is_written_is_read_back(tmp_path):
    metadata = metadata_from("😀" * 5000, negative="😀" * 5000)
    assert read_settings(png(tmp_path / "x.png", png_texts(metadata)["diffuse"])) == metadata


HOSTILE = {
    "seed": [-1, 2**63, 1.5, "1", None, True], "steps": [0, 1001, None, 1e9], "sampler": ["rm -rf", "", 3],
    "guidance": [-1, 1e9, "x", [1]], "guidance_interval": [[], [1], [3, 1], [1, 2, 3], "ab", [[1], 2], [0.1] * 20_000],
    "batch_size": [0, 10**9], "precision": ["auto", "fp8"], "size": [[8], [0, 0], [10**6, 8], 8],
    "model": ["x" * 65, {}], "model_sha256": ["../../etc/passwd", "F" * 64, "", None], "prompt": [None, "x" * 4097, 7],
    "strength": [0.5, 2, "x"], "init_sha256": ["0" * 64, "/etc/passwd"], "mask_sha256": ["0" * 64], "path": ["/etc"],
    "student": [4, {}, {"evaluations": 4, "guidance": 1e9, "teacher": ""}],
    "upscaler": ["cars-x4", "x" * 65, 3], "upscaler_sha256": ["0" * 64, "../x"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in HOSTILE.items() for value in values])
def test_impossible_values_are_refused(name, value, tmp_path):
    with pytest.raises(DataError, match=r"settings in .*x\.png cannot be used"):
        read_settings(png(tmp_path / "x.png", json.dumps({**metadata_from().to_dict(), name: value})))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"seed": 1, "seed": 2}', "{}", "[" * 9999, "9" * 999,
                                  '{"prompt": "' + "x" * 200_000 + '"}'], ids=lambda text: text[:12])
def test_text_that_is_no_record_is_refused(text, tmp_path):
    with pytest.raises(DataError):
        read_settings(png(tmp_path / "x.png", text))


def test_pictures_without_a_record_are_refused(tmp_path):
    black = np.zeros((16, 16, 3), np.uint8)
    for name, data in (("a.jpg", encode(black, suffix=".jpg", texts=png_texts(metadata_from()))),
                       ("b.png", encode(black)), ("c.png", b"not a picture"), ("d.png", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="holds no sampling settings"):
            read_settings(tmp_path / name)
    with pytest.raises(DataError, match=r"^there is no picture .*nowhere\.png"):
        read_settings(tmp_path / "nowhere.png")


@pytest.mark.parametrize("name", ["parameters", "prompt", "workflow", "invokeai_metadata"])
def test_pictures_of_other_programs_are_called_that(tmp_path, name):
    (tmp_path / "a.png").write_bytes(encode(np.zeros((16, 16, 3), np.uint8), texts={name: "a red square, Steps: 8"}))
    with pytest.raises(DataError, match=rf"made by another program, whose settings \({name}\) cannot be used"):
        read_settings(tmp_path / "a.png")


def test_a_model_is_found_by_its_hash_under_any_name(trained, home):
    sha256 = read_model_info(trained[0] / "model.safetensors").sha256
    assert re.fullmatch("[0-9a-f]{64}", sha256)
    for name in ("alpha", "tiny", "zeta"):
        (home / "models" / name).mkdir(parents=True)
        shutil.copy(trained[0] / "model.safetensors", home / "models" / name)
    assert find_model("tiny", sha256).parent.name == "tiny"
    assert find_model("gone", sha256).parent.name == "alpha"
    (home / "models" / "tiny" / "model.safetensors").write_bytes(b"damaged")
    assert find_model("tiny", sha256).parent.name == "alpha"
    with pytest.raises(ModelError, match="'tiny' with hash 0123456789, is not here"):
        find_model("tiny", "0123456789" + "a" * 54)

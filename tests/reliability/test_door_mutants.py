"""Checks the tests of the doors themselves: with any of these checks removed or limits lifted, one of them must fail.

Each mutant is a patch of one file, applied to a temporary copy of the package, in which the named test is run.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import diffuse_cli

TESTS = Path(__file__).parents[1]
MODELS, STRICT, OPENING = "storage/safetensors_header.py", "files/strict_json.py", "files/input_files.py"
ONNX = "evaluation/features_file.py"
SEALS, INPUTS, HEADERS = "storage/test_safetensors_file.py", "files/test_input_files.py", "test_security.py"
CHECKPOINT, PNG, FEATURES = "storage/test_checkpoint.py", "data/test_png_texts.py", "evaluation/test_features_file.py"
SMALL, SLOW = "data/test_small_files_of_much.py", "reliability/test_slow_texts.py"
DESCRIPTIONS, GRAPHS = "data/picture_descriptions.py", "data/generated_prompts.py"
SERVER, FORM, ASKING = "ui/server.py", "ui/form.py", "ui/test_server.py"
RECORDS = "reliability/test_run_records.py"
IMAGES, WORKERS, JSON = "data/test_images.py", "data/test_decode_workers.py", "files/test_strict_json.py"

# name → (file, the code, what stands there instead, the tests that notice)
MUTANTS = {
    "the seal is not compared": ("storage/safetensors_file.py", "if digest.hexdigest() != header.metadata[SEAL_KEY]:",
                                 "if False:", f"{SEALS} -k flipped_bit"),
    "a seal may be missing": (MODELS, 'if any(key.startswith("diffuse.") for key in metadata):',
                              "if False:", f"{SEALS} -k without_its_seal"),
    "tensors may overlap": (MODELS, "if entry.start != end:", "if False:", f"{SEALS} -k overlaps"),
    "there may be data after the tensors": (MODELS, "if end != data_bytes:", "if False:",
                                            f"{SEALS} -k impostors"),
    "any name of a tensor": (MODELS, "if not _TENSOR_NAME.fullmatch(name):", "if False:",
                             f"{SEALS} -k bad_names"),
    "any metadata": (MODELS, "if not _METADATA_NAME.fullmatch(key):", "if False:",
                     f"{SEALS} -k impostors"),
    "shapes need not fit": (MODELS,
                            "if offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:", "if False:",
                            f"{SEALS} -k bad_tensors"),
    "headers of any number of values": (MODELS, "MAX_ENTRIES = 600_000", "MAX_ENTRIES = 10**9",
                                        HEADERS),
    "a key may occur twice": (STRICT, "if len(result) != len(pairs):", "if False:", f"{SEALS} -k impostors"),
    "long integers are read": (STRICT, "whole = _small_int if _LONG.search(text) else int", "whole = int",
                               f"{JSON} -k beyond"),
    "numbers may be infinite": (STRICT, "if not math.isfinite(value):", "if False:", f"{SEALS} -k impostors"),
    "pipes are opened": (OPENING, "if not stat.S_ISREG(status.st_mode):", "if False:",
                         f"{INPUTS} -k no_regular"),
    "files of any size": (OPENING, "if raw.size > limit:", "if False:", f"{INPUTS} -k larger"),
    "growing files": (OPENING, "if self.tell() > self.size:", "if False:", f"{INPUTS} -k grows"),
    "an odd first width": ("model_config.py", "if self.widths[0] % 2:", "if False:",
                           "test_config.py -k impossible_network"),
    "any number of channels": ("model_config.py", "if self.channels not in CHANNELS:", "if False:",
                               "test_config.py -k impossible_network"),
    "tokenizers of any JSON": ("network/tokenizer.py", "data = loads_strict(text, limit=MAX_BYTES)",
                               "data = json.loads(text)", "network/test_tokenizer.py -k strictly"),
    "texts unpacked without limit": ("data/png_texts.py", "body = unpacking.decompress(body, MAX_TEXT_BYTES)",
                                     "body = unpacking.decompress(body)", f"{PNG} -k bounded"),
    "texts with a wrong sum": ("data/png_texts.py",
                               'if zlib.crc32(kind + data).to_bytes(4, "big") != file.read(4):', "if False:",
                               f"{PNG} -k damaged"),
    "pictures of any size": ("data/images.py", "if width * height > MAX_PIXELS:", "if False:",
                             f"{IMAGES} -k limit_is_ours"),
    "decoders of any time": ("data/decode_workers.py", "if self._lost > max(BUDGET, self._used):", "if False:",
                             f"{WORKERS} -k given_up"),
    "weights in other files": (ONNX,
                               "if message.data_location != onnx.TensorProto.DEFAULT or message.external_data:",
                               "if False:", f"{FEATURES} -k other_files"),
    "operators of others": (ONNX, "if message.domain not in DOMAINS:", "if False:",
                            f"{FEATURES} -k not_of_the_standard"),
    "loops": (ONNX, "if message.op_type in LOOPS:", "if False:", f"{FEATURES} -k loops"),
    "rows of any number": ("data/containers.py", "if rows > max(ROW_LIMIT, size):", "if False:",
                           f"{SMALL} -k more_rows"),
    "memory without end": ("files/memory_limit.py", "resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))", "pass",
                           f"{SMALL} -k unpack"),
    "names that no file has": ("data/archives.py", ' or max(map(len, path.split("/"))) > MAX_NAME', "",
                               f"{SLOW} -k no_file_can_have"),
    "nested TOML": ("files/strict_toml.py", "except RecursionError as error:", "except KeyError as error:",
                    f"{SLOW} -k lists"),
    "entities of any number": ("data/caption_text.py", r"#\d{1,7}|", r"#\d+|",
                               "data/test_caption_text.py -k entity"),
    "texts of any depth": (STRICT, 'if text.count("[") + text.count("{") > MAX_DEPTH', "if False", f"{JSON} -k nest"),
    "times of any length": ("storage/event_log.py", "min(log.seconds + running, MAX_SECONDS)", "log.seconds + running",
                            "storage/test_event_log.py"),
    "a description as often as it stands there": (DESCRIPTIONS, "and tag not in found ", "", f"{SLOW} -k thousand"),
    "all captions of a picture": (DESCRIPTIONS, "for value in captions[:1])", "for value in captions)",
                                  f"{SLOW} -k thousand"),
    "links that are lists": (GRAPHS, " and isinstance(link[0], str | int) else None", " else None", f"{SLOW} -k link"),
    "texts of any length in rows": ("data/containers.py", "TEXT_LIMIT = 2**20", "TEXT_LIMIT = 2**40",
                                    f"{SMALL} -k more_than_a_megabyte"),
    "ends of any length": ("data/damage.py", "min(pixels // 2, len(data))", "pixels // 2",
                           "data/test_damage.py -k much_longer"),
    "pictures that nobody typed": ("storage/run_directory.py",
                                   "if registry.name_of(directory / registry.MODEL_FILE) is None and any(",
                                   "if False and any(", f"{RECORDS} -k not_downloaded"),
    "any recipe beside a model": ("storage/run_directory.py", '        from_dict(Recipe, known, where="recipe")\n', "",
                                  f"{RECORDS} -k made_up"),
    "enlarged pictures of any size": ("cli/upscale.py", "if size.scaled(factor).pixels > MAX_PIXELS:", "if False:",
                                      "test_upscalers.py -k too_much_memory"),
    "any model as a student": ("model_config.py", "if self.student is not None and self.is_upscaler !=",
                               "if False and self.is_upscaler !=", "test_distilled_upscalers.py -k starts_below"),
    "the page without its token": (SERVER, "if not _same(token, self.server.token):", "if False:",
                                   f"{ASKING} -k without_the_token"),
    "the page under any name": (SERVER, 'if host.rpartition(":")[0] not in HOST_NAMES and host not in HOST_NAMES:',
                                "if False:", f"{ASKING} -k without_the_token"),
    "requests of any length": (SERVER, "if len(length) > 12 or int(length) > limit:", "if False:",
                               f"{ASKING} -k within_the_limit"),
    "prompts that no command line holds": (FORM, r'if "\0" in text or text !=', "if False and text !=",
                                           f"{ASKING} -k judged_like"),
    "HTML": ("reporting/page.py", "return escape(printable)", "return printable",
             "reliability/test_doors.py -k html_is_inert"),
    "control characters": ("cli/terminal/plain_text.py", "if unicodedata.category(character) in _INVISIBLE and",
                           "if False and", "cli/terminal/test_plain_text.py"),
}


def fails(package: Path, tests: str) -> bool:
    """Whether one of the tests fails with this copy of the package. Raises AssertionError if none ran."""
    name, *selection = tests.split(" ", 1)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider", TESTS / name,
         *(selection[0].split() if selection else [])],
        env={**os.environ, "PYTHONPATH": str(package.parent), "DIFFUSE_RELIABILITY_PAGE": ""}, cwd=TESTS.parent,
        capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    return ran.returncode == 1


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return Path(shutil.copytree(Path(diffuse_cli.__file__).parent, tmp_path_factory.mktemp("mutant") / "diffuse_cli",
                                ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_missing_check_is_noticed(package, counted, name):
    file, code, instead, tests = MUTANTS[name]
    sound = (package / file).read_text(encoding="utf-8")
    (package / file).write_text(sound.replace(code, instead), encoding="utf-8")
    try:
        assert fails(package, tests)
    finally:
        (package / file).write_text(sound, encoding="utf-8")
    counted("The tests of the doors notice a missing check", "doors broken on purpose", 1)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_code_that_mutants_replace_is_there(name):
    file, code, _, tests = MUTANTS[name]
    assert (Path(diffuse_cli.__file__).parent / file).read_text(encoding="utf-8").count(code) == 1
    assert (TESTS / tests.split(" ")[0]).is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_package_as_it_is_fails_none_of_them(package):
    for tests in {tests for *_, tests in MUTANTS.values()}:
        assert not fails(package, tests), tests

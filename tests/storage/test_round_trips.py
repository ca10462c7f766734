"""Every kind of tensor file that we write goes through the safetensors library and back: nothing changes."""

import shutil

import pytest
import safetensors
import safetensors.torch
import torch
from random_models import make_model

from diffuse_cli.config import Export
from diffuse_cli.errors import ModelError, StorageError
from diffuse_cli.exporting import diffusers_export, single_file
from diffuse_cli.storage import checkpoint, registry, safetensors_file, safetensors_header
from diffuse_cli.storage.checkpoint import load_model, load_state, save_folder_part, save_state

CPU = torch.device("cpu")
PARTS = ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
KINDS = ("bundled model", "trained model", "training state", "slim export fp32", "slim export fp16", *PARTS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(folder in diffusers' form, the slim exports by precision) of one model."""
    place, model = tmp_path_factory.mktemp("exported"), make_model("the default")
    (place / "folder").mkdir()
    diffusers_export.write(model, place / "folder", Export(format="diffusers"))
    slim = {precision: place / f"{precision}.safetensors" for precision in ("fp32", "fp16")}
    for precision, path in slim.items():
        single_file.write(model, path, Export(format="safetensors", precision=precision))
    return place / "folder", slim


@pytest.fixture(params=KINDS)
def path(request, trained, exported):
    """A file of each kind."""
    if request.param in PARTS:
        return exported[0] / request.param
    return {"bundled model": registry.bundled(), "trained model": trained[0] / "model.safetensors",
            "training state": next(trained[0].glob("step-*.safetensors")),
            "slim export fp32": exported[1]["fp32"], "slim export fp16": exported[1]["fp16"]}[request.param]


def by_the_library(path):
    """(metadata, tensors) as the library reads them."""
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}       # noqa: SIM118 - no mapping


def by_us(path):
    """(metadata, tensors) as our own reader reads them, the seal checked."""
    with safetensors_file.opened(path) as file:
        head = safetensors_file.read_header(file)
        return head.metadata, checkpoint._read_tensors(file, head)


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_library_reads_what_we_read(path):
    assert safetensors_file.verify_seal(path)
    (ours, our_tensors), (theirs, their_tensors) = by_us(path), by_the_library(path)
    assert ours == theirs
    assert equal(our_tensors, their_tensors)


def test_what_the_library_writes_again_is_the_same_file_but_for_the_order_of_its_metadata(path, tmp_path):
    metadata, tensors = by_the_library(path)
    again = tmp_path / "again.safetensors"
    safetensors.torch.save_file(tensors, again, metadata)
    assert equal(tensors, by_the_library(again)[1])
    before, after = (safetensors_file.read_header(one) for one in (path, again))
    assert (after.metadata, after.tensors) == (before.metadata, before.tensors)
    assert after.data_start == before.data_start
    assert again.read_bytes()[after.data_start:] == path.read_bytes()[before.data_start:]


def test_a_file_of_the_library_that_is_sealed_is_the_file_that_we_write(path, tmp_path):
    metadata, tensors = by_the_library(path)
    del metadata[safetensors_header.SEAL_KEY]
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file(tensors, plain, {"format": "pt"})
    ours = b"".join(safetensors_file.encode(checkpoint._encoded(tensors), {"format": "pt"}))
    with safetensors_file.opened(plain) as file:
        assert b"".join(safetensors_file.sealed(file)) == ours
    assert b"".join(safetensors_file.encode(checkpoint._encoded(tensors), metadata)) == path.read_bytes()


def test_a_training_state_is_read_again_as_it_was_saved(trained, tmp_path):
    state = next(trained[0].glob("step-*.safetensors"))
    shapes = {name: entry.shape for name, entry in safetensors_file.read_header(state).tensors.items()}
    tensors, record = load_state(state, shapes)
    save_state(tmp_path / "again.safetensors", tensors, record)
    assert (tmp_path / "again.safetensors").read_bytes() == state.read_bytes()


def test_slim_exports_and_folders_are_the_model_that_went_out(exported):
    folder, slim = exported
    weights = make_model("the default").network.state_dict()
    for path in (folder / "model_index.json", slim["fp32"]):
        assert equal(load_model(path, CPU).network.state_dict(), weights)
    halves = load_model(slim["fp16"], CPU).network.state_dict()
    assert equal(halves, {name: weight.half().float() for name, weight in weights.items()})


# ── Parts of a folder ───────────────────────────────────────────────────────────────────────────────────────────────


def test_parts_of_a_folder_are_equal_files_for_equal_tensors(tmp_path):
    tensors = {"b": torch.randn(3, 4), "a": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
               "half": torch.randn(5).half(), "cut": torch.arange(12.0)[3:7]}
    save_folder_part(tmp_path / "x" / "one.safetensors", tensors)
    save_folder_part(tmp_path / "x" / "two.safetensors", dict(reversed(tensors.items())))
    one, two = (tmp_path / "x" / f"{name}.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert equal(by_us(one)[1], tensors)
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["one.safetensors", "two.safetensors"]


@pytest.mark.parametrize(("text", "told"), [
    ("Error while serializing: I/O error: No space left on device (os error 28) at path \"x\"", "no space left"),
    ("Error while serializing: something new", "something new"),
])
def test_an_error_of_the_library_is_a_storage_error_and_leaves_nothing(tmp_path, monkeypatch, text, told):
    def fails(_, path, metadata):
        path.write_bytes(b"half")
        raise safetensors.SafetensorError(text)

    monkeypatch.setattr(checkpoint, "save_file", fails)
    with pytest.raises(StorageError, match=rf"cannot write .*part\.safetensors: .*{told}"):
        save_folder_part(tmp_path / "part.safetensors", {"a": torch.zeros(3)})
    assert list(tmp_path.iterdir()) == []


def test_a_draft_that_lost_bytes_is_noticed(tmp_path, monkeypatch):
    def loses(tensors, path, metadata):
        path.write_bytes(safetensors.torch.save(tensors, metadata)[:-1])

    monkeypatch.setattr(checkpoint, "save_file", loses)
    with pytest.raises(StorageError, match="should have 12 bytes"):
        save_folder_part(tmp_path / "part.safetensors", {"a": torch.zeros(3)})
    assert list(tmp_path.iterdir()) == []


# ── Folders from elsewhere ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def foreign(exported, tmp_path):
    """The folder with its parts as the library alone would have written them: without a seal."""
    folder = shutil.copytree(exported[0], tmp_path / "foreign")
    for name in PARTS:
        tensors = safetensors.torch.load_file(folder / name)
        (folder / name).unlink()
        safetensors.torch.save_file(tensors, folder / name, {"format": "pt"})
    return folder


def test_parts_without_a_seal_are_read_by_the_library(foreign, monkeypatch):
    assert equal(load_model(foreign / "model_index.json", CPU).network.state_dict(),
                 make_model("the default").network.state_dict())
    monkeypatch.setattr(checkpoint, "safe_open", None)
    with pytest.raises(TypeError):
        load_model(foreign / "model_index.json", CPU)


def test_parts_with_a_seal_never_are(exported, monkeypatch):
    monkeypatch.setattr(checkpoint, "safe_open", None)
    load_model(exported[0] / "model_index.json", CPU)


@pytest.mark.parametrize("change", [
    lambda tensors: {name: tensor.half() for name, tensor in tensors.items()},
    lambda tensors: {name: tensor[None] for name, tensor in tensors.items()},
    lambda tensors: {f"other.{name}": tensor for name, tensor in tensors.items()},
])
def test_a_part_that_is_exchanged_while_it_is_read_is_refused(foreign, monkeypatch, change):
    path, real = foreign / PARTS[0], safetensors.safe_open

    def exchanged_first(name, *arguments, **options):
        if name == path:
            tensors = change(safetensors.torch.load_file(path))
            path.unlink()
            safetensors.torch.save_file(tensors, path)
        return real(name, *arguments, **options)

    monkeypatch.setattr(checkpoint, "safe_open", exchanged_first)
    with pytest.raises(ModelError, match="it was changed while it was read"):
        load_model(foreign / "model_index.json", CPU)


def test_a_part_that_is_cut_while_it_is_read_is_refused(foreign, monkeypatch):
    path, real = foreign / PARTS[0], safetensors.safe_open

    def cut_after(name, *arguments, **options):
        file = real(name, *arguments, **options)
        with open(name, "r+b") as cut:
            cut.truncate(path.stat().st_size // 2)
        return file

    monkeypatch.setattr(checkpoint, "safe_open", cut_after)
    with pytest.raises(ModelError, match="cannot use"):
        load_model(foreign / "model_index.json", CPU)

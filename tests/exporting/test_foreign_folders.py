"""Diffusers folders from elsewhere: they are read if our network can be theirs, else refused with the reason."""

import json
import os
import pickle
import shutil

import diffusers
import pytest
import safetensors.torch
import torch
from random_models import make_model

from diffuse_cli.config import Export
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.errors import ModelError
from diffuse_cli.exporting import diffusers_export
from diffuse_cli.model_config import SCHEDULES
from diffuse_cli.network.network import Network
from diffuse_cli.storage import safetensors_file
from diffuse_cli.storage.checkpoint import load_model
from diffuse_cli.storage.diffusers_config import read_scheduler
from diffuse_cli.storage.model_info import read_model_info

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "folder"
    folder.mkdir()
    diffusers_export.write(make_model("the default"), folder, Export(format="diffusers"))
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "folder")


def change(folder, name, **entries):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def refused(folder, match):
    for read in (read_model_info, lambda path: load_model(path, CPU)):
        with pytest.raises(ModelError, match=match) as caught:
            read(folder / "model_index.json")
        assert caught.value.exit_code == 4
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("resolution", [8, 16, 32, 64, 128, 256, 512])
def test_every_schedule_is_recognised_by_its_betas(name, resolution):
    betas = make_schedule(name, resolution).betas().tolist()
    entries = {"_class_name": "DDPMScheduler", "trained_betas": betas, "num_train_timesteps": len(betas)}
    assert read_scheduler(entries)[0] == name


# ── Models of other programs ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("scheduler", "expected"), [
    (diffusers.DDPMScheduler(), ("linear", "epsilon")),
    (diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"), ("cosine", "v")),
    (diffusers.DPMSolverMultistepScheduler(prediction_type="sample"), ("linear", "x0")),
])
def test_an_unconditional_model_of_diffusers_is_read_and_has_the_same_outputs(tmp_path, scheduler, expected):
    unet = diffusers.UNet2DModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=2, norm_num_groups=16, attention_head_dim=8,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"), downsample_type="resnet",
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"), upsample_type="resnet", attn_norm_num_groups=16,
        resnet_time_scale_shift="scale_shift")
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)
    model = load_model(tmp_path / "model_index.json", CPU)
    assert (model.config.schedule, model.config.prediction) == expected
    assert model.config.network.depths == (2, 2)
    assert not model.config.learned_variance
    noisy, time = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 900.0])
    with torch.no_grad():
        torch.testing.assert_close(model.network(noisy, time), unet(noisy, time).sample, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("options", "message"), [
    ({}, "blocks 'DownBlock2D' are not supported"),                     # as in "google/ddpm-cifar10-32"
    ({"block_out_channels": (32, 64), "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
      "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"), "downsample_type": "resnet",
      "upsample_type": "resnet"}, "resnet_time_scale_shift is default, not scale_shift"),
])
def test_a_network_that_ours_cannot_be_is_refused_with_the_reason(tmp_path, options, message):
    unet = diffusers.UNet2DModel(**{"sample_size": 16, "block_out_channels": (32, 32, 32, 32), **options})
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    refused(tmp_path, message)


@pytest.mark.parametrize(("name", "entries", "message"), [
    ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "'StableDiffusionPipeline' are not supported"),
    ("model_index.json", {"_class_name": ["IFPipeline"]}, "are not supported"),
    ("unet/config.json", {"_class_name": "Transformer2DModel"}, "its network is a Transformer2DModel"),
    ("unet/config.json", {"act_fn": "gelu"}, "act_fn is gelu, not silu"),
    ("unet/config.json", {"center_input_sample": True}, "center_input_sample is True, not False"),
    ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type is timestep, not None"),
    ("unet/config.json", {"something_new": 3}, "something_new is 3, not None"),
    ("unet/config.json", {"norm_eps": 1e-6}, "norm_eps"),
    ("unet/config.json", {"block_out_channels": [10**9, 64]}, "network is not supported: network.widths"),
    ("unet/config.json", {"block_out_channels": "wide"}, "not that of a network"),
    ("unet/config.json", {"block_out_channels": []}, "network"),
    ("unet/config.json", {"sample_size": [16, 16, 16]}, "not that of a network"),
    ("unet/config.json", {"down_block_types": [["AttnDownBlock2D"]]}, "not that of a network"),
    ("text_encoder/config.json", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, not 0.1"),
    ("text_encoder/config.json", {"model_type": "clip"}, "model_type is clip, not t5"),
    ("text_encoder/config.json", {"d_model": None}, "not that of a T5 encoder"),
    ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction type 'flow' is not supported"),
    ("scheduler/scheduler_config.json", {"prediction_type": []}, "prediction type"),
    ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "not rescaled"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 100}, "1000 steps"),
    ("scheduler/scheduler_config.json", {"trained_betas": None, "beta_schedule": "scaled_linear"}, "'scaled_linear'"),
    ("scheduler/scheduler_config.json", {"trained_betas": None, "_class_name": "FlowMatchEulerDiscreteScheduler"},
     "FlowMatchEulerDiscreteScheduler"),
    ("scheduler/scheduler_config.json", {"trained_betas": [0.1] * 999}, "are not 1,000 numbers"),
    ("scheduler/scheduler_config.json", {"trained_betas": [2.0] * 1000}, "are not 1,000 numbers"),
])
def test_a_foreign_entry_is_refused_by_its_name(folder, name, entries, message):
    change(folder, name, **entries)
    refused(folder, message)


def test_a_noise_schedule_that_is_nearly_one_of_ours_is_refused_when_it_is_loaded(folder):
    betas = json.loads((folder / "scheduler/scheduler_config.json").read_text())["trained_betas"]
    betas[500] *= 1.01
    change(folder, "scheduler/scheduler_config.json", trained_betas=betas)
    with pytest.raises(ModelError, match="noise schedule is none of those"):
        load_model(folder / "model_index.json", CPU)


# ── Damaged and hostile folders ─────────────────────────────────────────────────────────────────────────────────────

FILES = ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "text_encoder/config.json",
         "text_encoder/model.safetensors", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("case", ["missing", "empty", "pipe", "directory", "list", "huge", "loop"])
def test_every_fault_of_a_file_is_reported_in_one_line(folder, name, case):
    path = folder / name
    path.unlink()
    if case == "pipe":
        os.mkfifo(path)
    elif case == "directory":
        path.mkdir()
    elif case == "loop":
        path.symlink_to(path.name)
    elif case != "missing":
        with open(path, "wb") as file:
            file.write({"empty": b"", "list": b"[]", "huge": b"{" + b" " * 9 * 2**20 + b"}"}[case])
    refused(folder, "cannot use")


def test_pickles_are_never_read(folder):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(folder / "PWNED"),)

    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    refused(folder, "pickles .* never loads")
    assert not (folder / "PWNED").exists()


@pytest.mark.parametrize("spoil", [
    lambda tensors: tensors.pop("conv_in.bias"),
    lambda tensors: tensors.update({"evil": torch.zeros(3)}),
    lambda tensors: tensors.update({"conv_in.bias": torch.zeros(7)}),
    lambda tensors: tensors.update({"conv_in.bias": torch.full_like(tensors["conv_in.bias"], float("nan"))}),
    lambda tensors: tensors.update({"conv_in.bias": tensors["conv_in.bias"].double()}),
])
def test_tensors_are_exactly_those_of_the_configuration(folder, spoil):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    spoil(tensors)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"its tensors|not finite"):
        load_model(folder / "model_index.json", CPU)


def test_a_flipped_bit_of_an_export_is_noticed(folder):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        load_model(folder / "model_index.json", CPU)
    assert safetensors_file.read_header(path).seal_start is not None


def test_the_tokenizer_must_be_ours(folder):
    change(folder, "tokenizer/tokenizer.json", normalizer={"type": "Lowercase"})
    with pytest.raises(ModelError, match="tokenizer"):
        load_model(folder / "model_index.json", CPU)


def test_a_report_that_makes_no_sense_is_ignored(folder):
    for text in ("{", "[]", '{"training": [], "words": {"a": "b"}, "model_sha256": 1}'):
        (folder / "export.json").write_text(text)
        info = read_model_info(folder / "model_index.json")
        assert (info.training.to_json(), info.words, info.sha256) == ({"name": "folder"}, {}, "")
    model = load_model(folder / "model_index.json", CPU)
    assert isinstance(model.network, Network)

"""What is said of options that other programs have, and of slips of the finger."""

import pytest
import typer

from diffuse_cli.cli import unknown_options
from diffuse_cli.cli.app import app
from diffuse_cli.cli.unknown_options import suggestion

COMMANDS = typer.main.get_command(app).commands


def _options_of(command):
    return [name for parameter in COMMANDS[command].params for name in parameter.opts]


@pytest.mark.parametrize(("command", "option", "said"), [
    ("train", "--epochs", "Give --images (the number of pictures seen), --steps or --time"),
    ("train", "--resume_from_checkpoint", "The same command resumes"),
    ("train", "--train_data_dir", "The folder of pictures needs no option"),
    ("train", "--prompts", "Did you mean --preview-prompt?"),
    ("train", "--learning-rate", "Did you mean --lr?"),
    ("train", "--max_train_steps", "Did you mean --steps?"),
    ("train", "--imgsz", "Did you mean --resolution?"),
    ("train", "--mixed_precision", "Did you mean --precision?"),
    ("train", "--output-dir", "Did you mean --out?"),
    ("train", "--pretrained_model_name_or_path", "Did you mean --init?"),
    ("train", "--validation_prompt", "Did you mean --preview-prompt?"),
    ("train", "--batchsize", "Did you mean --batch-size?"),
    ("distill", "--resume", "The same command resumes"),
    ("sample", "--prompt", 'A prompt needs no option: diffuse sample "a red car"'),
    ("sample", "--count", "Did you mean --num?"),
    ("sample", "--n", "Did you mean --num?"),
    ("sample", "--height", "Did you mean --size?"),
    ("sample", "--num_inference_steps", "Did you mean --steps?"),
    ("sample", "--guidance-scale", "Did you mean --guidance?"),
    ("sample", "--weights", "Did you mean --model?"),
    ("sample", "--resume", ""),
    ("export", "--format", "Did you mean --to?"),
    ("export", "--overwrite", "Did you mean --force?"),
    ("export", "--epochs", ""),
    ("train", "--zzzzzz", ""),
])
def test_what_was_probably_meant(command, option, said):
    assert suggestion(option, _options_of(command)) == said


def test_every_suggested_option_exists_and_no_name_stands_in_both_lists():
    everywhere = {option for command in COMMANDS for option in (
        _options_of(command) if hasattr(COMMANDS[command], "params") else ())}
    assert set(unknown_options._OPTIONS) <= everywhere
    assert set(unknown_options._SENTENCES) <= everywhere
    names = [name for names in unknown_options._OPTIONS.values() for name in set(names.split())]
    sentences = [name for group in unknown_options._SENTENCES.values() for keys in group for name in keys.split()]
    assert len(sentences) == len(set(sentences))
    assert not set(sentences) & set(names)


@pytest.mark.parametrize("ours", unknown_options._OPTIONS)
def test_no_name_is_said_to_mean_an_option_that_the_command_does_not_have(ours):
    for name in unknown_options._OPTIONS[ours].split():
        for command in ("train", "sample", "distill", "evaluate", "export"):
            known = _options_of(command)
            meant = suggestion(f"--{name}", known)
            assert not meant.startswith("Did you mean") or meant.removeprefix("Did you mean ")[:-1] in known

"""What to say of an option or a command that does not exist: what was probably meant.

People come from other programs and type those programs' names. Letters alone then mislead: `--epochs` looks most like
`--procs`, and `--resume` like `--preset`.
"""

import difflib
from collections.abc import Collection, Iterable

ALIKE = 0.6                                     # share of letters in common with which a name counts as a slip

COMMANDS = {"remove": "rm", "delete": "rm", "del": "rm", "list": "ls", "info": "show", "generate": "sample",
            "draw": "sample", "fit": "train", "eval": "evaluate", "validate": "check"}      # another program's → ours

# Our option, and what other programs call it. The first option that the command has is suggested.
_OPTIONS = {
    "--steps": "max-train-steps train-steps max-steps n-steps num-steps train-num-steps iterations num-iterations "
               "iters iter max-iters num-inference-steps inference-steps ddim-steps sampling-steps sampling-timesteps",
    "--images": "total-images kimg total-kimg duration",
    "--resolution": "size image-size img-size imgsz width height w h side res dim",
    "--size": "resolution image-size img-size imgsz width height w h",
    "--lr": "learning-rate lr0 base-lr rate",
    "--batch-size": "batch bs b train-batch-size per-device-train-batch-size eval-batch-size",
    "--num": "n count number amount num-images num-samples n-samples samples n-iter batch-count num-images-per-prompt "
             "images-per-prompt images-per-batch",
    "--out": "output output-dir output-path output-file outdir out-dir save-dir save-path results-dir results-folder "
             "logging-dir destination dest",
    "--guidance": "cfg cfg-scale scale guidance-scale w",
    "--guidance-interval": "guidance-start guidance-end",
    "--negative": "neg uc n-prompt negative-prompts",
    "--prompts": "prompt-file from-file prompts-file",
    "--model": "weights ckpt ckpt-path checkpoint-path model-path network pretrained-model-name-or-path lora",
    "--init": "weights ckpt checkpoint pretrained pretrained-model-name-or-path model model-path init-image init-img "
              "image input-image img2img network-weights",
    "--strength": "denoising-strength denoise",
    "--mask": "mask-image inpaint inpaint-mask",
    "--preset": "arch architecture model-type network-size dim-mults",
    "--precision": "mixed-precision fp16 fp32 bf16 amp half dtype float16 full-precision tf32 save-precision",
    "--gpus": "cuda gpu num-gpus ngpu devices num-processes nproc-per-node num-nodes",
    "--device": "cuda gpu cpu mps",
    "--preview-prompt": "prompts validation-prompt validation-prompts sample-prompt sample-prompts",
    "--preview-every": "sample-every sample-interval validation-epochs validation-steps save-and-sample-every snap",
    "--save-every": "save-interval save-steps save-freq save-period checkpointing-steps save-every-n-epochs "
                    "save-every-n-steps",
    "--caption-column": "text-column text-col",
    "--caption-ext": "caption-extension caption-suffix",
    "--caption-template": "caption-prefix template",
    "--captions": "caption-source instance-prompt class-prompt",
    "--shuffle-tags": "shuffle-caption shuffle-captions",
    "--tag-dropout": "caption-tag-dropout-rate caption-dropout-rate",
    "--held-out": "val val-split validation-split val-fraction validation test-split split",
    "--flip": "random-flip flip-aug augment-horizontal-flip hflip mirror fliplr",
    "--fit": "center-crop random-crop crop pad",
    "--background": "alpha-mask bg",
    "--schedule": "noise-schedule beta-schedule",
    "--loss-weighting": "snr-gamma min-snr-gamma min-snr-loss-weight loss-type",
    "--prediction": "prediction-type v-parameterization objective",
    "--optimizer": "optimizer-type use-8bit-adam opt optim",
    "--compile": "torch-compile use-compile",
    "--log": "report-to log-with logger wandb tensorboard use-wandb",
    "--fresh": "overwrite-output-dir restart from-scratch exist-ok",
    "--force": "overwrite yes y f",
    "--name": "run-name output-name project exp-name experiment",
    "--to": "format type export-format",
    "--push": "push-to-hub hub-model-id upload",
    "--grid": "montage contact-sheet",
    "--animate": "gif video",
    "--preview": "show display view plot",
    "--features": "fid inception clip",
    "--config": "cfg-file config-file yaml",
}

# What needs no option here, for the commands that have the option named first.
_SENTENCES = {
    "--fresh": {
        "resume resume-from-checkpoint resume-from resume-training continue": "The same command resumes",
        "epochs epoch num-epochs num-train-epochs max-train-epochs n-epochs":
            "Give --images (the number of pictures seen), --steps or --time",
        "lr-scheduler lr-warmup-steps warmup warmup-steps lr-decay":
            "The learning rate rises, stays and falls by itself; --lr is its peak",
        "ema use-ema ema-decay ema-rate ema-update-every": "An average of the weights is always kept",
        "workers num-workers dataloader-num-workers max-data-loader-n-workers n-workers":
            "Each picture is decoded once, in as many processes as the machine has cores",
        "gradient-accumulation-steps gradient-accumulate-every accumulate":
            "--batch-size is that of a step, which is divided where memory needs it",
        "gradient-checkpointing use-checkpoint xformers enable-xformers-memory-efficient-attention":
            "How a batch fits into the memory is planned; --dry-run shows it",
        "max-grad-norm clip-grad grad-clip": "Gradients are always clipped",
        "cache-latents cache-images cache": "Decoded pictures are always kept in the cache",
    },
    "--caption-ext": {
        "data dataset dataset-name dataset-path data-dir data-path train-data-dir instance-data-dir images-dir "
        "image-dir image-folder input-dir input folder dir root": "The folder of pictures needs no option",
    },
    "--strength": {
        "prompt text p": 'A prompt needs no option: diffuse sample "a red car"',
        "clip-skip vae safety-checker": "These models have no such part",
    },
}


def suggestion(option: str, known: Collection[str]) -> str:
    """A sentence on what was probably meant by an option that does not exist, or "". known: those of the command."""
    name = option.lstrip("-").replace("_", "-").lower()
    for mark, sentences in _SENTENCES.items():
        for names, sentence in sentences.items():
            if mark in known and name in names.split():
                return sentence
    for ours, names in _OPTIONS.items():
        if ours in known and name in names.split():
            return f"Did you mean {ours}?"
    plain = {ours.lstrip("-"): ours for ours in known if ours.startswith("--")}         # dashes are no likeness
    near = difflib.get_close_matches(name, plain, 1, ALIKE)
    return f"Did you mean {plain[near[0]]}?" if near else ""


def suggested_command(word: str, known: Iterable[str]) -> str:
    """The same for a command that does not exist."""
    near = difflib.get_close_matches(COMMANDS.get(word, word), list(known), 1)
    return f"Did you mean {near[0]}?" if near else ""

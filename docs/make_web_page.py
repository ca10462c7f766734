"""Write docs/index.html, the project's front page: the bundled model demo-fast, which draws in the reader's browser.

    python docs/make_web_page.py

It is the page of `diffuse export demo-fast --to web`. A test compares its code and its weights with those of the
program.
"""

import tempfile
from pathlib import Path

import torch

from diffuse_cli.config import Export
from diffuse_cli.exporting import verification, web_page
from diffuse_cli.sampling.example_prompts import DEMO_PROMPTS
from diffuse_cli.storage import checkpoint, registry

PAGE = Path(__file__).with_name("index.html")
MODEL, SETTINGS = "demo-fast", Export(format="web")


def build() -> str:
    """The page as a text, compared with the model."""
    model = checkpoint.load_model(registry.resolve(MODEL), torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{MODEL}.html")                            # a page has the name of its file
        web_page.write(model, path, SETTINGS, prompts=DEMO_PROMPTS)
        verification.require_agreement(web_page.compare(model, path, SETTINGS))
        return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    PAGE.write_text(build(), encoding="utf-8")

"""The page's server in this process, with a model of its own."""

import shutil

import pytest
from page_client import served


@pytest.fixture
def client(trained, home):
    """A client whose server offers the model `tiny` with the files of its training."""
    shutil.copytree(trained[0], home / "models" / "tiny")
    with served("tiny") as client:
        yield client

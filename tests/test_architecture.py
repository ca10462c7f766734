"""The shape of the code, held by reading it: who may import whom, and what nobody may do.

Plain `ast`: no module is executed to be judged.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffuse_cli

PACKAGE = Path(diffuse_cli.__file__).parent
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}

VOCABULARY = {"checks", "config", "errors", "events", "files.durable", "runtime.launch_environment"}
LIGHT = VOCABULARY | {"files.strict_json", "storage.safetensors_file", "storage.model_info", "storage.diffusers_config",
                      "storage.diffusers_folder"}
AT_THE_TOP_OF_CLI = VOCABULARY | {"storage.registry"}    # so that help and refusals come at once
HEAVY = {"torch", "numpy", "PIL", "safetensors", "tokenizers"}
DECODE_OR_ENCODE_PIXELS = ("data.", "pictures.image_files", "sampling.png_metadata", "pictures.sheets",
                           "api")               # which hands them out
SHIPPED = "exporting.standalone.sample"           # leaves with a model, for where nothing of ours is
ROOMS = {module.split(".")[0] for module in FILES}
MATHEMATICS = {"checks", "config", "errors"}     # all that `diffusion` and `network` know besides


def _imports(module: str, *, top: bool = False) -> Iterator[str]:
    """Absolute names of what a module imports; ours without the package's name; with `top`, only what runs at once."""
    package = module.split(".")[:-1]
    for node in _running_at_once(TREES[module]) if top else ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join((*start, *(node.module or "").split("."))).strip(".")
            yield from (_target(name, alias.name) for alias in node.names)


def _target(package: str, name: str) -> str:
    inner = f"{package}.{name}".strip(".").removeprefix("diffuse_cli.")
    return inner if inner in FILES else package.removeprefix("diffuse_cli.")


def _running_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """What importing the module executes: not the bodies of functions, nor what is only for the type checker."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _running_at_once(child)


def _calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _ours(names: Iterator[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in ROOMS}


def _roots(names: Iterator[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


# ── Who knows whom ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_reader_of_imports_reads():
    """The rules below are worth nothing if the names they judge are wrong."""
    assert {"errors", "platformdirs", "files.durable"} <= set(_imports("storage.registry"))
    assert "data.captions" in set(_imports("data.dataset"))
    assert "torch" in _roots(_imports("training.monitor"))
    assert "data.demo_scenes.scenes" in set(_imports("cli.data"))
    assert "data.demo_scenes.scenes" not in set(_imports("cli.data", top=True))


@pytest.mark.parametrize("module", [module for module in FILES if not module.startswith(("api", "cli", "__"))])
def test_the_engine_never_knows_the_terminal(module):
    assert not {name for name in _ours(_imports(module)) if name.startswith(("api", "cli"))}
    assert not _roots(_imports(module)) & {"typer", "rich", "click"}


@pytest.mark.parametrize("module", [module for module in FILES if module.startswith("cli")])
def test_the_terminal_starts_without_the_engine_room(module):
    others = {name for name in _ours(_imports(module, top=True)) if not name.startswith(("cli", "__init__"))}
    assert others <= AT_THE_TOP_OF_CLI
    assert not _roots(_imports(module, top=True)) & HEAVY


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_the_vocabulary_needs_the_standard_library_alone(module):
    assert _ours(_imports(module)) <= LIGHT
    assert _roots(_imports(module)) - ROOMS <= sys.stdlib_module_names


def test_the_api_is_over_the_engine_and_beside_the_terminal():
    assert "cli" not in {name.split(".")[0] for name in _ours(_imports("api"))}
    assert not _roots(_imports("api")) & {"typer", "rich", "click"}
    assert _ours(_imports("__init__", top=True)) == set()


def test_the_registry_adds_platformdirs_and_nothing_else():
    assert _ours(_imports("storage.registry")) <= LIGHT | {"storage"}
    assert _roots(_imports("storage.registry")) - ROOMS - sys.stdlib_module_names == {"platformdirs"}


@pytest.mark.parametrize("room", ["diffusion", "network"])
def test_mathematics_and_network_do_not_know_each_other(room):
    for module in FILES:
        if module.startswith(f"{room}."):
            strangers = {name for name in _ours(_imports(module)) if not name.startswith(room)}
            assert strangers <= MATHEMATICS, module


def test_data_knows_neither_mathematics_nor_network():
    for module in FILES:
        if module.startswith("data."):
            strangers = {name for name in _ours(_imports(module)) if not name.startswith("data")}
            assert strangers <= LIGHT, module
            assert "torch" not in _roots(_imports(module)), module


def test_no_import_goes_in_a_circle():
    graph = {module: _ours(_imports(module, top=True)) & FILES.keys() for module in FILES}
    done: set[str] = set()
    while ready := {module for module, needs in graph.items() if module not in done and needs <= done | {module}}:
        done |= ready
    assert not graph.keys() - done


# ── What nobody does ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("module", FILES)
def test_nothing_is_executed_that_was_read(module):
    assert not _roots(_imports(module)) & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for name, call in _calls(module):
        assert name not in {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.hub.load",
                            "os.system", "os.popen", "tempfile.mktemp"}, f"{module}: {name}"
        assert not name.endswith(("extractall", ".torch_load")), f"{module}: {name}"
        for keyword in call.keywords:
            value = ast.unparse(keyword.value)
            assert (keyword.arg, value) not in {("shell", "True"), ("allow_pickle", "True"), ("weights_only", "False")}


@pytest.mark.parametrize("module", sorted(FILES.keys() - {"files.durable", SHIPPED}))
def test_files_are_written_through_the_one_door(module):
    for name, call in _calls(module):
        assert not name.endswith((".write_text", ".write_bytes", ".touch", ".mkdir", ".tofile", ".symlink_to",
                                  "os.makedirs", "os.mkdir", "save_file")), f"{module}: {ast.unparse(call)}"
        assert "O_CREAT" not in ast.unparse(call), f"{module}: {ast.unparse(call)}"
        if name in ("open", "io.open") or name.endswith(".open"):
            constants = [node.value for part in (*call.args, *call.keywords) for node in ast.walk(part)
                         if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            assert not any(set(text) <= set("rwxab+t") and set(text) & set("wxa+") for text in constants), \
                f"{module}: {ast.unparse(call)}"


@pytest.mark.parametrize("module", sorted(FILES.keys() - {"cli.terminal.view", SHIPPED}))
def test_the_terminal_is_reached_through_the_one_door(module):
    for name, call in _calls(module):
        assert name not in {"print", "input", "typer.echo", "typer.secho", "Console", "rich.print", "sys.stdout.write",
                            "sys.stderr.write"}, f"{module}: {ast.unparse(call)}"


def test_pictures_are_decoded_and_encoded_in_few_places():
    users = {module for module in FILES if "PIL" in _roots(_imports(module))}
    assert {module for module in users if not module.startswith(DECODE_OR_ENCODE_PIXELS)} == set()


def test_the_script_that_leaves_needs_nothing_of_ours():
    assert not _ours(_imports(SHIPPED))
    assert _roots(_imports(SHIPPED)) - sys.stdlib_module_names == {"numpy", "onnxruntime", "tokenizers"}


@pytest.mark.parametrize("module", [module for module in FILES if FILES[module].read_text(encoding="utf-8").strip()])
def test_every_module_says_what_it_does(module):
    assert ast.get_docstring(TREES[module])

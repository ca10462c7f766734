"""The shape of the code, held by reading it: which room may import which, and what nobody may do.

Plain `ast`: no module is executed to be judged. A room is a folder of `src/diffuse_cli`, or a single file beside them.
"""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffuse_cli

PACKAGE = Path(diffuse_cli.__file__).parent
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}

CHOICES = {"config", "checks", "picture_size", "errors"}
# Room → the rooms that it imports. Each imports only rooms that stand below it.
TABLE: dict[str, set[str]] = {
    "__main__": {"cli", "python_process"},
    "cli": {"ui", "api", "cli.terminal", "training", "exporting", "evaluation", "sampling", "reporting", "data",
            "data.demo_scenes", "storage", "network", "runtime", "diffusion", "pictures", "hub", "files", "events",
            "version", "python_process", "installing", "model_config", *CHOICES},
    "ui": {"sampling", "reporting", "data", "storage", "runtime", "pictures", "files", "version", "model_config",
           *(CHOICES - {"picture_size"})},
    "cli.terminal": {"pictures", "storage", "events", "checks", "errors"},
    "__init__": {"api", "sampling", "reporting", "config", "errors", "version"},
    "api": {"training", "exporting", "sampling", "data", "storage", "runtime", "pictures", "installing", "events",
            *CHOICES},
    "training": {"evaluation", "sampling", "reporting", "data", "storage", "denoiser", "network", "runtime",
                 "diffusion", "pictures", "files", "events", "model_config", *CHOICES},
    "exporting": {"exporting.standalone", "sampling", "storage", "denoiser", "network", "runtime", "diffusion",
                  "pictures", "hub", "files", "installing", "events", "version", "config", "model_config",
                  "picture_size", "errors"},
    "exporting.standalone": set(),
    "evaluation": {"sampling", "data", "storage", "denoiser", "network", "runtime", "diffusion", "pictures", "files",
                   "installing", "events", "version", "model_config", *CHOICES},
    "sampling": {"data", "storage", "denoiser", "network", "runtime", "diffusion", "pictures", "files", "version",
                 "model_config", *CHOICES},
    "reporting": {"storage", "diffusion", "pictures", "files", "events", "version", "python_process", "installing",
                  "config", "checks", "errors"},
    "data.demo_scenes": {"files", "config", "checks", "errors"},
    "data": {"hub", "files", "events", "python_process", "installing", *(CHOICES - {"checks"})},
    "storage": {"network", "diffusion", "hub", "files", "model_config", *CHOICES},
    "denoiser": {"diffusion", "model_config"},
    "network": {"files", "model_config", *CHOICES},
    "runtime": {"config", "errors"},
    "diffusion": set(),
    "pictures": {"python_process"},
    "hub": {"installing"},
    "files": {"errors"},
    "config": {"model_config", "checks", "picture_size", "errors"},
    "model_config": {"checks", "picture_size", "errors"},
    "checks": {"picture_size", "errors"},
    "picture_size": set(),
    "events": set(),
    "errors": set(),
    "version": set(),
    "python_process": set(),
    "installing": set(),
}
STANDARD_LIBRARY_ALONE = {"files", "config", "model_config", "checks", "picture_size", "events", "errors", "version",
                          "python_process", "installing"}
SEE_PIXELS = {"api", "data", "data.demo_scenes", "pictures"}           # rooms that may decode or encode pictures
HEAVY = {"torch", "numpy", "PIL", "safetensors", "tokenizers", "matplotlib"}
SHIPPED = "exporting.standalone.sample"         # leaves with a model, for machines where none of our code is
LONGEST_CHAIN = 13                              # files, from an entry point down
LONGEST_FUNCTION = 60                           # lines; a command's list of options may be longer


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
    inner = f"{package}.{name}".strip(".")
    return inner if inner in FILES else package


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
    return {name for name in names if name in FILES}


def _roots(names: Iterator[str]) -> set[str]:
    """The packages of others."""
    return {name.split(".")[0] for name in names if name and name not in FILES}


def _room(module: str) -> str:
    folder, _, name = module.rpartition(".")
    return folder or name


# ── Who imports whom ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_reader_of_imports_reads():
    """The rules below are worth nothing if the names they judge are wrong."""
    assert {"errors", "platformdirs"} <= set(_imports("storage.home_directory"))
    assert {"errors", "files.durable"} <= set(_imports("storage.registry"))
    assert "data.listing" in set(_imports("data.dataset"))
    assert "torch" in _roots(_imports("training.monitor"))
    assert "data.demo_scenes.scenes" in set(_imports("cli.data"))
    assert "data.demo_scenes.scenes" not in set(_imports("cli.data", top=True))


@pytest.mark.parametrize("room", sorted({_room(module) for module in FILES}))
def test_a_room_imports_what_the_table_says(room):
    imported = {_room(name) for module in FILES if _room(module) == room for name in _ours(_imports(module))}
    assert imported - {room} == TABLE[room]


def test_the_table_leads_downwards():
    order = list(TABLE)
    for room, imported in TABLE.items():
        assert all(order.index(room) < order.index(other) for other in imported), room


@functools.cache
def _chain(module: str) -> tuple[str, ...]:
    """The longest chain of files that import one another, from this one down."""
    return (module, *max((_chain(name) for name in _ours(_imports(module)) - {module}), key=len, default=()))


@pytest.mark.parametrize("module", [module for module in FILES if not module.startswith(("cli", "__"))])
def test_no_import_goes_in_a_circle_or_far(module):
    assert len(_chain(module)) <= LONGEST_CHAIN, " → ".join(_chain(module))


@pytest.mark.parametrize("module", FILES)
def test_only_the_terminal_knows_the_terminal(module):
    known = _roots(_imports(module)) & {"typer", "rich", "click"}
    assert not known or module.startswith("cli.")


@pytest.mark.parametrize("module", [module for module in FILES if module.startswith("cli")])
def test_the_command_line_starts_without_anything_heavy(module):
    """Help and refusals come at once: nothing that is imported at the top, or from there, takes long."""
    waiting, seen = [module], set()
    while waiting:
        current = waiting.pop()
        seen.add(current)
        names = set(_imports(current, top=True))
        assert not _roots(iter(names)) & HEAVY, current
        waiting += _ours(iter(names)) - seen


@pytest.mark.parametrize("module", [module for module in FILES if _room(module) in STANDARD_LIBRARY_ALONE])
def test_the_lowest_rooms_need_the_standard_library_alone(module):
    assert _roots(_imports(module)) <= sys.stdlib_module_names


def test_data_needs_no_torch():
    assert not [module for module in FILES if module.startswith("data.") and "torch" in _roots(_imports(module))]


@pytest.mark.parametrize("module", FILES)
def test_functions_are_short_but_for_lists_of_options(module):
    long = [node.name for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef)
            and _lines_of_body(node) > LONGEST_FUNCTION]
    assert not long


def _lines_of_body(function: ast.FunctionDef) -> int:
    """Lines from the name to the end; a command's from the end of its options."""
    is_command = "typer" in ast.unparse(function.args)
    return (function.end_lineno or 0) - (function.body[0].lineno if is_command else function.lineno) + 1


# ── What nobody does ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("module", FILES)
def test_nothing_is_executed_that_was_read(module):
    assert not _roots(_imports(module)) & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for name, call in _calls(module):
        assert name not in {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.hub.load",
                            "torch.jit.load", "torch.export.load", "torch.package.PackageImporter", "np.load",
                            "torch.classes.load_library", "torch.ops.load_library", "numpy.load", "os.system",
                            "os.popen", "tempfile.mktemp"}, f"{module}: {name}"
        assert not name.endswith(("extractall", ".torch_load")), f"{module}: {name}"
        for keyword in call.keywords:
            value = ast.unparse(keyword.value)
            assert (keyword.arg, value) not in {("shell", "True"), ("allow_pickle", "True"), ("weights_only", "False")}


@pytest.mark.parametrize("module", FILES)
def test_python_is_started_in_one_place_and_safely(module):
    """Every other way of starting a Python puts the current directory on its path, or may do so one day."""
    assert not _roots(_imports(module)) & {"multiprocessing", "runpy"}
    for name in {ast.unparse(node) for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute | ast.Name)}:
        assert name != "sys.executable" or module == "python_process"
        assert not re.fullmatch(r"os\.(exec|spawn|posix_spawn|fork).*", name), f"{module}: {name}"
        assert not re.search(r"\b(mp|multiprocessing)\.spawn|ProcessPool|DataLoader", name), f"{module}: {name}"
    for name, call in _calls(module):
        if name.startswith("subprocess.") or name == "start_processes":
            assert _is_safe_command(module, call), f"{module}: {ast.unparse(call)}"


def _is_safe_command(module: str, call: ast.Call) -> bool:
    """Whether what is started comes from `python_process`, or is a program with a constant name."""
    text = ast.unparse(call.args[0])
    if "python_process.command(" in text:
        return True
    if ast.unparse(call.func) == "start_processes":
        return f"{ast.unparse(call.args[1])}, *arguments = python_process.command(" in ast.unparse(TREES[module])
    first = call.args[0].elts[0] if isinstance(call.args[0], ast.List) else None
    return isinstance(first, ast.Constant) and "python" not in first.value


def test_the_one_place_starts_python_with_the_safe_flag():
    lists = [ast.unparse(node) for node in ast.walk(TREES["python_process"]) if isinstance(node, ast.List)]
    assert [text for text in lists if "sys.executable" in text] == [
        next(text for text in lists if text.startswith("[sys.executable, '-P', "))]


@pytest.mark.parametrize("module", ["__init__", "__main__", "python_process", "version"])
def test_nothing_is_imported_before_the_path_is_safe(module):
    """`python -m diffuse_cli` runs these files with the current directory on the path; Python has imported `os`."""
    early: set[str] = set()
    for node in TREES[module].body:
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("python_process.leave_current_directory("):
            break
        if isinstance(node, ast.Import | ast.ImportFrom):
            early |= {getattr(node, "module", None) or alias.name for alias in node.names}
    assert early <= {"os", "sys", "version", "python_process"}


@pytest.mark.parametrize("module", sorted(FILES.keys() - {"files.durable", "files.temporaries", SHIPPED}))
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
    assert {_room(module) for module in FILES if "PIL" in _roots(_imports(module))} == SEE_PIXELS


def test_the_script_that_leaves_needs_nothing_of_ours():
    assert not _ours(_imports(SHIPPED))
    assert _roots(_imports(SHIPPED)) - sys.stdlib_module_names == {"numpy", "onnxruntime", "tokenizers"}


@pytest.mark.parametrize("module", [module for module in FILES if FILES[module].read_text(encoding="utf-8").strip()])
def test_every_module_says_what_it_does(module):
    assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("suffix", ["css", "html", "js", "md", "py", "toml"])
def test_no_merge_was_left_unfinished(suffix):
    """Browsers pass over what they do not understand in a style sheet, with the rule that follows."""
    root = Path(__file__).parents[1]
    files = [path for room in ("src", "docs", "tests", "benchmarks") for path in (root / room).rglob(f"*.{suffix}")]
    marked = [path for path in [*files, *root.glob(f"*.{suffix}")]
              if re.search(r"^(<{7}|>{7}) ", path.read_text(encoding="utf-8"), re.MULTILINE)]
    assert marked == []


# What may be opened elsewhere than by `files.input_files`: our own files, and those of Python and the system.
OWN_FILES = {
    "files.durable", "files.input_files", "files.locks", "files.memory_limit", SHIPPED,
    "reporting.loggers", "reporting.page", "exporting.onnx_folder", "exporting.web_page", "exporting.onnx_comparison",
    "exporting.diffusers_comparison", "runtime.devices", "training.saving", "training.prepare", "storage.registry",
    "storage.training_states", "cli.processes", "cli.limits", "data.cached_pixels",
    "data.decoded_pictures", "data.file_hashes", "data.decode_server", "ui.server", "installing",
}


@pytest.mark.parametrize("module", sorted(FILES.keys() - OWN_FILES))
def test_files_of_others_are_opened_through_the_one_door(module):
    for name, call in _calls(module):
        assert not name.endswith((".read_text", "os.read")), f"{module}: {ast.unparse(call)}"
        assert name not in ("open", "io.open", "io.FileIO"), f"{module}: {ast.unparse(call)}"
        if name.endswith(".read_bytes"):                                # of a member of a container
            assert module in ("data.containers", "data.arrow_files", "data.picture_files"), ast.unparse(call)

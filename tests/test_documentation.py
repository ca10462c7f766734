"""The documentation names functions, commands, options and pages; here each of them must exist."""

import ast
import builtins
import importlib
import io
import json
import re
import shlex
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffuse_cli import config, model_config
from diffuse_cli.cli import app

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/diffuse_cli"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
MATHEMATICS, TUTORIAL, COMMANDS = "docs/mathematics.md", "docs/tutorial.md", "docs/cli.md"
ROOMS = ("diffuse_cli.diffusion", "diffuse_cli.training", "diffuse_cli.evaluation", "diffuse_cli.sampling",
         "diffuse_cli.runtime", "diffuse_cli")
CODE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def functions_named() -> list[str]:
    return sorted(set(re.findall(r"`([a-z]+:[A-Za-z_.]\w[\w.]*)`", read(MATHEMATICS))) - {"module:function"})


@pytest.mark.parametrize("reference", functions_named())
def test_functions_named_in_the_mathematics_exist(reference):
    module_name, _, path = reference.partition(":")
    for room in ROOMS:
        try:
            found = importlib.import_module(f"{room}.{module_name}")
        except ModuleNotFoundError:
            continue
        *owners, name = path.split(".")
        for owner in owners:
            found = getattr(found, owner)
        assert hasattr(found, name) or name in found.__annotations__            # a field of a dataclass
        return
    pytest.fail(f"there is no module {module_name}")


def public_functions(module: str) -> Iterator[str]:
    """Functions of a module and methods of its public classes, without closures."""
    tree = ast.parse(read(f"src/diffuse_cli/diffusion/{module}.py"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    methods = [method for node in classes for method in node.body]
    for node in (*tree.body, *methods):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name


def test_every_function_of_the_mathematics_is_explained():
    explained = {re.split("[:.]", reference)[-1] for reference in functions_named()}
    modules = ("schedule", "losses", "samplers", "guidance", "editing")
    public = {name for module in modules for name in public_functions(module)}
    assert public - {"run_sampler"} <= explained           # which looks a sampler up by its name


@pytest.mark.parametrize(("values", "page"), [
    (model_config.SCHEDULES, MATHEMATICS), (model_config.PREDICTIONS, MATHEMATICS),
    (config.LOSS_WEIGHTINGS, MATHEMATICS),
    (config.SAMPLERS, MATHEMATICS), (config.PRESETS, TUTORIAL), (config.PRESETS, COMMANDS),
    (model_config.SCHEDULES, COMMANDS), (model_config.PREDICTIONS, COMMANDS), (config.LOSS_WEIGHTINGS, COMMANDS),
    (config.VARIANCES, COMMANDS), (config.VARIANCE_GRADS, COMMANDS), (config.TIMES, COMMANDS),
    (config.OPTIMIZERS, COMMANDS), (config.CAPTION_SOURCES, COMMANDS), (config.SAMPLERS, COMMANDS),
    (config.PRECISIONS, COMMANDS), (config.LOGS, COMMANDS), (tuple(config.EXPORT_FORMATS), COMMANDS)])
def test_every_choice_is_explained(values, page):
    assert [value for value in values if f"`{value}`" not in read(page)] == []


def test_usual_steps_of_the_samplers_are_told():
    rows = dict(re.findall(r"^\| `([\w-]+)`(?: \(default\))? \|.*\| (\d+) \| (?:yes|no) \|$",
                           read(MATHEMATICS), re.MULTILINE))
    assert {name: int(steps) for name, steps in rows.items()} == config.SAMPLER_STEPS


def commands_shown() -> Iterator[tuple[str, str]]:
    """(page, arguments) of every `diffuse …` command in a block of code."""
    for page in PAGES:
        for block in CODE.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("diffuse "):
                    yield _name(page), re.split(" [|>] ", line)[0].removeprefix("diffuse ")


@pytest.mark.parametrize(("page", "arguments"), list(commands_shown()))
def test_commands_shown_are_understood(page, arguments):
    """The parser takes them; nothing is run."""
    command, words = app._command(), shlex.split(arguments, comments=True)
    while inner := getattr(command, "commands", None):
        if words[0].startswith("-"):
            assert words[0] in {name for parameter in command.params for name in parameter.opts}
            return
        command = inner[words.pop(0)]
    command.make_context(None, words)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    for _, target in links(page):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_to_the_code_name_something_in_it(page):
    """The text of such a link is `module:name`, where `name` is defined in the linked file."""
    for text, target in links(page):
        module, colon, name = text.strip("`").partition(":")
        if not target.endswith(".py") or not colon:
            continue
        assert Path(target).stem == module, text
        tree = ast.parse((page.parent / target).read_text(encoding="utf-8"))
        assert name in set(definitions(tree)), text


def links(page: Path) -> list[tuple[str, str]]:
    """(text, target) of every link and picture of a page, without those that lead to other sites."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    return [(text, target) for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def definitions(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Functions, classes and constants; methods as `Class.method`."""
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef | ast.ClassDef):
            yield inner.name
        if isinstance(inner, ast.ClassDef):
            yield from (f"{inner.name}.{name}" for name in definitions(inner))
        if isinstance(inner, ast.Assign | ast.AnnAssign):
            targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


@pytest.mark.parametrize("folder", ["decisions", "results"])
def test_the_contents_list_every_entry(folder):
    """docs/FOLDER.md links to each section of the pages in docs/FOLDER."""
    contents = {target for _, target in links(ROOT / f"docs/{folder}.md")}
    for page in sorted((ROOT / "docs" / folder).glob("*.md")):
        title = next(iter(re.findall(r"^# (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)))
        sections = anchors(page) - {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")}
        assert {f"{folder}/{page.name}#{section}" for section in sections} <= contents


def test_formulas_survive_markdown():
    """In inline formulas Markdown takes `\\,` and the like for escapes, and some underscores for emphasis."""
    formulas = re.findall(r"\$([^$]+)\$", CODE.sub("", read(MATHEMATICS)))
    assert len(formulas) > 100
    assert [formula for formula in formulas if re.search(r"\\[^A-Za-z]|[*|\n]|\W_\w", formula)] == []


def test_the_manual_page_is_that_of_the_help(monkeypatch):
    """`python docs/make_man_page.py` writes it anew."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    page = importlib.import_module("make_man_page").build()
    assert page == read("docs/diffuse.1")
    assert "--preset" in page.replace("\\-", "-")


def test_the_front_page_is_that_of_the_program(monkeypatch):
    """`python docs/make_web_page.py` writes it anew. Numbers of the schedule may differ in their last digit."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    built, there = importlib.import_module("make_web_page").build(), read("docs/index.html")
    model = re.compile('(<script type="application/json" id="model">)(.*?)(</script>)')
    assert model.sub(r"\1\3", built) == model.sub(r"\1\3", there)
    assert json.loads(model.search(built)[2])["shapes"] == json.loads(model.search(there)[2])["shapes"]


# ── The guide to the code ───────────────────────────────────────────────────────────────────────────────────────────

GUIDE, SOURCES = "docs/code.md", ROOT / "src" / "diffuse_cli"


def files_in_the_tree() -> list[str]:
    """The files that the tree of the guide lists, as paths below the package."""
    tree, folder, files = read(GUIDE).split("```")[1], "", []
    for line in tree.strip().splitlines():
        if not line.startswith(" "):
            folder = ""
        names = re.findall(r"[\w/]+\.py|^[\w/]+/(?=\s|$)", line)
        for name in names:
            if name.endswith("/"):
                folder = name
            else:
                files.append(folder + name)
    return files


def test_the_guide_lists_every_file_once():
    there = {path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py")}
    files = files_in_the_tree()
    assert len(files) == len(set(files))
    assert set(files) == there - {name for name in there if name.endswith("/__init__.py")}


@pytest.mark.parametrize("reference", sorted(set(re.findall(r"`([\w/]+\.py(?::[\w.]+)?)`", read(GUIDE)))))
def test_places_in_the_guide_exist(reference):
    path, _, name = reference.partition(":")
    if (ROOT / path).exists() and not name:                                         # of a test, for instance
        return
    tree: ast.AST = ast.parse((SOURCES / path).read_text(encoding="utf-8"))
    for part in filter(None, name.split(".")):
        tree = next(node for node in ast.iter_child_nodes(tree)
                    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part)


def test_the_guide_is_short_and_its_steps_are_found_in_few_files():
    assert len(read(GUIDE).splitlines()) <= 150
    training, sampling = read(GUIDE).split("## ")[1:3]
    for part, most in ((training, 9), (sampling, 8)):
        files = set(re.findall(r"`([\w/]+\.py)(?::[\w.]+)?`", part)) - {"training/loop.py"}
        assert 5 <= len(files) <= most, files


def names_in_code() -> set[str]:
    """Every identifier in the source, and every text in it."""
    names: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
            if token.type == tokenize.NAME:
                names.add(token.string)
            elif token.type == tokenize.STRING and not token.string.startswith(('"""', 'r"""')):
                names.update(re.findall(r"\w+", token.string))
    return names


def test_names_in_docstrings_and_comments_exist():
    """A name between backticks in a docstring or comment is one in the code; renaming forgets such places."""
    names, missing = names_in_code() | set(dir(builtins)), []
    for file in SOURCE.rglob("*.py"):
        for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
            if token.type == tokenize.COMMENT or token.string.startswith(('"""', 'r"""')):
                for text in re.findall(r"`([A-Za-z_][\w.]*)`", token.string):
                    missing += [(file.name, text) for part in text.split(".") if part not in names]
    assert missing == []

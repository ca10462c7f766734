"""Write docs/diffuse.1, the manual page, from the help of every command.

    python docs/make_man_page.py

A test compares the page with the help. It holds no date and no version, so that only a change of the help changes it.
"""

import inspect
import re
from pathlib import Path
from typing import Any

from diffuse_cli.cli import app

PAGE = Path(__file__).with_name("diffuse.1")
COMMON = {"help", "quiet", "verbose", "json", "debug"}                # options of every command, explained once


def _roff(text: str) -> str:
    """A text in the language of manual pages: no character of it is a command, and bold is marked as in the help."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"\[bold\](.*?)\[/\]", r"\\fB\1\\fR", text)
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def _entry(parameter: Any) -> str:
    """An option or argument: its names, the form of its value, and its help."""
    value = parameter.metavar or "VALUE"
    names = sorted((*parameter.opts, *parameter.secondary_opts), key=len)                # short names first
    head = ", ".join(f"\\fB{_roff(name)}\\fR" for name in names)
    if parameter.param_type_name == "argument":
        head = f"\\fI{_roff(value)}\\fR"
    elif not getattr(parameter, "is_flag", False):
        head += f" \\fI{_roff(value)}\\fR"
    return f".TP\n{head}\n{_roff(parameter.help or '')}\n"


def build() -> str:
    """The page as a text."""
    root, *others = app.commands(app._command())
    summary, *examples = inspect.cleandoc(root[1].help).split("\n\n")
    commons = {each.name: each for each in root[1].get_params(app.typer.Context(root[1], **app._HELP))}
    parts = ['.TH DIFFUSE 1 "" "diffuse\\-cli" "User Commands"\n',
             f".SH NAME\ndiffuse \\- {_roff(summary[:1].lower() + summary[1:].rstrip('.'))}\n",
             ".SH SYNOPSIS\n\\fBdiffuse\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]\n",
             ".SH EXAMPLES\n.nf\n", *(f"{_roff(example)}\n" for example in examples), ".fi\n",
             ".SH OPTIONS OF EVERY COMMAND\n",
             *(_entry(each) for each in commons.values() if not getattr(each, "hidden", False))]
    for path, command in others:
        if hasattr(command, "commands"):
            continue
        description, *examples = inspect.cleandoc(command.help).split("\n\n")
        parts += [f".SH {_roff(' '.join(path).upper())}\n{_roff(description)}\n.PP\n.nf\n",
                  *(f"{_roff(example)}\n" for example in examples), ".fi\n"]
        panel = ""
        for each in command.params:
            if each.name in COMMON or getattr(each, "hidden", False):
                continue
            if each.rich_help_panel and each.rich_help_panel != panel:
                panel = each.rich_help_panel
                parts.append(f".SS {_roff(panel)}\n")
            parts.append(_entry(each))
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(build(), encoding="utf-8")

"""A training shown in a notebook, with a stand-in for IPython that keeps what was displayed."""

import base64
import dataclasses
import re
import sys
import types
from xml.etree import ElementTree as ET

import pytest

from diffuse_cli import events, show
from diffuse_cli.errors import UsageError


@pytest.fixture
def displayed(monkeypatch):
    """(HTML, line of text) of everything that was displayed, in its order."""
    pages = []
    keep = lambda view, **_: pages.append((view._repr_html_(), repr(view)))  # noqa: E731
    handle = types.SimpleNamespace(update=keep)
    for name, members in {"IPython": {"get_ipython": object},
                          "IPython.display": {"display": lambda view, display_id: keep(view) or handle}}.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return pages


def test_the_curve_and_the_newest_preview_are_shown(trained, displayed):
    finished = show(iter(trained[1]))
    assert finished == trained[1][-1]
    assert displayed[0][1] == "preparing"
    html, line = displayed[-1]
    assert line.startswith("step 8 of 8 · training loss ")
    assert "held out" in line
    assert "finished after" in line
    assert line.replace("step", "<b>tiny</b> · step", 1) in html
    kinds = re.findall(r'src="data:image/([\w+]+);base64,([^"]+)"', html)
    assert [kind for kind, _ in kinds] == ["svg+xml", "png"]
    curve = base64.b64decode(kinds[0][1])
    assert ET.fromstring(curve).tag == "{http://www.w3.org/2000/svg}svg"           # a file of its own
    assert b"held out" in curve
    assert b"var(" not in curve
    assert b"currentColor" not in curve


def test_texts_of_others_are_no_markup(trained, displayed):
    renamed = [dataclasses.replace(event, name="<i>", facts=(("pictures", "<script>"),))
               if isinstance(event, events.Started) else event for event in trained[1]]
    show([events.Noticed(message="<u>", level="warning"), *renamed])
    assert not re.search("<i>|<script>|<u>", displayed[-1][0])
    assert "&lt;u&gt;" in displayed[-1][0]


def test_a_notebook_that_is_stopped_says_how_to_go_on(trained, displayed):
    def interrupted():
        yield from trained[1][:-1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show(interrupted())
    assert "the same call resumes" in displayed[-1][1]


def test_without_a_notebook_nothing_begins(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    begun = []
    with pytest.raises(UsageError, match="in a notebook"):
        show(begun.append(event) for event in [None])
    assert begun == []

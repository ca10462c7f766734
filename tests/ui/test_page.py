"""The page in a real browser, on a desk and on a phone: drawing with the bundled `demo-fast`, by keyboard and mouse."""

import base64
import io
import json
import shlex
import shutil
from pathlib import Path

import browser
import numpy as np
import pytest
from page_client import served
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200),
              pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium")]

FINISHED = "document.querySelectorAll('figcaption:not([hidden])').length"
STATUS = "document.getElementById('status').textContent"
CONTROLS = {"button", "combobox", "textbox", "spinbutton", "slider", "tab", "link", "DisclosureTriangle"}


@pytest.fixture
def page(tmp_path, trained, home):
    """A browser on the page of `diffuse ui demo-fast`, in which a finished training can be watched."""
    shutil.copytree(trained[0], home / "models" / "tiny")
    with served("demo-fast") as client, browser.opened(tmp_path / "profile") as page:
        page.address = client.server.address
        yield page
        assert page.errors == []
        assert [address for address in page.asked if not address.startswith((page.address, "data:", "blob:"))] == []


def _load(page, **window) -> None:
    page.show(page.address, **window)
    page.wait_for("document.body?.dataset.ready")


def _value(page, name: str):
    return page.run(f"document.getElementById('{name}').value")


def _fill(page, **values) -> None:
    for name, value in values.items():
        page.run(f"document.getElementById('{name}').value = {json.dumps(value)}")


def _saved(page) -> list[bytes]:
    """The files behind the links that save the pictures of the newest drawing."""
    links = page.run("[...document.querySelector('article').querySelectorAll('.save')].map(link => link.href)")
    return [base64.b64decode(link.partition("base64,")[2]) for link in links]


def _is_too_wide(page) -> bool:
    return page.run("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.parametrize("window", [{"width": 1280}, {"width": 390, "height": 844, "dark": True}])
def test_a_drawing_by_keyboard(page, window, command, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _load(page, **window)
    reached = []
    while "settings-file" not in reached and len(reached) < 16:        # from the top of the page
        page.press("Tab", 9)
        reached.append(page.run("document.activeElement.id"))
        if reached[-1] == "prompt":
            page.write("a red car")
        if reached[-1] == "count":
            page.run("document.activeElement.select()")
            page.write("2")
    assert [name for name in reached if name != "size"][:3] == ["draw-tab", "model", "prompt"]
    assert {"count", "seed", "go", "settings-file"} <= set(reached)
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.run("""window.seen = 0; new MutationObserver(changes => { for (const change of changes)
        if (change.target.closest(".unfinished")) seen++; })
        .observe(document.getElementById("gallery"), {subtree: true, attributeFilter: ["src"]})""")
    page.run("document.getElementById('prompt').focus()")
    page.press("Enter", 13)
    page.wait_for(f"{FINISHED} == 2 && !document.getElementById('go').hidden")
    assert page.run("seen") >= 2                                       # the estimates of both, at least once
    assert page.run(STATUS).startswith("Drawn with seed ")

    page.run("document.querySelector('.copy').click()")
    page.wait_for(f"/Copied|Selected/.test({STATUS})")
    copied = page.run("document.querySelector('pre').textContent")
    code, out, _ = command(*shlex.split(copied)[1:])
    assert code == 0
    assert _saved(page) == [Path(line).read_bytes() for line in out.splitlines()]
    assert page.run("document.querySelector('.save').download") == Path(out.splitlines()[0]).name[6:]

    page.run("for (const box of document.querySelectorAll('details')) box.open = true")
    assert not _is_too_wide(page)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = {node["nodeId"]: node.get("name", {}).get("value") for node in nodes
             if node.get("role", {}).get("value") in CONTROLS and not node["ignored"]}
    assert len(named) > 20
    assert all(named.values())
    page.run("document.getElementById('draw-tab').focus()")
    page.press("ArrowRight", 39)
    page.wait_for("document.getElementById('report').style.height")
    assert page.run("document.getElementById('report').contentDocument.querySelector('h1').textContent") == "tiny"
    assert not _is_too_wide(page)
    with (home / "models" / "tiny" / "events.jsonl").open("a") as log:          # as if the training went on
        log.write('{"schema": 1, "event": "noticed", "level": "warning", "message": "something new"}\n')
    page.wait_for("document.getElementById('report').contentDocument?.body?.textContent.includes('something new')")


def test_where_no_picture_is_yet_there_is_a_plain_ground_without_its_text(page):
    _load(page)
    assert page.run("""(() => {
        const figure = document.body.appendChild(document.createElement("figure"));
        figure.append(Object.assign(new Image(), {alt: "a red car, picture 1"}));
        const {backgroundImage, color} = getComputedStyle(figure.firstChild);
        return [backgroundImage, color];
    })()""") == ["none", "rgba(0, 0, 0, 0)"]


def test_the_button_and_its_messages_are_seen_however_many_settings_are_open(page):
    _load(page, width=1280, height=800)
    page.run("document.querySelectorAll('form details').forEach(details => details.open = true)")
    assert page.run("document.querySelector('form').scrollHeight > innerHeight && scrollY == 0")
    assert page.run("document.getElementById('bar').getBoundingClientRect().bottom <= innerHeight")


def test_a_picture_is_dropped_and_painted_over(page):
    _load(page)
    _fill(page, prompt="a red car", count="1", seed="7")
    page.run("document.getElementById('form').requestSubmit()")
    page.wait_for(f"{FINISHED} == 1 && !document.getElementById('go').hidden")
    (drawn,) = _saved(page)
    _load(page)
    page.run(f"""const text = atob({json.dumps(base64.b64encode(drawn).decode())});
        const given = new DataTransfer();
        given.items.add(new File([Uint8Array.from(text, letter => letter.charCodeAt(0))], "old.png"));
        document.body.dispatchEvent(new DragEvent("drop", {{dataTransfer: given, bubbles: true, cancelable: true}}))""")
    page.wait_for(f"{STATUS}.startsWith('These are the settings of old.png')")
    assert [_value(page, name) for name in ("prompt", "count", "seed", "model")] == ["a red car", "1", "7", "demo-fast"]

    page.run("document.getElementById('form').requestSubmit()")
    page.wait_for(f"{FINISHED} == 1 && !document.getElementById('go').hidden")
    assert _saved(page) == [drawn]
    page.run("document.querySelector('article .start').click()")
    page.wait_for("!document.getElementById('start').hidden")
    assert _value(page, "strength") == "0.75"
    page.run("document.getElementById('start-canvas').scrollIntoView({block: 'center'})")
    box = page.run("(({left, top, width}) => [left, top, width])"
                   "(document.getElementById('start-canvas').getBoundingClientRect())")
    for kind, place in (("mousePressed", 0.2), ("mouseMoved", 0.35), ("mouseReleased", 0.35)):
        page.call("Input.dispatchMouseEvent", type=kind, x=box[0] + place * box[2], y=box[1] + 0.25 * box[2],
                  button="left", buttons=1, clickCount=1)
    assert _value(page, "strength") == "1"
    _fill(page, seed="8", prompt="a blue fish")
    page.run("document.getElementById('form').requestSubmit()")
    page.wait_for(f"{FINISHED} == 2 && !document.getElementById('go').hidden")
    before, after = (np.asarray(Image.open(io.BytesIO(data))) for data in (drawn, _saved(page)[0]))
    rows, columns = np.nonzero((before != after).any(axis=2))
    assert len(rows) > 5                                               # what was painted has changed
    assert 8 <= rows.min() <= rows.max() <= 24                         # and nothing else
    assert 4 <= columns.min() <= columns.max() <= 30


def test_a_drawing_is_cancelled_and_errors_are_shown(page):
    _load(page)
    _fill(page, prompt="a zebra <img src=//evil.example onerror=alert()>", count="64")
    page.run("document.getElementById('form').requestSubmit()")
    page.wait_for("document.querySelectorAll('.unfinished img[src]').length")
    page.run("document.getElementById('cancel').click()")
    page.wait_for(f"{STATUS} == 'Cancelled.'")
    assert page.run("document.querySelectorAll('.unfinished').length") == 0
    notes = page.run("document.getElementById('notes').textContent")
    assert notes.startswith("the model has never seen the word 'zebra'")
    page.run("document.getElementById('model').value = 'tiny'; "
             "document.getElementById('model').dispatchEvent(new Event('change'))")
    _fill(page, count="1", steps="2", seed=str(2**63 - 1))
    page.run("document.getElementById('form').requestSubmit()")
    page.wait_for(f"/^--seed must be/.test({STATUS})")
    _fill(page, count="", seed="1", batch_size="0")                    # in a part of the form that is closed
    page.run("document.getElementById('form').requestSubmit()")
    page.wait_for(f"/^--batch-size must be/.test({STATUS})")
    assert page.run("document.querySelectorAll('#gallery img').length") == 0
    _fill(page, batch_size="1")
    page.run("document.getElementById('form').requestSubmit()")
    page.wait_for(f"{FINISHED} == 1")
    page.errors.clear()                                                # the browser logs the refusal's status

"""The page that compares models: it says what can be compared, marks only what leads clearly, and is inert."""

import json
import re
import shutil
from pathlib import Path

import browser
import numpy as np
import pytest
import tiny
from web_page import Page

from diffuse_cli.pictures.image_files import encode
from diffuse_cli.reporting import comparison
from diffuse_cli.reporting.comparison import build, read_compared

HOSTILE = "</script><script>alert('x')</script> \"&<img src=//evil.example> \x1b[2J ${script}"


@pytest.fixture
def two(trained, tmp_path):
    """The directories of two runs, which differ in nothing."""
    return [Path(shutil.copytree(trained[0], tmp_path / name)) for name in ("tiny", "other")]


def _page(two, prompts=(), pictures=(), seed=0) -> tuple[str, Page]:
    html = build([read_compared(path.name, path / "model.safetensors") for path in two], prompts, pictures,
                 seed=seed).decode()
    return html, Page(html)


def _evaluate(run: Path, **figures) -> None:
    sha256 = read_compared("", run / "model.safetensors").info.sha256
    (run / "evaluation.json").write_text(json.dumps({"model_sha256": sha256, "step": 8, **figures}))


def _measured(value, error):
    return {"value": value, "standard_error": error}


def _bold(html: str) -> list[str]:
    return re.findall(r"<td><b>([^<]*)</b></td>", html)


def test_only_what_leads_clearly_is_bold(two):
    """A lead of 0.03 with errors of 0.01 each is 2.1 standard errors of the difference; with 0.011, it is 1.9."""
    _evaluate(two[0], noise_mse=_measured(0.20, 0.01), noise_mse_ref=_measured(0.20, 0.011),
              variance_gain_bpd=_measured(0.1, 0.001), prompts={"empty": _measured(0.1, 0.001)},
              bits_per_dim={"bound": _measured(3.0, None)})
    _evaluate(two[1], noise_mse=_measured(0.23, 0.01), noise_mse_ref=_measured(0.23, 0.011),
              variance_gain_bpd=_measured(0.3, 0.001), prompts={"empty": _measured(0.2, 0.001)},
              bits_per_dim={"bound": _measured(4.0, 0.1)})
    html, page = _page(two)
    assert _bold(html) == ["0.2 ± 0.01", "0.3 ± 0.001"]                # the lower loss, the higher gain
    assert "0.23 ± 0.011" in page.text
    assert "was not evaluated" not in page.text


def test_losses_of_different_schedules_or_sizes_lead_nowhere(two, monkeypatch):
    for run, value in zip(two, (0.1, 0.9), strict=True):
        _evaluate(run, noise_mse=_measured(value, 0.001), noise_mse_ref=_measured(value, 0.001))
    models = [read_compared(path.name, path / "model.safetensors") for path in two]
    object.__setattr__(models[1].info.config, "schedule", "cosine")
    html = build(models, (), (), seed=0).decode()
    assert _bold(html) == ["0.1 ± 0.001"]                              # the reference alone
    assert "The noise schedules differ" in html
    object.__setattr__(models[1].info.config.network, "resolution", 16)
    html = build(models, (), (), seed=0).decode()
    assert _bold(html) == []
    assert "pictures of different sizes" in html


def test_it_says_what_was_not_evaluated_or_is_out_of_date(two):
    _evaluate(two[0], noise_mse=_measured(0.2, 0.01))
    record = json.loads((two[0] / "evaluation.json").read_text())
    (two[0] / "evaluation.json").write_text(json.dumps({**record, "model_sha256": "0" * 64, "step": 4}))
    page = _page(two)[1]
    assert "The evaluation of tiny is of other weights than its newest: those of step 4." in page.text
    assert "other was not evaluated: diffuse evaluate other" in page.text


def test_the_settings_that_differ_are_apart_from_those_that_do_not(two):
    stored = json.loads((two[1] / "config.json").read_text())
    stored["plan"]["dropout"] = 0.125
    (two[1] / "config.json").write_text(json.dumps(stored))
    html, _ = _page(two)
    differing, same = html[html.index("What differs"):].split("<details>")
    assert "<td>dropout</td>" in differing
    assert "0.125" in differing
    assert "batch size" not in differing
    assert "batch size" in same
    same_settings = _page([two[0], two[0]])[0]
    assert "Nothing: the models were trained with the same settings." in same_settings


def test_curves_of_all_models_lie_over_each_other(two):
    html, _ = _page(two)
    chart = html[html.index("<h3>Validation loss</h3>"):].split("</div>")[0]
    assert [re.search(rf"stroke: var\(--curve-{number}\)", chart) is not None for number in (1, 2, 3)] == \
        [True, True, False]
    assert re.findall(r'data-label="(\w)"', chart) == ["A", "B"]


def test_every_picture_is_there_with_its_prompt(two):
    pictures = [[[encode(np.full((4, 4, 3), 60 * model + 20 * prompt + seed, np.uint8)) for seed in range(3)]
                 for prompt in range(2)] for model in range(2)]
    page = _page(two, ["a red square", ""], pictures, seed=7)[1]
    assert page.images == [pictures[model][prompt][seed] for prompt in range(2) for model in range(2)
                           for seed in range(3)]
    assert [data for tag, data in page.texts if tag == "h3"][:2] == ["a red square", "without a prompt"]
    assert "seeds 7 to 9" in page.text


def test_a_model_without_a_run_is_known_by_its_file_alone(two, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(two[0] / "model.safetensors", alone)
    page = _page([two[0], alone])[1]
    assert "alone was not trained here, and evaluations are kept beside a training." in page.text
    assert "diffuse evaluate alone" not in page.text
    assert "Nothing: the models were trained with the same settings." in page.text


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium")
def test_on_a_phone_no_table_of_two_models_is_cut_and_no_number_is_broken(two, tmp_path):
    (tmp_path / "page.html").write_text(_page(two)[0])
    with browser.opened(tmp_path / "profile") as page:
        page.show((tmp_path / "page.html").as_uri(), width=390, height=844)
        page.wait_for("document.readyState == 'complete'")
        assert page.run("""[...document.querySelectorAll(".wide")]
            .filter(table => table.scrollWidth > table.clientWidth).length""") == 0
        assert page.run("""[...document.querySelectorAll(".wide td:not(:first-child)")].filter(cell => {
            const range = document.createRange();
            range.selectNodeContents(cell);
            const lines = new Set([...range.getClientRects()].map(box => box.top));
            return !/\\s/.test(cell.textContent.trim()) && lines.size > 1;
        }).map(cell => cell.textContent)""") == []


def test_foreign_text_stays_text(two):
    _evaluate(two[0], memorisation={"sentence": HOSTILE}, noise_mse=HOSTILE, levels=[HOSTILE], step=HOSTILE,
              distances=HOSTILE)
    (two[1] / "evaluation.json").write_text(json.dumps({"step": HOSTILE, "prompts": [HOSTILE]}))
    stored = json.loads((two[1] / "config.json").read_text())
    stored["plan"][HOSTILE] = {HOSTILE: [HOSTILE]}
    (two[1] / "config.json").write_text(json.dumps(stored))
    models = [read_compared(HOSTILE, path / "model.safetensors") for path in two]
    picture = [[[encode(np.zeros((4, 4, 3), np.uint8))]]]
    html = build(models, [HOSTILE], picture * 2, seed=0).decode()
    assert [html.count(mark) for mark in ("<script", "<img", "\x1b", "://")] == [1, 2, 0, 0]
    page = Page(html)
    assert HOSTILE.replace("\x1b", "\\x1b") in page.text
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith("data:image/png;base64,")
    policy = {name: value for tag, name, value in page.attributes if tag == "meta"}["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_there_is_a_colour_for_every_model(two):
    style = build([read_compared("a", two[0] / "model.safetensors")] * 2, (), (), seed=0).decode()
    assert all(style.count(f"--curve-{number}: #") == 2 for number in range(1, comparison.MAX_MODELS + 1))
    assert len({comparison._letter(index) for index in range(comparison.MAX_MODELS)}) == comparison.MAX_MODELS


# ── The command ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_draws_the_same_prompts_and_seeds_with_each_model(command, two, unconditional, tmp_path,
                                                                       monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tiny.scaled_down():
        code, out, err = command("models", "compare", two[0], unconditional[0], "-n", "1", "-p", "a red square",
                                 "-p", "a blue square", "--json")
    assert code == 0, err
    assert json.loads(out) == {"schema": 1, "path": "comparison.html", "models": ["tiny", str(unconditional[0])],
                               "bytes": (tmp_path / "comparison.html").stat().st_size}
    page = Page((tmp_path / "comparison.html").read_text())
    assert len(page.images) == 4
    red, red_without, blue, blue_without = page.images
    assert red != blue
    assert red_without == blue_without                                 # the same seed, and prompts are ignored
    assert command("models", "compare", two[0], two[1], "-n", "0", "-o", "comparison.html")[0] == 2


@pytest.mark.parametrize(("arguments", "told"), [
    ((0,), "the number of models must be between 2 and 6"), ((0, 0), "is named twice"),
    ((0, 1, "-n", "17"), "--num must be between"), ((0, 1, "-o", "page.png"), ".html"), ((0, "absent"), "no model")])
def test_refusals(command, two, arguments, told):
    names = [two[argument] if isinstance(argument, int) else argument for argument in arguments]
    code, out, err = command("models", "compare", *names)
    assert code in (2, 4)
    assert out == ""
    assert told in err

"""Recipes of strangers, `train --config FILE`: each is refused in one line, or sets the options that it may set."""

import pytest

HOSTILE = {
    "no TOML": "\x00\x01", "not UTF-8": b"folder = \"\xff\"", "half a line": "resolution =",
    "a key twice": "lr = 1\nlr = 2", "a key in both spellings": "batch-size = 4\nbatch_size = 5",
    "deep lists": "lr = " + "[" * 100_000, "deep tables": "lr = " + "{a=" * 100_000,
    "deep names": ".".join(["a"] * 100_000) + " = 1", "a deep table": "[" + ".".join(["a"] * 100_000) + "]",
    "many tables": "[[a]]\n" * 100_000, "5,000 digits": "seed = " + "9" * 5000,
    "a long hexadecimal": "seed = 0x" + "f" * 100_000, "an endless float": "lr = 1e" + "9" * 5000, "NaN": "lr = nan",
    "infinity": "lr = inf", "minus zero": "lr = -0.0", "a date": "seed = 2020-01-01",
    "a date of the year 0": "seed = 0000-00-00", "a time": "time = 25:00:00", "a duration of no unit": 'time = "99"',
    "a duration without end": f'time = "{"9" * 400}h"', "a flag": "steps = true", "a fraction": "steps = 1.5",
    "a negative number": "steps = -1", "zero": "batch-size = 0", "a table": "[steps]\na = 1", "a list": "steps = [1]",
    "a folder in a list": 'folder = ["a"]', "a folder that is a number": "folder = 1",
    "a folder with a null": 'folder = "a\\u0000b"', "a folder of 5,000 letters": f'folder = "{"x" * 5000}"',
    "a folder with colours": 'folder = "\\u001b[31mred"', "a folder that is a pipe": 'folder = "/dev/zero"',
    "an unknown name": "evil = 1", "a name with colours": '"\\u001b]0;evil\\u0007" = 1',
    "a name of 100,000 letters": "x" * 100_000 + " = 1", "an empty name": '"" = 1',
    "a name of Python": "__class__ = 1", "an option of the machine": 'name = "../../x"',
    "a place for the model": 'out = "/etc/passwd"', "a device": 'device = "cuda:99"',
    "resolution with a null": 'resolution = "8x\\u0000"', "a huge resolution": "resolution = 1000000000",
    "a resolution of 5,000 digits": f'resolution = "{"9" * 5000}x8"',
    "a resolution of other digits": 'resolution = "٦٤x٦٤"', "a model of the hub": 'init = "hf://../../x"',
    "a model that is a pipe": 'init = "/dev/zero"', "captions that are a pipe": 'captions = "/dev/zero"',
    "a template of attributes": 'caption-template = "{folder.__class__}"', "a million lines": "#\n" * 500_000,
    "a background with colours": 'background = "\\u001b[31m"', "a held-out folder above": 'held-out = "../.."',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_refused_in_one_line(command, squares, tmp_path, monkeypatch, home, name, counted):
    monkeypatch.chdir(tmp_path)
    given = HOSTILE[name]
    (tmp_path / "recipe.toml").write_bytes(given if isinstance(given, bytes) else given.encode())
    chosen = () if "folder" in name else (squares,)
    code, out, err = command("train", *chosen, "--config", "recipe.toml", "--dry-run")
    shown = [line for line in err.splitlines() if line.startswith("error: ")]
    if code == 0:
        assert name in ("a million lines", "a resolution of other digits"), (out, err)
    else:
        assert (code in (2, 3, 4), out, len(shown)) == (True, "", 1), (code, out, err)
    assert len(err) < 5000
    assert all(character.isprintable() or character == "\n" for character in out + err)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
    assert not [*(home / "models").glob("*")]
    counted("A recipe from a stranger is used or refused in one line", "hostile recipes", 1)

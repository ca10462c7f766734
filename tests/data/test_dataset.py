"""Pictures are decoded once and found again by contents, never half of them; and their folder stays as it was."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuse_cli.config import FITS
from diffuse_cli.data import decode_workers, decoded_pictures, file_hashes, fitting, images
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.dataset import clear_cache, decode_pictures, describe_skipped, open_dataset
from diffuse_cli.errors import DataError, StorageError, UsageError
from diffuse_cli.events import Noticed, Scanned
from diffuse_cli.files import durable, locks
from diffuse_cli.picture_size import Size


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    """Ten small pictures with captions."""
    root = tmp_path / "pictures"
    root.mkdir()
    random = np.random.default_rng(7)
    for index in range(10):
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(root / f"{index}.png")
        (root / f"{index}.txt").write_text(f"caption {index}")
    return root


def run(generator):
    """(events, returned value) of a generator."""
    events = []
    while True:
        try:
            events.append(next(generator))
        except StopIteration as end:
            return events, end.value


def opened(folder, directory, *, resolution=16, strict=False, rendering=None, **options):
    found = find_pictures(folder, **options)
    return run(open_dataset(found, resolution=resolution, directory=directory, strict=strict, rendering=rendering))[1]


@pytest.fixture
def forbid(monkeypatch):
    """A function after whose call decoding is an error, and with `reading` opening a file too."""
    def forbid(*, reading):
        def never(*_, **__):
            raise AssertionError("not again")
        monkeypatch.setattr(decode_workers, "decode_all", never)
        if reading:
            monkeypatch.setattr(file_hashes, "open_regular", never)
    return forbid


# ── Contents of a data set ───────────────────────────────────────────────────────────────────────────────────────────


def test_pixels_captions_names_and_hashes(folder, directory):
    found = find_pictures(folder)
    events, dataset = run(open_dataset(found, resolution=16, directory=directory))
    expected = np.stack([fitting.fitted_pixels(images.open_rgb(picture.path), 16) for picture in found.pictures])
    np.testing.assert_array_equal(dataset.images, expected)
    assert isinstance(dataset.images, np.memmap)
    assert not dataset.images.flags.writeable
    assert dataset.names == tuple(f"{index}.png" for index in range(10))
    assert dataset.captions == tuple((f"caption {index}",) for index in range(10))
    assert dataset.pixel_hashes == tuple(hashlib.sha256(row.tobytes()).hexdigest() for row in expected)
    assert (dataset.skipped, dataset.warnings) == ((), ())
    assert [event.done for event in events if isinstance(event, Scanned)][-1] == 10
    assert {event.total for event in events} == {10}


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_workers_changes_nothing(folder, directory, tmp_path, monkeypatch, count):
    first = opened(folder, directory)
    monkeypatch.setattr(decode_workers, "cores", lambda: count)
    second = opened(folder, tmp_path / "other")
    assert (first.content_id, first.pixel_hashes) == (second.content_id, second.pixel_hashes)


def test_the_identity_is_that_of_pixels_and_captions_in_order(folder, directory, tmp_path):
    base = opened(folder, directory)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert opened(copy, directory).content_id == base.content_id                    # neither the folder
    for path in list(copy.iterdir()):
        path.rename(copy / f"x{path.name}")
    assert opened(copy, directory).content_id == base.content_id                    # nor the names matter
    assert opened(copy, directory, captions="none").content_id != base.content_id
    (copy / "x0.png").rename(copy / "y.png")
    (copy / "x0.txt").rename(copy / "y.txt")
    assert opened(copy, directory).content_id != base.content_id                    # but the order does
    assert opened(folder, directory, resolution=8).content_id != base.content_id


def test_files_of_different_bytes_but_equal_pixels_are_equal(folder, directory, tmp_path):
    base = opened(folder, directory)
    for path in folder.glob("*.png"):
        Image.open(path).save(path, compress_level=1)
    assert opened(folder, directory).content_id == base.content_id


# ── Duplicates and other remarks ────────────────────────────────────────────────────────────────────────────────────


def test_captions_of_equal_pixels_become_alternatives(folder, directory):
    shutil.copy(folder / "0.png", folder / "3.png")
    shutil.copy(folder / "0.png", folder / "5.png")
    (folder / "5.txt").write_text("caption 5\ncaption 0")
    shutil.copy(folder / "1.png", folder / "4.png")                  # another group between them
    dataset = opened(folder, directory)
    assert len(dataset.names) == 10
    assert {dataset.captions[index] for index in (0, 3, 5)} == {("caption 0", "caption 3", "caption 5")}
    assert dataset.captions[1] == dataset.captions[4] == ("caption 1", "caption 4")
    assert dataset.captions[2] == ("caption 2",)
    assert dataset.warnings == ("3 pictures with the same pixels as another, for example 3.png (as 0.png)",)


def test_a_duplicate_without_a_caption_gets_one(folder, directory):
    shutil.copy(folder / "0.png", folder / "3.png")
    (folder / "3.txt").unlink()
    assert opened(folder, directory).captions[3] == ("caption 0",)


def test_what_a_person_may_want_to_look_at_is_counted(folder, directory):
    Image.new("RGB", (100, 30)).save(folder / "a.png")              # longer than 3:1
    Image.new("RGB", (30, 90), "red").save(folder / "b.png")        # just not
    Image.new("RGB", (7, 8)).save(folder / "c.png")                 # enlarged to 16: more than twice
    Image.new("RGB", (8, 8), "blue").save(folder / "d.png")         # just twice
    Image.fromarray(np.eye(20, dtype=np.float32)).save(folder / "e.tif")
    warnings = "\n".join(opened(folder, directory, captions="none").warnings)
    assert "1 picture longer than 3:1, of which only the centre square is kept, for example a.png" in warnings
    assert "1 picture enlarged more than twice to 16 pixels, for example c.png" in warnings
    assert "1 picture of real, negative or large numbers, stretched from lowest to highest" in warnings


def add_drawings(folder, *names):
    """White drawings on a transparent ground."""
    for index, name in enumerate(names):
        image = Image.new("RGBA", (20, 30))
        image.paste("white", (2, 2, 5 + index, 20))
        image.save(folder / name)


def add_twelve_bits(folder, *names):
    random = np.random.default_rng(1)
    for name in names:
        values = random.integers(0, 4000, (20, 30), dtype=np.uint16)
        values[0, 0] = 4000
        Image.fromarray(values).save(folder / name)


def test_warnings_about_colours_name_the_option_that_helps(folder, directory):
    add_drawings(folder, "a.png", "b.png")
    add_twelve_bits(folder, "c.png", "d.tif")
    faint = Image.open(folder / "1.png").convert("RGBA")
    faint.putalpha(9)
    faint.save(folder / "e.png")
    (folder / "f (conflicted copy 2024-01-01).png").write_bytes((folder / "2.png").read_bytes())
    warnings = "\n".join(opened(folder, directory, captions="none").warnings)
    assert "2 pictures empty on the background white (choose another --background), for example a.png" in warnings
    assert ("2 pictures of 16 bits with no value above 4,000 of 65,535, which become dark (with --white-level 4095, "
            "that value is white in all pictures), for example c.png") in warnings
    assert "1 picture nearly transparent, although colours are hidden there" in warnings
    assert "1 picture named as a sync tool names two versions that contradict each other, for example f (" in warnings


def test_a_picture_that_uses_all_16_bits_changes_the_advice(folder, directory):
    add_twelve_bits(folder, "c.png")
    Image.fromarray(np.full((20, 30), 65535, np.uint16)).save(folder / "d.png")
    warnings = "\n".join(opened(folder, directory, captions="none").warnings)
    assert ("which become dark (1 other uses the whole range: train on them separately), for example c.png"
            in warnings)
    assert "1 picture with values above --white-level 4095, which become white, for example d.png" in "\n".join(
        opened(folder, directory, captions="none", rendering=Rendering(white_level=4095)).warnings)


def test_the_background_and_the_white_level_decide_on_pixels_and_have_caches_of_their_own(folder, directory, forbid):
    add_drawings(folder, "a.png")
    add_twelve_bits(folder, "c.png")
    renderings = (Rendering(), Rendering(background="black"), Rendering(white_level=4095))
    datasets = [opened(folder, directory, captions="none", rendering=rendering) for rendering in renderings]
    plain, black, bright = (dict(zip(dataset.names, np.asarray(dataset.images), strict=True)) for dataset in datasets)
    assert plain["a.png"].min() == 255
    assert black["a.png"].min() == 0
    assert (black["c.png"] == plain["c.png"]).all()
    assert plain["c.png"].max() <= 16 < bright["c.png"].max()
    assert (bright["a.png"] == plain["a.png"]).all()
    assert len({dataset.content_id for dataset in datasets}) == 3
    forbid(reading=False)
    for rendering, dataset in zip(renderings, datasets, strict=True):
        assert opened(folder, directory, captions="none", rendering=rendering).content_id == dataset.content_id


def test_an_unknown_colour_is_refused_before_anything_is_read(folder, directory, forbid):
    forbid(reading=True)
    with pytest.raises(UsageError, match="--background does not know the colour 'blakc'"):
        opened(folder, directory, rendering=Rendering(background="blakc"))


def test_litter_is_told_once(folder, directory):
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "0.png").write_bytes(b"thumbnail")
    (folder / "._0.png").write_bytes(b"half")
    events, _ = run(open_dataset(find_pictures(folder), resolution=16, directory=directory))
    messages = [event for event in events if isinstance(event, Noticed)]
    assert messages == [Noticed(message="skipped 2 files of other programs: @eaDir 1, ._* 1")]


def test_the_error_about_too_many_names_the_remedy(folder, directory):
    for index in range(10):
        (folder / f"{index}.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DataError, match=r"skipped 10 of 10 \(Git LFS pointer 10\)") as caught:
        opened(folder, directory)
    assert "git lfs pull" in caught.value.hint


def test_pictures_named_as_another_type_count_as_lost_and_those_beside_do_not(folder, directory):
    for index in range(4):
        (folder / f"{index}.svg").write_text("<svg/>")
    assert len(opened(folder, directory).names) == 10
    for index in range(9):
        (folder / f"{index}.png").write_text("<svg/>")
    with pytest.raises(DataError, match=r"skipped 9 of 10 \(drawing 9\)"):
        opened(folder, directory)


@pytest.mark.parametrize(("count", "warning"), [(1, "1 picture: the model will memorise it"),
                                                (7, "7 pictures: the model will memorise them"), (8, None)])
def test_few_pictures_are_learnt_by_heart(folder, directory, count, warning):
    for index in range(count, 10):
        (folder / f"{index}.png").unlink()
        (folder / f"{index}.txt").unlink()
    assert opened(folder, directory).warnings == ((warning,) if warning else ())


# ── Found again ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_second_time_no_picture_is_read(folder, directory, forbid):
    (folder / "bad.png").write_text("text")
    first = opened(folder, directory)
    forbid(reading=True)
    second = opened(folder, directory)
    np.testing.assert_array_equal(first.images, second.images)
    assert (first.content_id, first.names, first.skipped) == (second.content_id, second.names, second.skipped)
    assert second.skipped == (("bad.png", "text"),)


def test_new_times_new_names_and_new_captions_decode_nothing(folder, directory, forbid):
    first = opened(folder, directory)
    forbid(reading=False)
    os.utime(folder / "3.png", (1, 1))
    (folder / "0.png").rename(folder / "00.png")
    (folder / "0.txt").rename(folder / "00.txt")
    (folder / "5.txt").write_text("another")
    second = opened(folder, directory)
    assert first.pixel_hashes == second.pixel_hashes
    assert second.captions[5] == ("another",)
    assert second.names[0] == "00.png"


def test_another_picture_of_the_same_size_and_time_is_noticed(folder, directory):
    first = opened(folder, directory)
    path = folder / "0.png"
    before = path.stat()
    data = bytearray(path.read_bytes())
    Image.new("RGB", (30, 20), "red").save(path)
    changed = path.read_bytes()
    path.write_bytes(changed + bytes(len(data) - len(changed)))      # what follows a PNG is ignored
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert opened(folder, directory).pixel_hashes[0] != first.pixel_hashes[0]


def test_removed_and_restored_pictures(folder, directory, forbid, tmp_path):
    first = opened(folder, directory)
    (folder / "4.png").rename(tmp_path / "4.png")
    (folder / "4.txt").rename(tmp_path / "4.txt")
    assert len(opened(folder, directory).names) == 9
    shutil.copy(tmp_path / "4.png", folder)
    shutil.copy(tmp_path / "4.txt", folder)
    forbid(reading=False)
    assert opened(folder, directory).content_id == first.content_id


def test_crops_have_the_keys_of_versions_that_always_cropped(monkeypatch):
    """The keys that those versions made, with the name of what they did to pixels."""
    monkeypatch.setattr(decoded_pictures, "TRANSFORM", "upright srgb, centre square, lanczos or bicubic, 4")

    def key_of(hashes, side, **options):
        return decoded_pictures.key_of(hashes, (Size.of(side),), Rendering(**options))

    assert key_of(["a" * 64, "b" * 64], 16) == "d51cbd02f3e6d5a6f8ccd9956ebf60dd"
    assert key_of(["a" * 64], 32, background="black") == "2831bbcd58174e3624d2e421302842a8"
    assert len({key_of(["a" * 64], 32, fit=fit) for fit in FITS[1:]}) == 4


@pytest.mark.parametrize("name", ["TRANSFORM", "FORMAT"])
def test_another_version_decodes_again(folder, directory, monkeypatch, forbid, name):
    opened(folder, directory)
    monkeypatch.setattr(decoded_pictures, name, 99)
    forbid(reading=False)
    with pytest.raises(AssertionError, match="not again"):
        opened(folder, directory)


# ── Never half ──────────────────────────────────────────────────────────────────────────────────────────────────────


def home_of(directory):
    (home,) = [path for path in directory.iterdir() if path.is_dir()]
    return home


def test_an_interrupted_scan_leaves_nothing_that_counts(folder, directory):
    steps = decode_pictures(find_pictures(folder), resolution=16, directory=directory)
    while next(steps).done < 5:
        pass
    steps.close()
    assert list(home_of(directory).iterdir()) == []
    assert len(opened(folder, directory).names) == 10


def test_a_killed_scan_leaves_nothing_that_counts(folder, directory):
    code = f"""
import os, signal
from pathlib import Path
from diffuse_cli.data import dataset, decoded_pictures
from diffuse_cli.data.captions import find_pictures
decoded_pictures._PIECE = 1
found = find_pictures(Path({str(folder)!r}))
for event in dataset.decode_pictures(found, resolution=16, directory=Path({str(directory)!r})):
    if event.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert [path.name[:5] for path in home_of(directory).iterdir()] == [durable.TEMPORARY]
    dataset = opened(folder, directory)
    assert len(dataset.names) == 10
    assert sorted(path.name for path in home_of(directory).iterdir()) == ["images.u8", "index.jsonl"]


def test_a_damaged_cache_is_made_again(folder, directory):
    first = opened(folder, directory)
    home = home_of(directory)
    index = (home / "index.jsonl").read_bytes()
    other = index.replace(first.pixel_hashes[0].encode(), first.pixel_hashes[1].encode(), 1)
    for damaged in (*(index[: len(index) * part // 8] for part in range(8)), b"\0" * 99, b"{}", b"[" * 9999, other):
        (home / "index.jsonl").write_bytes(damaged)
        assert opened(folder, directory).content_id == first.content_id
        assert (home / "index.jsonl").read_bytes() == index
    (home / "images.u8").write_bytes(b"short")
    np.testing.assert_array_equal(opened(folder, directory).images, first.images)
    (seen,) = directory.glob("seen-*.jsonl")
    hashed = seen.read_bytes()
    other = hashed.replace(b'["0.png", ', b'["0.png", 1')
    assert other != hashed
    for damaged in (b"", b"[]", b'{"format": 1, "files": {"0.png": 7}}', hashed[:-1], other):
        seen.write_bytes(damaged)
        assert opened(folder, directory).content_id == first.content_id
        assert seen.read_bytes() == hashed


@pytest.mark.parametrize("place", [0, 4000, -1])
def test_one_flipped_bit_of_the_decoded_pictures_is_found(folder, directory, place):
    first = opened(folder, directory)
    array = home_of(directory) / "images.u8"
    pixels = array.read_bytes()
    decayed = bytearray(pixels)
    decayed[place] ^= 1
    array.write_bytes(decayed)
    events, dataset = run(decode_pictures(find_pictures(folder), resolution=16, directory=directory))
    told = [event.message for event in events if isinstance(event, Noticed)]
    assert "the cache of decoded pictures is damaged: they are decoded again" in told
    assert array.read_bytes() == dataset.images.tobytes() == pixels
    assert dataset.content_id == first.content_id


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(folder, directory, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(durable, "_write_all", full)
    with pytest.raises(StorageError, match="no space"):
        opened(folder, directory)
    monkeypatch.undo()
    assert not [path for path in directory.rglob("*") if path.name.startswith(durable.TEMPORARY)]


def test_a_file_that_changes_meanwhile_ends_the_scan(folder, directory, monkeypatch):
    honest = file_hashes._hash_file

    def stale(path, before):
        stamped = honest(path, before)
        return [*stamped[:3], "0" * 64] if path.name == "3.png" else stamped
    monkeypatch.setattr(file_hashes, "_hash_file", stale)
    with pytest.raises(DataError, match=r"3\.png changed while it was being read"):
        opened(folder, directory)
    assert not list(directory.rglob("index.jsonl"))


def test_a_scan_waits_for_another_of_the_same_pictures(folder, directory, forbid):
    found = find_pictures(folder)
    hashes = [hashlib.sha256(picture.path.read_bytes()).hexdigest() for picture in found.pictures]
    key = decoded_pictures.key_of(hashes, (Size.of(16),), Rendering())
    waiting = decode_pictures(found, resolution=16, directory=directory)
    with locks.lock(directory / f"{key}.lock", doing="tested"):
        events = [next(waiting), next(waiting)]
        assert isinstance(events[-1], Noticed)
        assert "waiting" in events[-1].message
        other = decoded_pictures.DecodedPictures(found, hashes, directory / key, (Size.of(16),), Rendering())
        run(other.write())
    forbid(reading=True)
    assert len(run(waiting)[1].names) == 10


# ── What cannot be used ─────────────────────────────────────────────────────────────────────────────────────────────


def spoil(folder, *names):
    for index, name in enumerate(names):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(b"text" if index % 2 else data[: len(data) // 2])


def test_a_few_bad_files_are_skipped_and_named(folder, directory):
    spoil(folder, "1.png", "3.png", "5.png", "6.png", "8.png")
    dataset = opened(folder, directory)                             # exactly half is not over half
    assert dataset.skipped == (("1.png", "truncated"), ("3.png", "text"), ("5.png", "truncated"),
                               ("6.png", "text"), ("8.png", "truncated"))
    assert dataset.names == ("0.png", "2.png", "4.png", "7.png", "9.png")
    assert len(dataset.images) == len(dataset.captions) == len(dataset.pixel_hashes) == 5
    assert describe_skipped(dataset.skipped, 10) == "skipped 5 of 10 (truncated 3, text 2)"


@pytest.mark.parametrize(("bad", "strict"), [(6, False), (10, False), (1, True)])
def test_too_many_are_a_data_error(folder, directory, bad, strict):
    spoil(folder, *(f"{index}.png" for index in range(bad)))
    for _ in range(2):                                              # the second time from the cache
        with pytest.raises(DataError, match=re.escape(f"skipped {bad} of 10 (truncated {(bad + 1) // 2}")) as caught:
            opened(folder, directory, strict=strict)
        assert caught.value.exit_code == 3
        assert "0.png is the first (truncated)" in caught.value.hint


def add_links(folder, *numbers):
    for number in numbers:
        (folder / f"link{number}.png").symlink_to(folder / "nowhere")


def test_what_is_not_even_opened_counts_with_the_pictures(folder, directory):
    spoil(folder, "1.png")
    add_links(folder, *range(8))
    for index in range(20):
        (folder / f"{index}.psd").touch()                           # what pictures were made from
    assert len(opened(folder, directory).skipped) == 29             # exactly half, these apart
    add_links(folder, 8, 9)
    with pytest.raises(DataError, match=r"skipped 11 of 20 \(broken link 10, truncated 1\)") as caught:
        opened(folder, directory)
    assert "link0.png is the first (broken link)" in caught.value.hint


def test_problems_that_are_no_reason_to_stop_are_told_once(folder, directory):
    spoil(folder, "1.png")
    add_links(folder, 0, 1)
    (folder / "0.txt").write_bytes(b"\x89PNG\0\xff\xff")
    found = find_pictures(folder)
    message = ("4 problems with the data (broken link 2, truncated 1, not text 1); "
               f"`diffuse data check {folder}` lists them")
    notices = [event for event in run(open_dataset(found, resolution=16, directory=directory))[0]
               if isinstance(event, Noticed)]
    assert notices == [Noticed(level="warning", message=message)]
    events, _ = run(decode_pictures(found, resolution=16, directory=directory))
    assert not any(isinstance(event, Noticed) for event in events)  # callers of `scan` list them


def test_a_problem_with_a_manifest_is_looked_up_by_its_name(folder, directory):
    (folder / "list.jsonl").write_text('{"file_name": "0.png", "text": {"de": "x"}}')
    events, _ = run(open_dataset(find_pictures(folder / "list.jsonl"), resolution=16, directory=directory))
    assert events[-1].message == ("1 problem with the data (caption is not text 1); "
                                  f"`diffuse data check {folder / 'list.jsonl'}` lists them")


def test_the_command_that_lists_the_problems_names_all_folders_as_a_shell_takes_them(folder, directory, tmp_path):
    spoil(folder, "1.png")
    other = tmp_path / "my pictures"
    shutil.copytree(folder, other)
    events, _ = run(open_dataset(find_pictures(folder, more_folders=[str(other)]), resolution=16, directory=directory))
    assert f"`diffuse data check {folder} '{other}'` lists them" in events[-1].message


def test_strict_is_satisfied_by_good_pictures(folder, directory):
    assert len(opened(folder, directory, strict=True).names) == 10


def test_a_scan_of_nothing_but_rubbish_still_reports(folder, directory):
    spoil(folder, *(f"{index}.png" for index in range(10)))
    _, dataset = run(decode_pictures(find_pictures(folder), resolution=16, directory=directory))
    assert dataset.images.shape == (0, 16, 16, 3)
    assert len(dataset.skipped) == 10


def test_pictures_that_are_gone_by_the_time_of_reading(folder, directory):
    found = find_pictures(folder)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"skipped 10 of 10 \(not there 10\)"):
        run(open_dataset(found, resolution=16, directory=directory))


def test_a_pipe_put_in_the_place_of_a_picture(folder, directory):
    found = find_pictures(folder)
    (folder / "0.png").unlink()
    os.mkfifo(folder / "0.png")
    _, dataset = run(open_dataset(found, resolution=16, directory=directory))
    assert dataset.skipped == (("0.png", "not a regular file"),)


def test_a_file_that_could_not_be_read_is_tried_again(folder, directory):
    found = find_pictures(folder)
    (folder / "0.png").rename(folder / "aside")
    assert len(run(open_dataset(found, resolution=16, directory=directory))[1].names) == 9
    (folder / "aside").rename(folder / "0.png")
    assert len(run(open_dataset(found, resolution=16, directory=directory))[1].names) == 10


# ── The user's folder and ours ──────────────────────────────────────────────────────────────────────────────────────


def listing(root):
    """Everything that can be seen of a folder from outside, apart from the time of the last look."""
    result = {}
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        times = status.st_mtime_ns, status.st_ctime_ns
        result[str(path)] = status.st_mode, status.st_size, times, status.st_ino, content
    return result


def test_the_folder_of_the_pictures_stays_as_it_was(folder, directory):
    spoil(folder, "1.png")
    (folder / "link").symlink_to(folder)
    (folder / "metadata.jsonl").write_text("".join(f'{{"file_name": "{index}.png"}}\n' for index in range(10)))
    before = listing(folder)
    opened(folder, directory)
    with pytest.raises(DataError):
        opened(folder, directory, strict=True)
    with pytest.raises(DataError):
        find_pictures(folder, captions="metadata")
    steps = decode_pictures(find_pictures(folder), resolution=8, directory=directory)
    next(steps)
    steps.close()
    clear_cache(directory)
    assert listing(folder) == before


def test_what_is_cached_is_for_its_owner_only(folder, directory):
    opened(folder, directory)
    for path in [directory, *directory.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0


def test_clear_frees_what_it_says(folder, directory):
    opened(folder, directory)
    opened(folder, directory, resolution=8)
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and path.suffix != ".lock")
    assert clear_cache(directory) == size > 10 * 3 * (16 * 16 + 8 * 8)
    assert list(directory.iterdir()) == []
    assert clear_cache(directory) == 0
    assert clear_cache(directory / "missing") == 0
    assert len(opened(folder, directory).names) == 10


def test_clear_leaves_what_is_being_written(folder, directory):
    opened(folder, directory)
    home = home_of(directory)
    with locks.lock(directory / f"{home.name}.lock", doing="tested"):
        clear_cache(directory)
        assert (home / "images.u8").exists()
    clear_cache(directory)
    assert not home.exists()


def test_links_and_loops(folder, directory, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (20, 20), "red").save(outside / "r.png")
    (folder / "linked").symlink_to(outside)
    (folder / "direct.png").symlink_to(outside / "r.png")
    (folder / "loop").symlink_to(folder)
    dataset = opened(folder, directory)
    assert dataset.names[-2:] == ("direct.png", "linked/r.png")
    assert any("with the same pixels as another" in warning for warning in dataset.warnings)
    assert Path(folder / "loop").is_symlink()

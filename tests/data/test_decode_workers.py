"""A decoder that crashes, hangs or eats memory loses one file; signals and a dying parent leave no process behind."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuse_cli.data import decode_workers, fitting, images, picture_files
from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.containers import Member
from diffuse_cli.data.decode_workers import decode_all, decode_one
from diffuse_cli.errors import DataError, OutOfMemoryError
from diffuse_cli.picture_size import Size

# A worker whose decoder does what the contents of the file say.
FAULTY = """
import os, signal, sys, time
from diffuse_cli.data import decode_server, images
honest = images.decode_rgb
def decode_rgb(data, *, target=None, rendering=None):
    if data.startswith(b"once"):
        path, data = data[4:].split(b"|", 1)
        if not os.path.exists(path): open(path, "w").close(); os.kill(os.getpid(), signal.SIGKILL)
    if data == b"segfault": os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"exit": os._exit(0)
    if data == b"hang": time.sleep(1000)
    if data.startswith(b"slow"): time.sleep(0.4); data = data[4:]
    if data == b"memory": bytearray(8 * 2**30)
    if data == b"print": os.write(1, b"noise"); os.write(2, b"noise"); print("noise", flush=True)
    return honest(data, target=target, rendering=rendering)
images.decode_rgb = decode_rgb
decode_server.serve()
"""


def write_pictures(folder, count):
    """Small pictures, each of another colour."""
    paths = [folder / f"{index:02d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.new("RGB", (20, 16), (index, 2 * index, 3 * index)).save(path)
    return paths


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path, 6)


@pytest.fixture
def started(monkeypatch):
    """The workers that were started; at the end none may be left."""
    processes, start = [], decode_workers._start
    monkeypatch.setattr(decode_workers, "_start", lambda: processes.append(start()) or processes[-1])
    yield processes
    assert all(process.poll() is not None for process in processes)


def colours(results):
    return [tuple(result.pixels[:3]) if not result.reason else result.reason for result in results]


def test_results_come_in_order_and_equal_those_of_one_process(pictures, started, monkeypatch):
    monkeypatch.setattr(decode_workers, "cores", lambda: 3)
    paths = pictures * 5                        # enough for three workers
    results = list(decode_all(paths, resolution=16))
    for path, result in zip(paths, results, strict=True):
        expected = fitting.fitted_pixels(images.open_rgb(path, target=16), 16)
        assert result.pixels == expected.tobytes()
        assert result.file_hash == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (result.reason, result.width, result.height, result.mode) == ("", 20, 16, "RGB")
    assert len(started) == 3


@pytest.mark.parametrize("position", [0, 3, 5])
@pytest.mark.parametrize(("fault", "reason"), [
    ("segfault", decode_workers.CRASHED), ("exit", decode_workers.CRASHED), ("hang", decode_workers.TOO_LONG),
    ("memory", decode_workers.TOO_MUCH)])
def test_only_the_file_at_fault_is_lost(pictures, started, monkeypatch, fault, reason, position):
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", FAULTY)
    monkeypatch.setattr(decode_workers, "SECONDS", 1.0)
    pictures[position].write_bytes(fault.encode())
    expected = [(index, 2 * index, 3 * index) for index in range(6)]
    expected[position] = reason
    assert colours(decode_all(pictures, resolution=8)) == expected


def test_a_folder_of_pictures_that_hang_is_given_up(pictures, started, monkeypatch):
    """Each would cost two attempts of SECONDS; a few are skipped, but thousands would take hours."""
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", FAULTY)
    monkeypatch.setattr(decode_workers, "SECONDS", 0.4)
    monkeypatch.setattr(decode_workers, "BUDGET", 1.0)
    monkeypatch.setattr(decode_workers, "cores", lambda: 1)
    for path in pictures:
        path.write_bytes(b"hang")
    with pytest.raises(DataError, match="have cost"):
        list(decode_all(pictures, resolution=8))
    assert 3 <= len(started) < 2 * len(pictures)
    assert all(process.poll() is not None for process in started)
    monkeypatch.setattr(decode_workers, "BUDGET", 60.0)
    assert colours(decode_all(pictures[:1], resolution=8)) == [decode_workers.TOO_LONG]


# ── Batches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def many(tmp_path):
    """Several full batches."""
    return write_pictures(tmp_path, 40)


def in_zip(paths):
    """The same files as members of a zip file."""
    archive = paths[0].with_name("all.zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in paths:
            file.write(path, path.name)
    return [Member(archive, path.name, path.stat().st_size, None) for path in paths]


@pytest.mark.parametrize("where", [list, in_zip], ids=["paths", "members"])
@pytest.mark.parametrize("cores", [1, 3])
def test_faults_in_the_middle_of_batches_cost_only_their_files(many, started, monkeypatch, where, cores):
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", FAULTY)
    monkeypatch.setattr(decode_workers, "SECONDS", 2.0)
    monkeypatch.setattr(decode_workers, "cores", lambda: cores)
    faults = {0: ("exit", decode_workers.CRASHED), 9: ("segfault", decode_workers.CRASHED),
              10: ("memory", decode_workers.TOO_MUCH), 12: ("text", "text"),
              15: ("memory", decode_workers.TOO_MUCH),
              16: ("hang", decode_workers.TOO_LONG), 39: ("segfault", decode_workers.CRASHED)}
    expected = [(index, 2 * index, 3 * index) for index in range(40)]
    for index, (fault, reason) in faults.items():
        many[index].write_bytes(fault.encode())
        expected[index] = reason
    assert colours(decode_all(where(many), resolution=8)) == expected


def test_a_batch_is_one_request(many, started, monkeypatch):
    requests, send = [], decode_workers._send
    monkeypatch.setattr(decode_workers, "_send", lambda process, files, request: (
        requests.append(len(files)), send(process, files, request)))
    monkeypatch.setattr(decode_workers, "cores", lambda: 1)
    assert len(list(decode_all(many, resolution=8))) == 40
    assert requests == [16, 16, 8]


def test_the_time_limit_is_that_of_a_picture(many, started, monkeypatch):
    """Four pictures of 0.4 s each in one batch do not add up to a second."""
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", FAULTY)
    monkeypatch.setattr(decode_workers, "SECONDS", 1.0)
    monkeypatch.setattr(decode_workers, "BATCH_SHARE", 1.0)
    monkeypatch.setattr(decode_workers, "cores", lambda: 1)
    for path in many[4:8]:
        path.write_bytes(b"slow" + path.read_bytes())
    assert colours(decode_all(many, resolution=8)) == [(index, 2 * index, 3 * index) for index in range(40)]
    assert len(started) == 1


def test_a_picture_too_slow_for_a_batch_is_decoded_alone(many, started, monkeypatch):
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", FAULTY)
    monkeypatch.setattr(decode_workers, "SECONDS", 10.0)
    monkeypatch.setattr(decode_workers, "BATCH_SHARE", 0.02)
    monkeypatch.setattr(decode_workers, "cores", lambda: 1)
    many[5].write_bytes(b"slow" + many[5].read_bytes())
    assert colours(decode_all(many, resolution=8)) == [(index, 2 * index, 3 * index) for index in range(40)]
    assert len(started) > 1


def test_large_members_travel_in_small_requests(many, started, monkeypatch):
    """So that no process holds more than a few of them at a time; one that is unreadable costs itself."""
    monkeypatch.setattr(decode_workers, "_BATCH_BYTES", 200)
    members = in_zip(many)
    members[7] = Member(members[7].container, "gone.png", 9, None)
    expected = [(index, 2 * index, 3 * index) for index in range(40)]
    expected[7] = "unreadable in its archive"
    assert colours(decode_all(members, resolution=8)) == expected
    size = max(len(request) for request in decode_workers._requests(members) if isinstance(request, list))
    assert size * many[0].stat().st_size <= 300


def test_a_reply_that_makes_no_sense_is_a_death(pictures, started, monkeypatch):
    """A decoder that an attacker has taken over can answer anything."""
    for reply in ("[]", "7", '[["", 1]]', '[["", "", 1, 1, "RGB", 0, [], ""]]', "{}", "[[1]] " + "x" * 99):
        monkeypatch.setattr(decode_workers, "BOOTSTRAP", f"""
import sys
print("ready", flush=True)
for line in sys.stdin.buffer: print({reply!r}, flush=True); break
""")
        assert colours(decode_all(pictures[:2], resolution=8)) == [decode_workers.CRASHED] * 2


# ── One at a time ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_ran_out_of_memory_is_replaced(pictures, started, monkeypatch):
    """It may keep what the failed picture has taken, and then the next ones would fail as well."""
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", FAULTY)
    monkeypatch.setattr(decode_workers, "cores", lambda: 1)
    pictures[1].write_bytes(b"memory")
    assert colours(decode_all(pictures, resolution=8))[:3] == [(0, 0, 0), decode_workers.TOO_MUCH, (2, 4, 6)]
    assert len(started) == 3                    # it was tried twice


def test_a_refused_picture_leaves_no_memory_behind(tmp_path):
    """Else a few large ones that are refused would make the limit too low for the good ones after them."""
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.bmp")
    data = (tmp_path / "a.bmp").read_bytes()[:-2_000_000]

    def kept():
        import tracemalloc
        tracemalloc.start()
        with contextlib.suppress(images.ImageRefused):
            images.decode_rgb(data)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size
    import gc
    gc.disable()
    try:
        assert kept() < 1_000_000
    finally:
        gc.enable()


def test_one_picture_is_decoded_as_those_of_a_data_set(pictures, started):
    for path in pictures[:2]:
        expected = fitting.fitted_pixels(images.open_rgb(path, target=8), 8)
        assert decode_one(path, resolution=8) == (Size(8, 8), expected.tobytes())
    pictures[0].write_text("<html>")
    with pytest.raises(images.ImageRefused) as caught:
        decode_one(pictures[0], resolution=8)
    assert caught.value.reason == "web page"


def test_the_rendering_reaches_the_workers(tmp_path, started):
    image = Image.new("RGBA", (16, 16), (255, 255, 255, 255))
    image.paste((0, 0, 0, 0), (0, 0, 8, 8))
    image.save(tmp_path / "a.png")
    result = next(decode_all([tmp_path / "a.png"], resolution=16, rendering=Rendering(background="#010203")))
    assert result.pixels[:3] == bytes([1, 2, 3])
    values = np.full((16, 16), 500, np.uint16)
    values[0, 0] = 1000
    Image.fromarray(values).save(tmp_path / "b.png")
    result = next(decode_all([tmp_path / "b.png"], resolution=16, rendering=Rendering(white_level=1000)))
    assert (set(result.pixels), result.peak) == ({128, 255}, 1000)


def test_a_worker_that_is_killed_once_loses_nothing(pictures, started, monkeypatch, tmp_path):
    """For example by a system that is short of memory."""
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", FAULTY)
    pictures[2].write_bytes(b"once" + os.fsencode(tmp_path / "killed") + b"|" + pictures[2].read_bytes())
    assert colours(decode_all(pictures, resolution=8)) == [(index, 2 * index, 3 * index) for index in range(6)]
    assert (tmp_path / "killed").exists()


def test_what_a_decoder_prints_goes_nowhere(pictures, started, monkeypatch, capfd):
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", FAULTY)
    pictures[1].write_bytes(b"print")
    assert colours(decode_all(pictures, resolution=8))[1:3] == ["text", (2, 4, 6)]
    assert capfd.readouterr() == ("", "")


def test_the_real_libtiff_is_silenced(tmp_path, started, capfd):
    path = tmp_path / "a.tif"
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[100:400] = b"\xff" * 300             # codes that are not in the table yet
    path.write_bytes(data)
    with pytest.raises(picture_files.ImageRefused):
        images.open_rgb(path)
    assert capfd.readouterr().err               # so that the next line proves something
    assert next(decode_all([path], resolution=8)).reason in ("damaged", "truncated")
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_read_is_refused_with_its_reason(tmp_path, started):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("text")
    results = list(decode_all([tmp_path / "pipe.png", tmp_path / "gone.png", tmp_path / "text.png"], resolution=8))
    assert [result.reason for result in results] == ["not a regular file", "not there", "text"]
    assert [bool(result.file_hash) for result in results] == [False, False, True]


def test_names_that_are_not_text(tmp_path, started):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n\x1b -x.png"))
    Image.new("RGB", (8, 8), "red").save(path, "PNG")
    assert colours(decode_all([path], resolution=8)) == [(255, 0, 0)]


def test_closing_early_ends_the_workers(pictures, started, monkeypatch):
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", FAULTY)
    pictures[2].write_bytes(b"hang")
    sound = [path for path in pictures if path is not pictures[2]]
    results = decode_all([*sound * 4, *pictures * 6], resolution=8)     # the first batch is sound, later ones hang
    next(results)
    results.close()                             # the fixture looks for what is left


def test_a_worker_that_cannot_start_is_not_the_fault_of_a_picture(pictures, started, monkeypatch):
    monkeypatch.setattr(decode_workers, "BOOTSTRAP", "raise SystemExit(1)")
    with pytest.raises(OutOfMemoryError, match="did not start"):
        list(decode_all(pictures, resolution=8))


def test_modules_in_the_current_directory_are_not_run(pictures, started, monkeypatch, tmp_path):
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("PIL", "json", "numpy"):
        (evil / f"{name}.py").write_text("open('PWNED', 'w')")
    monkeypatch.chdir(evil)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert colours(decode_all(pictures[:1], resolution=8)) == [(0, 0, 0)]
    assert not (evil / "PWNED").exists()


def test_workers_know_nothing_of_torch(pictures, monkeypatch):
    witness = pictures[0].with_name("modules")
    monkeypatch.setattr(decode_workers, "BOOTSTRAP",
                        f"{decode_workers.BOOTSTRAP}; open({str(witness)!r}, 'w').write(str(sys.modules))")
    worker = decode_workers._start()
    worker.communicate(timeout=60)              # the end of its input
    assert "diffuse_cli.data.images" in witness.read_text()
    assert "torch" not in witness.read_text()
    assert "'numpy'" not in witness.read_text()         # its import takes as long as hundreds of pictures


# ── In a user's script ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def script(tmp_path):
    """Start a script, without an `if __name__` guard, in a process group of its own; it may use PATHS and FAULTY."""
    processes = []

    def start(code, paths):
        file = tmp_path / "script.py"
        file.write_text(f"from pathlib import Path\nfrom diffuse_cli.data import decode_workers\nFAULTY = {FAULTY!r}\n"
                        f"PATHS = [Path(path) for path in {list(map(str, paths))!r}]\n" + textwrap.dedent(code))
        processes.append(subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                          text=True, start_new_session=True))
        return processes[-1]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def alive(pid):
    """Whether a process runs; one that has ended but that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SPY = """
start = decode_workers._start
def spy():
    process = start()
    print(process.pid, flush=True)
    return process
decode_workers._start = spy
"""


def test_a_script_needs_no_guard(script, pictures):
    code = "print(len([r for r in decode_workers.decode_all(PATHS, resolution=8) if not r.reason]))"
    process = script(code, pictures)
    assert process.communicate(timeout=60) == ("6\n", "")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_ctrl_c_ends_a_hanging_worker_quietly(script, pictures):
    pictures[0].write_bytes(b"hang")
    process = script(SPY + """
try:
    decode_workers.BOOTSTRAP = FAULTY
    list(decode_workers.decode_all(PATHS, resolution=8))
except KeyboardInterrupt:
    print("interrupted")
""", pictures)
    worker = int(process.stdout.readline())
    assert alive(worker)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("interrupted\n", "", 0)
    assert not alive(worker)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_a_killed_parent_leaves_no_worker(script, pictures):
    process = script(SPY + """
import time
results = decode_workers.decode_all(PATHS, resolution=8)
next(results)
time.sleep(1000)
""", pictures)
    worker = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not alive(worker))

"""Every test has a home of its own: nothing reaches the user's cache. What is slow to make is made once."""

import os
import random
import shutil
import signal

import counts
import pytest

for _name, _usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, _name):                      # ignored in the background and by nohup, and so by what tests start
        signal.signal(getattr(signal, _name), _usual)
os.environ.setdefault("OMP_NUM_THREADS", "1")       # two test processes on two cores; and small tensors gain nothing
os.environ.setdefault("GOMP_SPINCOUNT", "1000")     # where a test has two threads, and another test the other core
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)     # else every process that a test starts compiles all modules anew


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    directory = tmp_path_factory.mktemp("home")
    directory.chmod(0o700)
    monkeypatch.setenv("DIFFUSE_HOME", str(directory))
    monkeypatch.delenv("DIFFUSE_MODEL", raising=False)
    return directory


@pytest.fixture
def command(capsys):
    """Run a command line in this process: (exit code, stdout, stderr)."""
    from diffuse_cli.cli import app
    from diffuse_cli.cli.terminal import view

    def run(*arguments):
        view.start()
        code = app._run([*map(str, arguments)])
        return code, *capsys.readouterr()

    yield run
    view.start()


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """A folder of 24 captioned pictures; tests only read it."""
    import tiny

    return tiny.draw_squares(tmp_path_factory.mktemp("pictures") / "squares")


@pytest.fixture(scope="session")
def trained(squares, tmp_path_factory):
    """(run directory, events) of a finished training of `tiny.RECIPE` on `squares`; tests only read it."""
    import tiny

    home = tmp_path_factory.mktemp("trained")
    with tiny.at_home(home):
        events = tiny.train(squares)
    return tiny.run_directory(home), events


@pytest.fixture(scope="session")
def unconditional(squares, trained, tmp_path_factory):
    """As `trained`, without captions."""
    import tiny

    home = tmp_path_factory.mktemp("unconditional")
    shutil.copytree(trained[0].parent.parent / "images", home / "images")
    with tiny.at_home(home):
        events = tiny.train(squares, tiny.UNCONDITIONAL)
    return tiny.run_directory(home), events


@pytest.fixture(scope="session")
def cascade(trained, squares, tmp_path_factory):
    """A home with the models `tiny` and `tiny-x2`, its upscaler; tests only read it."""
    from cascade import train

    return train(trained[0], squares, tmp_path_factory.mktemp("cascade") / "home")


@pytest.fixture
def decoded(trained, home):
    """The home of this test has the pictures of `squares` decoded already."""
    shutil.copytree(trained[0].parent.parent / "images", home / "images")


@pytest.fixture
def counted(record_property):
    """Called with a promise, the method that tried to break it, and how often it did; summed by `counts`."""
    return lambda promise, method, count: record_property(counts.PROPERTY, (promise, method, count))


@pytest.fixture
def seed():
    """A new random seed for every test, printed when the test fails. DIFFUSE_TEST_SEED repeats one."""
    chosen = int(os.environ.get("DIFFUSE_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"DIFFUSE_TEST_SEED={chosen}")
    return chosen


def pytest_terminal_summary(terminalreporter):
    counts.tell(terminalreporter)

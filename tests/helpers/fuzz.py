"""Looks for inputs that a door neither accepts nor refuses, guided by the coverage of our code. Not a test itself.

    pip install atheris
    python tests/helpers/fuzz.py DOOR SECONDS         findings go to tests/corpus/DOOR, which the tests replay
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["diffuse_cli"]):
    import doors


def main(door: str, seconds: str) -> None:
    inputs, findings = Path(tempfile.mkdtemp(prefix=f"fuzz-{door}-")), doors.CORPUS / door
    for number, data in enumerate([*doors.sound(door), *[path.read_bytes() for path in doors.corpus(door)]]):
        (inputs / str(number)).write_bytes(data)
    findings.mkdir(parents=True, exist_ok=True)
    options = (f"-max_total_time={seconds}", "-max_len=8192", "-timeout=20", "-rss_limit_mb=3000",
               f"-artifact_prefix={findings}/", "-print_final_stats=1")
    atheris.Setup([sys.argv[0], str(inputs), *options], lambda data: doors.is_safe(door, data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

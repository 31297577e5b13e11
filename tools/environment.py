"""Makes this repository's Python environments, with progress: `python tools/environment.py --help`; `make` runs it.

Standard library only, and it starts on an old Python 3 too, so that it can refuse the wrong one in a sentence. Index,
proxy and certificates are pip's own settings; wheels that `make wheels` has kept are enough by themselves.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WHEELS = REPOSITORY / ".wheels"
PROGRESS_SECONDS = 10.0
# "Processing" is a wheel that lies in a folder; "Installing build dependencies" comes before all of them.
PIP_STEP = re.compile(
    r"\s*(Collecting|Processing|Downloading|Building|Installing collected) (\S+( \([\d.]+ [kMG]B\))?)"
)

PIP_FAILED = (
    "pip failed; what it printed last is above. Index and proxy are pip's own settings (PIP_INDEX_URL, HTTPS_PROXY); "
    "without a network, copy .wheels here from a checkout where make wheels ran. Then run the same command again."
)


def refusal():
    """Return why this Python cannot be used, or None."""
    metadata = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    lowest, too_new = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', metadata).groups()
    if (3, int(lowest)) <= sys.version_info[:2] < (3, int(too_new)):
        return None
    return (
        f"cdi_dagster needs Python 3.{lowest} to 3.{int(too_new) - 1}, and {sys.executable} is "
        f"{'.'.join(map(str, sys.version_info[:3]))}. Install one (Debian: apt-get install python3.{lowest} "
        f"python3.{lowest}-venv), or name it: make PYTHON=/path/to/python3.{lowest}"
    )


def inputs():
    """Return a digest of all that the packages depend on: the lists, and the Python that they are for."""
    lists = [(REPOSITORY / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"".join([*lists, repr(sys.version_info[:2]).encode()])).hexdigest()


def wheels_are_complete():
    """Return whether `make wheels` has kept everything for these lists and this Python."""
    stamp = WHEELS / ".complete"
    return stamp.is_file() and stamp.read_text() == inputs()


def pip(python, arguments, usual):
    """Run pip and print how far it is, on a terminal in one line; end with pip's own last lines if it fails."""
    began = time.monotonic()
    lines, doing, packages = deque(maxlen=20), "starts", 0
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments, "-c", "constraints.txt"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )

    def read():
        nonlocal doing, packages
        for line in process.stdout:
            lines.append(line)
            found = PIP_STEP.match(line)
            if found:
                doing = "installs them all" if found[1] == "Installing collected" else f"{found[1].lower()} {found[2]}"
                packages += found[1] in ("Collecting", "Processing")

    reader = threading.Thread(target=read)
    reader.start()
    on_terminal = sys.stdout.isatty()
    while reader.is_alive():
        reader.join(1 if on_terminal else PROGRESS_SECONDS)
        text = f"          {packages} packages, {time.monotonic() - began:.0f} s (usually {usual}): {doing}"[:100]
        print(f"\r\033[K{text}" if on_terminal else text, end="" if on_terminal else "\n", flush=True)
    if on_terminal:
        print("\r\033[K", end="")
    if process.wait():
        sys.exit("".join([*lines, PIP_FAILED]))


def make(folder, extras):
    """Make a virtual environment with everything pinned, and a stamp once it is complete."""
    began = time.monotonic()
    python = folder / "bin" / "python"
    offline = wheels_are_complete()
    print(f"Setting up {folder}, once (two to ten minutes with downloads of 800 MB, one with make wheels):")
    print(f"  1 of 3  virtual environment of Python {sys.version.split()[0]}", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False).returncode:
        sys.exit(f"{sys.executable} made no virtual environment; why is above. Run the same command again once fixed.")
    print(f"  2 of 3  packages, from {'.wheels, without a network' if offline else 'the package index'}", flush=True)
    source = ["--no-index", "--find-links", str(WHEELS)] if offline else []
    pip(python, ["install", *source, "-e", f".[{extras}]"], "one to eight minutes")
    print("  3 of 3  Java classes for Spark's start (half a minute)", flush=True)
    subprocess.run([str(python), "-m", "cdi_dagster.local_spark.java"], cwd=REPOSITORY, check=False)
    subprocess.run([str(python), "-m", "cdi_dagster.local_spark.class_archive"], cwd=REPOSITORY, check=False)
    (folder / ".installed").touch()
    print(f"Set up in {time.monotonic() - began:.0f} s")


def keep_wheels(extras):
    """Keep a wheel of every package in `.wheels`, with which an environment can be made offline."""
    print("Fetching wheels into .wheels (800 MB; two to ten minutes)", flush=True)
    (WHEELS / ".complete").unlink(missing_ok=True)
    # The build backend too, for the editable install of this repository.
    pip(sys.executable, ["wheel", "-w", str(WHEELS), "setuptools>=77", f".[{extras}]"], "two to ten minutes")
    for own in WHEELS.glob("cdi_dagster-*.whl"):
        own.unlink()
    (WHEELS / ".complete").write_text(inputs())
    print(f"{len(list(WHEELS.glob('*.whl')))} wheels are in .wheels: make now sets up without a network")


def main():
    """Make an environment or fill the cache of wheels."""
    reason = refusal()
    if reason:
        sys.exit(reason)
    parser = argparse.ArgumentParser(description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make a virtual environment")
    making.add_argument("folder", type=Path)
    making.add_argument("extras", help="extras of pyproject.toml, separated by commas")
    commands.add_parser("wheels", help="keep wheels for setting up offline").add_argument("extras")
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.folder, arguments.extras)
    else:
        keep_wheels(arguments.extras)


if __name__ == "__main__":
    main()

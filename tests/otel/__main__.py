"""Install what exporters.py needs, under .venv/otel by exact version, and run it.

Usage: `make otel`, with ARGS for pytest. Where Node is missing or old, its part is skipped.
"""

import os
import re
import shutil
import subprocess
import sys

from tests.otel.exporters import HERE, HOME, ROOT

OLDEST_NODE = 18  # what the Vercel AI SDK 6 asks for
# npm installs beside these, and knows by them what it has installed.
OF_NODE = ("package.json", "package-lock.json", "vercel.mjs")


def main() -> int:
    """Install and run; the exit code is pytest's."""
    run(ROOT / ".ci" / "venv", HOME, HERE / "requirements.lock.txt")
    if has_node():
        install_for_node()
    else:
        print(f"skipped: the Vercel AI SDK (needs Node {OLDEST_NODE} and npm)")
    environ = {**os.environ, "TRACEWAY_OTEL": str(HOME)}
    command = [sys.executable, "-m", "pytest", HERE / "exporters.py", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=environ).returncode


def has_node() -> bool:
    """Tell whether there is a Node that is new enough."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    return int((re.match(r"v(\d+)", version) or "00")[1]) >= OLDEST_NODE


def install_for_node() -> None:
    """Install the packages of package-lock.json, unless they are."""
    home = HOME / "node"
    home.mkdir(exist_ok=True)
    lock = home / "package-lock.json"
    is_new = not lock.is_file() or lock.read_text() != (HERE / "package-lock.json").read_text()
    for name in OF_NODE:
        shutil.copy(HERE / name, home / name)
    if is_new or not (home / "node_modules").is_dir():
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        run("npm", "ci", *options, "--prefix", home)


def run(*command: object) -> None:
    """Run a command of the installation; its failure is ours."""
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())

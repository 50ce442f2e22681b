"""The Python SDK, against a small server of the write API's contract. Puts it on the path."""

import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "sdk" / "python" / "src"
sys.path.insert(0, str(SOURCE))

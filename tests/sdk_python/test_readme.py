"""Every example of the SDK's README, run as a program of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sdk_python.collector import Collector

SDK = Path(__file__).parents[2] / "sdk" / "python"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (SDK / "README.md").read_text(), re.M | re.S)


def test_the_readme_has_examples() -> None:
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_example_runs_and_what_it_writes_arrives(example: str, collector: Collector) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        env={
            **os.environ,
            "PYTHONPATH": str(SDK / "src"),
            "TRACEWAY_URL": collector.url,
            "OPENAI_API_KEY": "sk-test",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    calls = [headers for _, headers in collector.other]
    assert len(calls) == example.count("create(")
    traces = {trace["id"] for trace in collector.of("trace")}
    assert traces
    assert traces == {end["id"] for end in collector.of("end")}
    assert {headers["x-traceway-trace-id"] for headers in calls} <= traces
    assert {span["trace_id"] for span in collector.of("span")} <= traces

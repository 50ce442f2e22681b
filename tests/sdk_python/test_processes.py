"""Forks, ends and signals: each process sends what is its own, once."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.sdk_python.collector import Collector

SOURCE = Path(__file__).parents[2] / "sdk" / "python" / "src"


def run(collector: Collector, program: str) -> str:
    """Run a program with `tw` in it; give what it said."""
    lines = "import os, sys\nfrom traceway import *\ntw = Traceway()\n" + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", lines],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "TRACEWAY_URL": collector.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def names(collector: Collector) -> list[str]:
    return sorted(span["name"] for span in collector.of("span"))


def test_the_end_of_a_program_sends_what_is_left(collector: Collector) -> None:
    said = run(collector, "with tw.trace('t'): tw.span('s').end()")
    assert [item["type"] for item in collector.taken] == ["trace", "span", "end"]
    assert said == ""


def test_a_program_that_fails_sends_how(collector: Collector) -> None:
    run(
        collector,
        """
        sys.excepthook = lambda *error: os.write(1, b"failed")
        import atexit
        def fail():
            with tw.trace('t'): raise ValueError("no")
        try: fail()
        except ValueError: pass
        """,
    )
    assert collector.spans()["t"]["error"] == "ValueError: no"


def test_a_server_that_is_gone_holds_up_the_end_only_so_long(collector: Collector) -> None:
    said = run(
        collector,
        """
        tw = Traceway("http://127.0.0.1:1", exit_timeout_s=0.2)
        tw.trace("t").end()
        """,
    )
    assert "2 items dropped: closed before they could be sent" in said
    assert "0 items" not in said


def test_the_child_of_a_fork_sends_its_own_and_nothing_of_its_parents(
    collector: Collector,
) -> None:
    run(
        collector,
        """
        import warnings; warnings.simplefilter("ignore")
        tw = Traceway(flush_interval_s=60)
        trace = tw.trace("t")
        trace.span("before").end()
        tw.flush()
        trace.span("queued").end()
        child = os.fork()
        if child == 0:
            trace.span("child").end()
            assert tw.flush()
            assert (tw.dropped, tw.pending) == (0, 0)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        trace.span("parent").end()
        """,
    )
    assert names(collector) == ["before", "child", "parent", "queued"]
    assert len({span["id"] for span in collector.of("span")}) == 4


def test_children_of_a_fork_make_ids_of_their_own(collector: Collector) -> None:
    run(
        collector,
        """
        import warnings; warnings.simplefilter("ignore")
        trace = tw.trace("t")
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                trace.span("s").end()
                tw.flush()
                os._exit(0)
            children.append(child)
        for child in children: os.waitpid(child, 0)
        """,
    )
    assert len({span["id"] for span in collector.of("span")}) == 4


def test_a_fork_while_other_threads_write_leaves_the_child_no_lock_that_is_held(
    collector: Collector,
) -> None:
    run(
        collector,
        """
        import threading, warnings; warnings.simplefilter("ignore")
        stop = threading.Event()
        def write():
            trace = tw.trace("t")
            while not stop.wait(0.0001): trace.span("parent").end()
        threads = [threading.Thread(target=write, daemon=True) for _ in range(3)]
        for thread in threads: thread.start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                tw.span("child").end()
                os._exit(0 if tw.flush() else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads: thread.join()
        """,
    )
    assert names(collector).count("child") == 10


def test_the_thread_that_sends_imports_nothing_whose_lock_a_fork_would_leave_held(
    collector: Collector,
) -> None:
    said = run(
        collector,
        """
        import threading
        class Imports:
            def find_spec(self, name, *_):
                if threading.current_thread() is not threading.main_thread():
                    os.write(1, f"{name} ".encode())
        sys.meta_path.insert(0, Imports())
        tw.span("s", input="x" * 50_000).end()
        assert tw.flush()
        secure = Traceway(tw.url.replace("http:", "https:"), exit_timeout_s=0)
        secure.span("s").end()
        assert not secure.flush(0.2)
        os._exit(0)
        """,
    )
    assert said == ""


def test_the_processes_of_multiprocessing_send_what_is_left_at_their_end(
    collector: Collector,
) -> None:
    run(
        collector,
        """
        import multiprocessing, warnings; warnings.simplefilter("ignore")
        def work(n):
            tw.span(f"s{n}").end()
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=work, args=(n,)) for n in range(3)]
        for process in processes: process.start()
        for process in processes: process.join()
        """,
    )
    assert names(collector) == ["s0", "s1", "s2"]


def test_a_signal_handler_may_trace_wherever_it_interrupts(collector: Collector) -> None:
    said = run(
        collector,
        """
        import signal
        handled = 0
        def handle(*_):
            global handled
            handled += 1
            tw.span("signal").end()
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        trace = tw.trace("t")
        for _ in range(20_000): trace.span("s").end()
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert tw.flush(50)
        assert tw.dropped == 0
        print(handled)
        """,
    )
    assert names(collector).count("signal") == int(said)
    assert int(said) > 10


def test_nothing_is_imported_that_the_application_did_not_ask_for(collector: Collector) -> None:
    said = run(collector, "print([m for m in ('openai', 'httpx', 'asyncio') if m in sys.modules])")
    assert said == "[]\n"

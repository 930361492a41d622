"""How commands end, and the files that they write."""
import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ref import command
from tests import ROOT
from tests.bench.test_digits_files import write_idx

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="there is no /dev/full, and no limit of a file's size")


def run(code, *words, **options):
    """What another process says that begins and ends as a command does, with this between."""
    code = f"from ref import command\ncommand.begin('x')\n{textwrap.dedent(code)}\ncommand.end(0)"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"} | options
    return subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, timeout=120, **options)


@pytest.mark.parametrize("code, status, said", [
    ("raise KeyboardInterrupt", 130, "python -m x: stopped\n"),
    ("import no_such_module", 2, "python -m x: ModuleNotFoundError: No module named 'no_such_module'\n"),
    ("open('/no/such/file')", 2, "python -m x: FileNotFoundError: /no/such/file: no such file or directory\n"),
    ("raise MemoryError", 2, "python -m x: MemoryError\n"),
    ("raise BrokenPipeError", 2, ""),
    ("import sys; sys.exit(1)", 1, ""),
    ("", 0, ""),
])
def test_a_command_ends_in_a_line(code, status, said):
    done = run(code)
    assert (done.returncode, done.stderr) == (status, said)


def test_a_fault_of_the_command_is_no_verdict():
    done = run("print('before'); 1 / 0")
    assert done.returncode == 2 and done.stdout == "before\n" and "ZeroDivisionError: division by zero" in done.stderr
    assert "fault" in done.stderr.splitlines()[-1]


@LINUX
def test_what_could_not_be_printed_is_no_verdict():
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = run("print('right')", stdout=full)
    assert done.returncode == 2 and done.stderr == f"python -m x: OSError: [Errno {errno.ENOSPC}] " \
                                                   "No space left on device\n"


def test_signs_that_the_terminal_lacks_are_no_error():
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run("import sys; print('\\u2192', sys.argv[1])", "f\u00fcr", env=environment)
    assert done.returncode == 0 and done.stdout == "\\u2192 f\u00fcr\n"


COMMANDS = ["ref", "kernels", "bench", "bench.report", "bench.studies", "bench.studies.digits"]


@POSIX
@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_a_command_is_imported_is_a_line(name):
    words = [sys.executable, "-X", "importtime", "-m", name]
    begun = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
    with begun.stderr:
        while not begun.stderr.readline().endswith(" numpy._core\n"):
            pass
        begun.send_signal(signal.SIGINT)
        said = [line for line in begun.stderr if not line.startswith("import time:")]
    assert said == [f"python -m {name}: stopped\n"] and begun.wait(timeout=60) == 130


WORK = "import time\ndef step(x0, t, eps, abar):\n    print('go', flush=True)\n    time.sleep(60)"


@POSIX
@pytest.mark.parametrize("words", [
    ["kernels"], ["kernels", "check", "q_sample", "--against", "{}/mine.py:step"],
    ["bench.studies.digits", "--backend", "ref", "--data", "{}", "--out", "{}"],
])
def test_ctrl_c_while_a_command_works_is_a_line(words, tmp_path):
    (tmp_path / "mine.py").write_text(WORK, "utf-8")
    write_idx(tmp_path)
    words = [sys.executable, "-m", *(word.format(tmp_path) for word in words)]
    begun = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    with begun.stdout, begun.stderr:
        assert begun.stdout.readline()
        begun.send_signal(signal.SIGINT)
        said = begun.stderr.read()
    assert begun.wait(timeout=60) == 130 and len(said.splitlines()) == 1 and "stopped" in said


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_written_completely_or_left_as_it_was(tmp_path, monkeypatch):
    path, link = tmp_path / "a.csv", tmp_path / "link"
    command.write(path, b"old")
    link.symlink_to(path)
    command.write(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            command.write(path, b"newer")
    with pytest.raises(OSError, match="nowhere"):
        command.write(tmp_path / "nowhere" / "b.csv", b"new")
    assert path.read_bytes() == b"new" and sorted(tmp_path.iterdir()) == [path, link]
    assert command.why_unwritable(path) == "" == command.why_unwritable(tmp_path / "b.csv")


def test_what_cannot_be_written_is_known_before(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "old").touch(mode=0o444)
    os.symlink("loop", tmp_path / "loop")
    for path in ("", "file/x", "nowhere/x", "old", "loop", "x" * 300, "a\0b"):
        assert command.why_unwritable(f"{tmp_path}/{path}"), path
    for path in (os.devnull, "/proc/x"):
        assert sys.platform != "linux" or command.why_unwritable(path), path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop", "old"]


@LINUX
def test_a_full_disk_is_known_before(tmp_path):
    code = """
    import resource, sys
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    for size in (5000, 5001, command.ROOM):
        print(command.why_unwritable(sys.argv[1], size))
    """
    fits, *full = run(code, str(tmp_path / "x")).stdout.splitlines()
    assert fits == "" and len(full) == 2 and all(str(tmp_path) in line for line in full)
    assert not list(tmp_path.iterdir())

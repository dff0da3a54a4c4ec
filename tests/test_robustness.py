"""Whatever the machine or the reader does: one plain line, what was done is kept, no traceback."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import ROOT, SCRIPT, run_script

QUICK = ("--quick", "--models", "embedded")
MLP = (*QUICK, "--only", "mlp")
POSIX = os.name == "posix"
posix_only = pytest.mark.skipif(not POSIX, reason="needs POSIX")


def layout(folder, copy=False):
    """The checkout's files in a folder, linked (or copied)."""
    shutil.copy(SCRIPT, folder / SCRIPT.name)
    raw = folder / "data/MNIST/raw"
    raw.mkdir(parents=True)
    place = shutil.copy if copy else lambda a, b: b.symlink_to(a)
    for path in (ROOT / "data/MNIST/raw").glob("*.gz"):
        place(path, raw / path.name)
    for name in ("letter-recognition.csv", "pride-and-prejudice.txt"):
        place(ROOT / "data" / name, folder / "data" / name)
    models = folder / "data/models"
    if copy:
        shutil.copytree(ROOT / "data/models", models)
    else:
        models.symlink_to(ROOT / "data/models")
    return folder / SCRIPT.name


@contextlib.contextmanager
def silent_server():
    """Accepts, and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []
    threading.Thread(
        target=lambda: [kept.append(listener.accept()) for _ in range(99)], daemon=True
    ).start()
    yield listener.getsockname()[1]
    listener.close()


def damaged(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one byte":
        path.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])


@pytest.mark.parametrize("how", ["missing", "silent mirror", "truncated", "empty", "one byte"])
def test_a_bad_archive_is_named_and_the_other_demos_run(tmp_path, how):
    script = layout(tmp_path)
    damaged(tmp_path / "data/MNIST/raw/train-labels-idx1-ubyte.gz", how)
    with silent_server() as port:
        proxy = f"http://127.0.0.1:{port if how == 'silent mirror' else 9}"
        done = run_script(
            *QUICK,
            "--only",
            "mlp",
            "cnn",
            script=script,
            env={"http_proxy": proxy, "https_proxy": proxy},
        )
    text = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "train-labels-idx1-ubyte.gz in data/MNIST/raw: missing or damaged" in text
    assert "restore it: git checkout data/MNIST/raw" in text
    assert "mlp: ok" in text and "cnn: failed" in text
    assert "Traceback" not in done.stdout + done.stderr


@posix_only
def test_it_runs_from_a_read_only_checkout_and_says_why_there_are_no_pictures(tmp_path):
    script = layout(tmp_path, copy=True)
    drop = []
    if os.getuid() == 0:  # the superuser writes everywhere, unless that right is given up
        if not shutil.which("setpriv"):
            pytest.skip("run as the superuser, and there is no setpriv")
        drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    everything = [tmp_path, *tmp_path.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [*drop, sys.executable, str(script), *MLP, "cnn"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    for path in everything:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stdout + done.stderr
    text = " ".join(done.stdout.split())
    assert "No pictures: cannot write to" in text and "Permission denied" in text


@pytest.mark.parametrize(
    "arguments, named",
    [
        (("--json", "{file}/report.json"), "cannot write to"),
        (("--json", "{folder}"), "is no regular file"),
        (("--json", os.devnull), "is no regular file"),
        (("--figures", "{file}"), "cannot write to"),
        (("--only", "gan"), "gan"),
        (("--fast",), "--fast"),
        (("--seed", "many"), "many"),
        (("--seed", str(2**70)), "seed"),
        (("--device", "tpu"), "tpu"),
    ],
)
def test_a_wrong_argument_ends_at_once_with_one_line(tmp_path, arguments, named):
    (tmp_path / "file").write_text("mine")
    names = {"file": tmp_path / "file", "folder": tmp_path}
    done = run_script(*MLP, *(argument.format(**names) for argument in arguments))
    assert done.returncode == 2
    assert named in done.stderr.splitlines()[-1]
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named_with_those_that_are():
    done = run_script("--device", "cuda")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("device cuda: not present; this machine has: cpu")


@posix_only
def test_a_full_disk_leaves_no_half_written_file_and_is_named(tmp_path):
    program = (
        "import resource, runpy, sys, torchvision;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(SCRIPT), *MLP, "--json", str(tmp_path / "report.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "report.json could not be written" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_runs_at_once_from_a_path_with_spaces_and_accents_both_finish(tmp_path):
    folder = tmp_path / "été à la mer"
    folder.mkdir()
    script = layout(folder)
    running = [
        subprocess.Popen(
            [sys.executable, str(script), *QUICK, "--only", "mlp", "cnn"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    for process in running:
        process.communicate()
        assert process.returncode == 0
    assert len(list((folder / "data/figures").iterdir())) == 6


@posix_only
def test_it_runs_through_a_symbolic_link(tmp_path):
    (tmp_path / "lecture.py").symlink_to(SCRIPT)
    assert run_script(*MLP, script=tmp_path / "lecture.py", cwd=tmp_path).returncode == 0


@posix_only
def test_a_pipe_that_closes_early_ends_the_run_in_silence():
    command = f'"{sys.executable}" "{SCRIPT}" {" ".join(MLP)} | head -3'
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_unicode_gets_plain_letters(encoding):
    done = run_script(*MLP, env={"PYTHONIOENCODING": encoding, "TERM": "dumb", "NO_COLOR": "1"})
    assert done.returncode == 0 and done.stderr == ""
    assert "MLP: loss " in done.stdout and "▁" not in done.stdout
    assert done.stdout.isascii()


def test_a_narrow_terminal_gets_narrow_lines():
    done = run_script(*MLP, env={"COLUMNS": "40"})
    wide = [line for line in done.stdout.splitlines() if len(line) > 40]
    assert not [line for line in wide if len(line.split()) > 1]


def test_a_file_gets_no_escape_codes_and_no_progress_bars(quick):
    assert not set("\x1b\r") & set(quick.stdout + quick.stderr)


@posix_only
@pytest.mark.parametrize(
    "demo, header, number, status",
    [
        ("mlp", "1 and 2", signal.SIGINT, 130),
        ("cnn", "3. Conv", signal.SIGINT, 130),
        ("lstm", "4. Recurrent", signal.SIGINT, 130),
        ("gpt2", "5. Transformers", signal.SIGINT, 130),
        ("bert", "5. Transformers", signal.SIGINT, 130),
        ("lstm", "4. Recurrent", signal.SIGTERM, 143),
    ],
)
def test_an_interrupted_run_reports_what_was_done(tmp_path, number, status, demo, header):
    running = subprocess.Popen(
        [
            sys.executable,
            str(SCRIPT),
            "--only",
            demo,
            "--models",
            "embedded",
            "--json",
            str(tmp_path / "report.json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        # Ctrl-C is heard, even where these tests run in the background
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in running.stdout:
        if line.startswith(header):
            break
    time.sleep(0.5)
    running.send_signal(number)
    printed, complaint = running.communicate(timeout=60)
    assert running.returncode == status
    assert "Interrupted. Done so far: nothing" in printed
    assert "Traceback" not in printed + complaint
    demos = {d["name"]: d for d in json.loads((tmp_path / "report.json").read_text())["demos"]}
    assert (demos[demo]["status"], demos[demo]["error"]) == ("failed", "interrupted")
    assert {d["status"] for name, d in demos.items() if name != demo} == {"skipped"}


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    done = run_script(env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("torch is missing") and "torch 2.9" in line
    assert "python -m pip install -r requirements.txt" in line


def test_packages_that_do_not_fit_each_other_end_in_one_line(tmp_path):
    (tmp_path / "torchvision").mkdir()
    text = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "torchvision/__init__.py").write_text(text)
    done = run_script(env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("operator torchvision::nms does not exist; needed: Python 3.10")


def test_an_old_package_is_named_with_the_version_that_is_needed(tmp_path):
    (tmp_path / "transformers-4.57.1.dist-info").mkdir()
    metadata = tmp_path / "transformers-4.57.1.dist-info/METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.57.1\n")
    done = run_script(env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("transformers 4.57.1 is too old; needed: Python 3.10")
    assert "transformers 5.0 or newer" in line and "pip install -r requirements.txt" in line


@pytest.mark.parametrize("python", ["python3.8", "python3.9"])
def test_an_old_python_is_told_which_one_is_needed(python):
    if not shutil.which(python) or subprocess.call([python, "-c", ""], stderr=subprocess.DEVNULL):
        pytest.skip(f"there is no {python}")
    done = subprocess.run([python, "-S", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "needed: Python 3.10" in line


def test_one_thread_is_enough():
    assert run_script(*MLP, env={"OMP_NUM_THREADS": "1"}).returncode == 0


@pytest.fixture
def two_demos(lecture, monkeypatch):
    """The real main() with demos of our own: what happens is returned with the report."""

    def run(first, tmp_path):
        def fine(lesson):
            "A demo that works."
            lesson.check("9.9 all is well", 1, 1)

        first.__doc__ = "A demo that fails."
        monkeypatch.setattr(lecture, "DEMOS", {"one": first, "two": fine})
        status = lecture.main(["--json", str(tmp_path / "r.json"), "--models", "embedded"])
        demos = json.loads((tmp_path / "r.json").read_text())["demos"]
        return status, [(demo["status"], demo["error"]) for demo in demos]

    return run


def test_a_loss_that_is_no_number_fails_its_demo_with_a_sentence(lecture, two_demos, tmp_path):
    def diverges(lesson):
        x = torch.full((4, 2), float("nan"))
        lecture.train(torch.nn.Linear(2, 2), [(x, torch.zeros(4).long())], 1, 0.1, "this model")

    status, demos = two_demos(diverges, tmp_path)
    assert status == 1
    assert demos[0][0] == "failed" and "the loss of this model is no longer a number" in demos[0][1]
    assert demos[1] == ("ok", None)


def test_a_claim_that_does_not_hold_fails_its_demo_and_is_named(two_demos, tmp_path):
    status, demos = two_demos(lambda lesson: lesson.check("3.6 a claim", 1, 2, ">"), tmp_path)
    assert status == 1
    assert demos == [("failed", "not shown: 3.6"), ("ok", None)]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        NotImplementedError("no such operation"),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_a_device_that_cannot_do_it_is_replaced_by_the_cpu(
    lecture, lesson, monkeypatch, capsys, error
):
    def demanding(lesson):
        lesson.check(f"9.9 on {lesson.device}", 1, 1)
        if lesson.device.type != "cpu":
            raise error

    monkeypatch.setitem(lecture.DEMOS, "mlp", demanding)
    lesson.device = torch.device("meta")
    lecture.run_demo(lesson)
    assert lesson.status == "ok"
    assert [check["claim"] for check in lesson.checks] == ["on cpu"]
    printed = capsys.readouterr().out
    assert f"{error}\n  meta cannot do this; once more, on the CPU" in printed
    assert printed.count("mlp: ok") == 1 and "mlp: failed" not in printed


def test_on_the_cpu_a_lack_of_memory_fails_the_demo_and_is_said(two_demos, tmp_path):
    def demanding(lesson):
        raise torch.OutOfMemoryError("no memory left")

    status, demos = two_demos(demanding, tmp_path)
    assert status == 1 and "no memory left" in demos[0][1]


@pytest.mark.parametrize(
    "cuda, mps, broken, picked",
    [
        (False, False, (), "cpu"),
        (True, False, (), "cuda"),
        (True, True, (), "cuda"),
        (False, True, (), "mps"),
        (True, True, ("cuda",), "mps"),
        (True, False, ("cuda",), "cpu"),
    ],
)
def test_the_fastest_device_that_works_is_picked(lecture, monkeypatch, cuda, mps, broken, picked):
    ones = torch.ones

    def fake_ones(*size, device):
        if device in broken:
            raise RuntimeError("the driver is too old\nand more")
        return ones(*size)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "ones", fake_ones)
    assert lecture.pick_device().type == picked
    for name in broken:
        with pytest.raises(ValueError, match=f"device {name}: the driver is too old; this machine"):
            lecture.pick_device(name)


def test_nothing_is_written_but_the_pictures(tmp_path):
    for name in ("home", "temp", "checkout", "elsewhere"):
        (tmp_path / name).mkdir()
    script = layout(tmp_path / "checkout")
    before = set(tmp_path.rglob("*"))
    done = run_script(
        *QUICK,
        "--only",
        "cnn",
        "bert",
        script=script,
        cwd=tmp_path / "elsewhere",
        env={
            "HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path / "temp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    assert done.returncode == 0
    figures = tmp_path / "checkout/data/figures"
    written = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert written and all(path.parent == figures for path in written)


@posix_only
def test_the_quick_run_needs_less_than_a_gigabyte_and_a_half(quick):
    unit = 1024 if sys.platform == "linux" else 1
    assert 0.2e9 < int(quick.peak.read_text()) * unit < 1.5e9

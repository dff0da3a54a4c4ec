"""What the tests share: the script as a module, its data, and one quick run as a program.

LECTURE_SCRIPT names another copy of the script to test; plant_faults.py uses it.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(os.environ.get("LECTURE_SCRIPT", ROOT / "03_Deep_Learning_Models.py"))
CPU = torch.device("cpu")
AT_THE_PROMPT = """import json; print("CLAIMS", json.dumps([lesson.claims, list(lesson.models)]))
raise SystemExit(lesson.status)
"""


def load(data=None):  # the script, by its path; nothing registers it in sys.modules
    spec = importlib.util.spec_from_file_location("lecture", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.DATA = data or module.DATA
    return module


def start(*command):  # Python as people start it, in another folder than the script's
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT.anchor, **pipes,
                            env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
                            encoding="utf-8")


def passed(lesson, row):  # what became of its claims: True, False or None each
    return [claim["passed"] for claim in lesson.claims if claim["row"] == row]


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: with -m slow only, as .ci/run does at its end")
    config.option.markexpr = config.option.markexpr or "not slow"
    torch.set_num_threads(1)  # a quick run as a program goes on beside the tests


def pytest_collection_finish(session):  # the quick run goes on beside the other tests
    if any("program" in item.fixturenames for item in session.items):
        session.config.program = start("-i", SCRIPT, "--quick", "--figures", os.devnull)


def pytest_sessionfinish(session):
    if hasattr(session.config, "program"):
        session.config.program.kill()


@pytest.fixture(scope="session")
def program(request):  # the finished quick run: stdout, stderr, exit status
    process = request.config.program
    return *process.communicate(AT_THE_PROMPT, timeout=300), process.returncode


@pytest.fixture(scope="session")
def lecture():
    return load()


@pytest.fixture
def lesson(lecture, tmp_path):
    torch.manual_seed(0)
    return lecture.Lesson("cpu", figures=tmp_path)


@pytest.fixture
def swap(lecture, monkeypatch):  # puts something else in the place of a function or a constant
    return lambda name, other: monkeypatch.setattr(lecture, name, other)


@pytest.fixture(scope="session")
def digits(lecture):
    return lecture.load_mnist(CPU)


@pytest.fixture(scope="session")
def readers(lecture, digits):  # a CNN and an MLP that have learned to read for two seconds
    torch.manual_seed(0)
    some = lecture.Data(digits.x[:12_000], digits.y[:12_000], digits.x_test[:9], digits.y_test[:9])
    cnn, mlp = lecture.build_cnn(), lecture.build_mlp(784, 165, 165, 10)
    for model in (cnn, mlp):
        lecture.fit(lecture.Lesson("cpu"), "", model, some, 60, 0.006)
    return cnn, mlp

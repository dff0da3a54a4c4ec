"""What the tests share: the script as a module, and one quick run of it as a program.

LECTURE_SCRIPT names another copy of the script to test; plant_faults.py uses it.
"""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # no test reaches the model hub
import torch  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(os.environ.get("LECTURE_SCRIPT", ROOT / "03_Deep_Learning_Models.py"))
CPU = torch.device("cpu")
AT_THE_PROMPT = """import json; print("CLAIMS", json.dumps(lesson.claims))
raise SystemExit(lesson.status)
"""


def load(*changes, data=None):  # the script as a module, with some text changed
    text = SCRIPT.read_text(encoding="utf-8")
    for before, after in changes:
        assert text.count(before) == 1, f"stands {text.count(before)} times: {before}"
        text = text.replace(before, after)
    module = types.ModuleType("lecture")
    module.__file__ = str(SCRIPT)
    exec(compile(text, str(SCRIPT), "exec"), vars(module))
    module.DATA = data or module.DATA
    return module


def start(*command, out=subprocess.PIPE):  # Python, in another folder
    streams = {"stdin": subprocess.PIPE, "stdout": out, "stderr": subprocess.PIPE}
    streams |= {"env": {**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}}
    command = [sys.executable, *map(str, command)]
    return subprocess.Popen(command, cwd=ROOT.anchor, encoding="utf-8", **streams)


def passed(lesson, row):  # what became of a part's claims: True, False, None
    return [claim["passed"] for claim in lesson.claims if claim["row"] == row]


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: only with -m slow, as in .ci/run")
    config.option.markexpr = config.option.markexpr or "not slow"
    torch.set_num_threads(1)  # a quick run as a program goes on beside the tests


def pytest_collection_finish(session):
    if any("program" in item.fixturenames for item in session.items):
        figures = session.config._tmp_path_factory.mktemp("figures")
        how = "--quick", "--device", "cpu", "--figures", figures
        session.config.program = start("-i", SCRIPT, *how), figures


@pytest.fixture(scope="session")
def program(request):  # has ended: stdout, stderr, exit status, figures folder
    process, figures = request.config.program
    out, complaints = process.communicate(AT_THE_PROMPT, timeout=300)
    return out, complaints, process.returncode, figures


@pytest.fixture(scope="session")
def lecture():
    return load()


@pytest.fixture
def lesson(lecture, tmp_path):
    lesson = lecture.Lesson("cpu", figures=tmp_path)
    lesson.row = "0.0"
    torch.manual_seed(0)
    return lesson


@pytest.fixture(scope="session")
def digits(lecture):
    return lecture.load_mnist(CPU)

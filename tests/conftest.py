"""What the tests share: the script as a module, as a command, and one whole quick run.

LECTURE_SCRIPT names another copy of the script to test; plant_faults.py uses it.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(os.environ.get("LECTURE_SCRIPT", ROOT / "03_Deep_Learning_Models.py"))


def run_script(*arguments, script=SCRIPT, timeout=300, **settings):
    """The script as people run it: its exit status, what it printed, and what it complained of."""
    environment = {**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    environment.update(settings.pop("env", {}))
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(
        command,
        env=environment,
        timeout=timeout,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        **settings,
    )


MEASURED = """
import subprocess, sys
status = subprocess.call(sys.argv[2:])
if sys.platform != "win32":
    import resource
    with open(sys.argv[1], "w") as file:
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
sys.exit(status)
"""  # a command, with the peak of its memory in a file


@pytest.fixture(scope="session")
def lecture():
    spec = importlib.util.spec_from_file_location("lecture", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["lecture"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options():
    return argparse.Namespace(quick=False, figures=None, models="embedded", seed=0)


@pytest.fixture
def lesson(lecture, options):
    torch.manual_seed(0)
    return lecture.Lesson("mlp", torch.device("cpu"), options)


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """One whole quick run: the finished process, with its report and the folder of its pictures."""
    folder = tmp_path_factory.mktemp("quick")
    paths = "--json", folder / "report.json", "--figures", folder / "figures"
    command = sys.executable, SCRIPT, "--quick", "--models", "embedded", *paths
    done = run_script(MEASURED, folder / "peak", *command, script="-c")
    done.peak = folder / "peak"
    done.report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    done.figures = folder / "figures"
    return done

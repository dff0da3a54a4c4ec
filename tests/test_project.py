"""README, requirements, data and models agree with each other and with the script."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT, SCRIPT

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS = {"gpt2-austen": (6, 12), "bert-mini": (8, 16), "distilbert-sst2-mini": (5, 10)}


def requirements():
    return (ROOT / "requirements.txt").read_text().split()


def test_the_top_level_holds_nothing_but_what_the_design_names():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode or not tracked.stdout:
        pytest.skip("not a git checkout")
    top = {path.split("/")[0] for path in tracked.stdout.split() if not path.startswith(".")}
    assert top <= {SCRIPT.name, "requirements.txt", "README.md", "tests", "data"}


def test_the_inline_metadata_the_requirements_and_the_script_name_the_same_versions(lecture):
    head = SCRIPT.read_text(encoding="utf-8")
    inline = json.loads(re.search(r"# dependencies = (\[.*\])", head)[1])
    python = re.search(r'# requires-python = ">=(.*)"', head)[1]
    assert inline == requirements()
    assert dict(line.split(">=") for line in inline) == lecture.NEEDED
    sentence = re.search(r"; needed: (.*\n.*) or newer", head)[1].replace('"', "")
    needed = {"Python": python, **lecture.NEEDED}
    assert " ".join(sentence.split()) == ", ".join(f"{k} {v}" for k, v in needed.items())


def test_the_tests_requirements_include_the_scripts():
    assert "-r ../requirements.txt" in (ROOT / "tests/requirements.txt").read_text()


def test_readmes_commands_and_options_exist():
    assert "python 03_Deep_Learning_Models.py" in README
    assert "pip install -r requirements.txt" in README
    assert "pip install -r tests/requirements.txt" in README and "pytest tests" in README
    text = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True)
    options = set(re.findall(r"`(--[a-z]+)", README))
    assert options == set(re.findall(r"(--[a-z]+)", text.stdout)) - {"--help"}


def test_readmes_pictures_and_files_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_readmes_sample_is_what_the_script_prints(quick):
    claims = re.findall(r"^ +ok +(\d\.\d+)  (.+?): ", README, re.MULTILINE)
    assert len(claims) >= 8
    printed = {(c["section"], c["claim"]) for demo in quick.report["demos"] for c in demo["checks"]}
    for section, claim in claims:
        assert any(section == s and whole.startswith(claim) for s, whole in printed), claim


@pytest.mark.parametrize("name", MODELS)
def test_an_embedded_model_is_small_safe_and_readable_by_all(name):
    folder, (_, megabytes) = ROOT / "data/models" / name, MODELS[name]
    files = {path.name: path for path in folder.iterdir()}
    assert sum(path.stat().st_size for path in files.values()) <= 1.02e6 * megabytes
    assert {path.suffix for path in files.values()} == {".json", ".safetensors", ".md"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files.values())
    assert json.loads(files["tokenizer_config.json"].read_text())["model_max_length"] <= 512


@pytest.mark.parametrize("name", MODELS)
def test_a_model_card_names_data_licence_training_figures_and_limits(name):
    card = (ROOT / "data/models" / name / "README.md").read_text(encoding="utf-8")
    for part in ("Data", "Licence", "Training", "Figures", "Limits"):
        assert f"## {part}" in card
    assert f"python data/train_models.py {name} --measure" in card


def test_every_file_of_data_is_explained():
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    names = [path.name for path in (ROOT / "data").iterdir() if path.name != "figures"]
    for name in [*names, *MODELS]:
        assert name in text or name in ("README.md", "__pycache__"), name


def test_functions_stay_short_and_lines_narrow():
    import ast

    text = SCRIPT.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    lengths = {
        f.name: f.end_lineno - f.lineno + 1 - len(ast.get_docstring(f).splitlines())
        for f in functions
        if ast.get_docstring(f)
    }
    assert {name: n for name, n in lengths.items() if n > 34} == {}

"""The script's form, and what README.md and the other files say of it."""

import ast
import re
import subprocess

from conftest import ROOT, SCRIPT

LINES, WIDTH = 32, 100  # of a function with its docstring; of a line
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = SCRIPT.read_text(encoding="utf-8")
ROWS = r"\d\.\d+"


def test_functions_are_short_lines_narrow_and_parts_begin_with_the_rows_that_they_show():
    functions = [node for node in ast.walk(ast.parse(TEXT)) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno >= LINES] == []
    assert max(map(len, TEXT.splitlines())) <= WIDTH
    for part in (f for f in functions if f.name.startswith("show_")):
        head = re.match(rf"{ROWS}((, | and ){ROWS})*", ast.get_docstring(part))
        shown = re.findall(rf"lesson\.(?:same|shows)\('({ROWS})'", ast.unparse(part))
        assert head and set(shown) <= set(re.findall(ROWS, head[0])), part.name
    assert re.findall(r"(?m)^# %% (\d)\. ", TEXT) == list("1234567")


def test_the_top_level_holds_nothing_but_what_the_design_names():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    top = {name.split("/")[0] for name in files if not name.startswith(".")}
    assert not files or top == {  # no files: a folder without git
        "03_Deep_Learning_Models.py", "requirements.txt", "README.md", "tests", "data"}


def test_readme_names_the_scripts_options_and_what_exists():
    assert "-r ../requirements.txt" in (ROOT / "tests/requirements.txt").read_text()
    options = {f"--{name}" for name in re.findall(r'(?:add|add_argument)\(\s*"--([a-z]+)"', TEXT)}
    assert set(re.findall(r"`(--[a-z]+)`", README)) == options and len(options) >= 6
    for command in ("python 03_Deep_Learning_Models.py", "pip install -r requirements.txt",
                    "pip install -r tests/requirements.txt", "pytest tests"):
        assert command in README
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target

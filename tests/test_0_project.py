"""README.md says what there is, and its session at the prompt runs as it stands."""

import contextlib
import doctest
import functools
import io
import re
import sys

import pytest
from conftest import ROOT, load

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_names_the_scripts_options_and_what_exists(capsys):
    with pytest.raises(SystemExit, match="0"):
        load().main(["--help"])
    options = set(re.findall(r"(--[a-z]+)", capsys.readouterr().out)) - {"--help"}
    assert set(re.findall(r"`(--[a-z]+)`", README)) == options and len(options) == 6
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readmes_session_at_the_prompt_runs_as_it_stands(monkeypatch, tmp_path):
    blocks = "\n".join(re.findall(r"(?s)```\w*\n(>>> .*?)```", README))
    examples = doctest.DocTestParser().get_examples(blocks)
    module, names = load(), {"__name__": "__main__"}
    how = {"device": "cpu", "quick": True, "figures": tmp_path}
    quickly = functools.partialmethod(module.Lesson.__init__, **how)
    monkeypatch.setattr(module.Lesson, "__init__", quickly)
    monkeypatch.setitem(sys.modules, "03_Deep_Learning_Models", module)
    monkeypatch.chdir(ROOT)
    assert len(examples) >= 5
    for example in examples:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(example.source, "README.md", "single"), names)
        if example.want and re.search("fill_mask|judge|nearest", example.source):
            parts = re.compile(r"(\d+\.\d+)").split
            told, found = parts(example.want), parts(out.getvalue())
            assert found[::2] == told[::2], example.source
            close = pytest.approx([*map(float, told[1::2])], abs=0.3)
            assert [*map(float, found[1::2])] == close

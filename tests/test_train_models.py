"""data/train_models.py: gpt2-austen trains a few steps, goes on, and loads."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from transformers import AutoModel


@pytest.mark.slow
def test_a_model_trains_goes_on_from_its_checkpoint_and_loads(tmp_path):
    novel = (ROOT / "data/pride-and-prejudice.txt").read_text(encoding="utf-8")
    (tmp_path / "austen").mkdir()
    for name, text in (
        ("pride-and-prejudice", novel[:60_000]),
        ("emma", novel[:30_000]),
    ):
        (tmp_path / f"austen/{name}.txt").write_text(text, encoding="utf-8")
    command = [sys.executable, ROOT / "data/train_models.py", "gpt2-austen"]
    command += ["--threads=1", "--every=1", "--corpora", tmp_path]
    command += ["--models", tmp_path / "models", "--work", tmp_path / "work"]
    how = {"check": True, "capture_output": True, "text": True}
    out = []
    for more in ("--steps=1", "--steps=2", "--measure"):
        out.append(subprocess.run([*command, more], **how).stdout)
    assert "step 1 of 1" in out[0] and "step 2 of 2" in out[1]
    assert "step 1 " not in out[1] and re.search(r"\d", out[2])
    assert AutoModel.from_pretrained(tmp_path / "models/gpt2-austen")

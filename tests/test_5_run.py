"""The program: what it prints and leaves, and how it ends."""

import html
import inspect
import json
import os
import re
import sys
import time
from pathlib import PurePath
from unittest.mock import Mock

import huggingface_hub.constants
import pytest
from conftest import CPU, ROOT, SCRIPT, load, passed, start

QUICK = "--quick", "--device", "cpu"
COUNTS = {1: 4, 2: 2, 3: 6, 4: 4, 5: 12, 6: 1}
ROWS = [f"{section}.{n + 1}" for section, n_s in COUNTS.items() for n in range(n_s)]


def test_a_quick_run_tells_all_parts_in_order_and_fails_no_claim(lecture, program):
    printed, complaints, status, _ = program
    out, _, found = printed.partition("CLAIMS ")
    claims = json.loads(found)
    assert status == 0 and "Traceback" not in complaints and "✗" not in out
    parts = [part for name, part in vars(lecture).items() if name.startswith("show_")]
    titles = [inspect.getdoc(part).split("\n")[0] for part in parts]
    titles.sort(key=lambda title: [int(n) for n in title.split()[0].split(".")])
    assert [title.split()[0] for title in titles] == ROWS
    assert [line for line in out.splitlines() if line in titles] == titles
    rows = [claim["row"] for claim in claims]
    assert rows == sorted(rows, key=ROWS.index) and {*rows, "6.1"} == set(ROWS)
    words = " ".join(out.split())
    for claim in claims:
        told = " ".join(f"{claim['sentence']}. ({claim['row']})".split())
        assert (told in words) is (claim["passed"] is True) and claim["passed"] != 0
    verdicts = [claim["passed"] for claim in claims]
    count = f" {verdicts.count(True)} claims shown, {verdicts.count(None)} left out, "
    assert words.rpartition(f"{count}0 failed")[2].endswith("lesson.html")
    assert max(map(len, out.splitlines())) <= 100


def test_its_page_holds_every_claim_every_picture_and_text_as_text(lecture, program):
    claims = json.loads(program[0].partition("CLAIMS ")[2])
    page = (program[3] / "lesson.html").read_text(encoding="utf-8")
    for claim in claims:
        assert (claim["sentence"] in html.unescape(page)) is (claim["passed"] is True)
    assert page.count('<img src="data:image/png;base64,') == 12 == page.count("<img")
    assert re.findall('id="(.*?)"', page) == ROWS == re.findall('href="#(.*?)"', page)
    assert "<script" not in page and "http" not in page and "lesson.html" in program[0]
    lesson = lecture.Lesson("cpu")
    lesson.say('it writes <b> & "</p>')
    page = lecture.page(lesson.story)
    assert "<p>it writes &lt;b&gt; &amp;" in page and "<b>" not in page


def just(lecture, monkeypatch, **works):  # demos that take no time
    demos = {name: works.get(name, str) for name in lecture.DEMOS}
    monkeypatch.setattr(lecture, "DEMOS", demos)


def claim_it(lesson, holds=True):
    lesson.row = "9.9"
    lesson.shows("It ran", holds)


def test_options_reach_the_lesson(lecture, tmp_path):
    given = "--quick --device cpu --seed 7 --models hub --only bert cnn --figures"
    lesson, names = lecture.parse_arguments([*given.split(), str(tmp_path)])
    assert names == ["cnn", "bert"] and lesson.figures == tmp_path
    assert (lesson.quick, lesson.seed, lesson.source) == (True, 7, "hub")


WRONG = ["--only cnm", "--device tpu", "--models Hub", "--seed x"]
WRONG += [f"--device cpu --seed {2**70}", "--fast"]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_ends_with_status_2(lecture, capsys, wrong):
    with pytest.raises(SystemExit) as end:
        lecture.main(wrong.split())
    out, complaints = capsys.readouterr()
    assert end.value.code == 2 and out == "" and "Traceback" not in complaints
    assert 10 < len(complaints.splitlines()[-1]) < 200


def test_main_after_an_import_runs_all(lecture, monkeypatch, tmp_path):
    just(lecture, monkeypatch, mlp=claim_it, bert=claim_it)
    monkeypatch.setattr(sys, "argv", ["notebook", "-f", "kernel.json"])
    monkeypatch.setattr(lecture, "DATA", tmp_path)
    assert passed(lecture.main(), "9.9") == [True, True]


def test_a_students_mistake_shows_its_lines(monkeypatch, tmp_path, capsys):
    lecture = load(("counts = [(16 + 1) * 256", "counts = [(my_size + 1) * 256"))
    just(lecture, monkeypatch, mlp=lecture.demo_mlp, bert=claim_it)
    lesson = lecture.main([*QUICK, "--figures", str(tmp_path)])
    out = capsys.readouterr().out
    assert lesson.status == 1 and passed(lesson, "9.9") == [True]
    assert "in show_layers" in out and "run_demo" not in out
    assert "NameError: name 'my_size' is not defined" in out
    with pytest.raises(NameError):
        load(("list(map(float", "list(map(my_float")).load_letters(CPU)


def test_the_status_tells_how_it_ended(lecture, monkeypatch, capsys, tmp_path):
    stop = Mock(side_effect=KeyboardInterrupt)
    just(lecture, monkeypatch, mlp=claim_it, lstm=lambda it: claim_it(it, 0), bert=stop)
    for names, status in (("mlp gpt2", 0), ("mlp lstm", 1), ("mlp bert", 130)):
        arguments = f"--device cpu --only {names} --figures".split()
        assert lecture.main([*arguments, str(tmp_path)]).status == status
    out = capsys.readouterr().out
    assert "1 claims shown, 0 left out, 1 failed" in out and "Interrupted" in out


def test_a_missing_package_or_data_folder_costs_one_line(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="^[^\n]*nothing is missing[^\n]*$"):
        load(data=tmp_path / "nothing").main([])
    monkeypatch.setitem(sys.modules, "torchvision.transforms.functional", None)
    with pytest.raises(SystemExit, match="^[^\n]*torchvision[^\n]*$") as end:
        load()
    needed = SCRIPT.resolve().with_name("requirements.txt")
    assert f'"{sys.executable}" -m pip install -r "{needed}"' in end.value.code


def test_figures_that_cannot_be_kept_cost_one_line(lecture, capsys, tmp_path):
    (tmp_path / "file").touch()
    lesson = lecture.Lesson("cpu", figures=tmp_path / "file")
    lecture.show_learning(lesson)
    lecture.show_optimizers(lesson)
    assert capsys.readouterr().out.count("No pictures") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_reported_and_a_reader_that_leaves_is_not(tmp_path):
    command = [SCRIPT, *QUICK, "--only", "mlp", "--figures", tmp_path]
    with open("/dev/full", "w") as full, start(*command, out=full) as process:
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1 and "cannot be written" in complaints
    assert len(complaints.splitlines()) == 1
    with start(*command) as process:  # ... | head -1
        assert process.stdout.readline().startswith("How does deep learning work?")
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(60) == 1


def test_the_hubs_model_is_pinned_or_one_line_says_why_not(monkeypatch, tmp_path):
    lecture, began = load(), time.monotonic()
    repository, revision = lecture.HUB["BERT"].split("@")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match=rf"^{re.escape(repository)}[^\n]*hub[^\n]*$"):
        lecture.load_pretrained("BERT", "hub")  # nobody answers, nothing is cached
    assert time.monotonic() - began < 10
    hub = Mock(return_value=str(ROOT / "data/models/bert-mini"))  # in its place
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    tokenizer, model = lecture.load_pretrained("BERT", "hub")
    assert model(**tokenizer("It is", return_tensors="pt")) and not model.training
    assert hub.call_args.args == (repository,)
    assert hub.call_args.kwargs["revision"] == revision
    wanted = hub.call_args.kwargs["allow_patterns"]
    assert not any(map(PurePath("pytorch_model.bin").match, wanted))


@pytest.mark.slow
def test_a_whole_run_shows_every_claim(tmp_path):
    with start(SCRIPT, "--device", "cpu", "--figures", tmp_path) as process:
        out, complaints = process.communicate(timeout=600)
    assert process.returncode == 0 and complaints == ""
    assert "0 left out, 0 failed" in out
    assert len(re.findall("<img", (tmp_path / "lesson.html").read_text("utf-8"))) == 12

"""The run, as a person or a program sees it: exit status, report, pictures, seeds."""

import json
import re

from conftest import run_script
from PIL import Image


def test_the_quick_run_ends_well_with_five_demos_in_the_lectures_order(quick):
    assert quick.returncode == 0, quick.stdout[-2000:]
    assert [(d["name"], d["status"]) for d in quick.report["demos"]] == [
        (name, "ok") for name in ("mlp", "cnn", "lstm", "gpt2", "bert")
    ]
    assert quick.stderr == ""


def test_the_report_has_the_promised_form(quick):
    report = quick.report
    assert set(report) == {"versions", "device", "seed", "seconds", "demos"}
    assert set(report["versions"]) == {"python", "torch", "torchvision", "transformers"}
    assert report["device"] in ("cpu", "cuda", "mps") and report["seed"] == 0
    for demo in report["demos"]:
        assert set(demo) == {"name", "status", "seconds", "metrics", "checks", "figures", "error"}
        assert demo["error"] is None and demo["seconds"] > 0 and demo["metrics"]
        for check in demo["checks"]:
            assert set(check) == {"section", "claim", "difference", "passed"}
            assert re.fullmatch(r"\d\.\d+", check["section"])
            assert check["passed"] in (True, None)
    assert sum(demo["seconds"] for demo in report["demos"]) <= report["seconds"]


def test_every_claim_of_the_report_is_printed_with_its_verdict(quick):
    printed = " ".join(quick.stdout.split())
    words = {True: "ok", None: "skipped"}
    for demo in quick.report["demos"]:
        for check in demo["checks"]:
            line = f"{words[check['passed']]} {check['section']} {check['claim']}"
            assert " ".join(line.split()) in printed


def test_the_pictures_are_there_and_can_be_read(quick):
    listed = [file for demo in quick.report["demos"] for file in demo["figures"]]
    names = {path.stem for path in quick.figures.iterdir()}
    assert names == {
        "mnist-shifted",
        "mnist-permuted",
        "cnn-filters",
        "cnn-block1",
        "cnn-block2",
        "cnn-mistakes",
        "GPT-2-attention",
        "BERT-attention",
    }
    assert sorted(listed) == sorted(str(path) for path in quick.figures.iterdir())
    for file in listed:
        with Image.open(file) as picture:
            picture.load()
            assert 100 <= picture.width <= 1200 and len(picture.getcolors(1 << 20)) > 5


def test_gpt2s_attention_is_a_triangle_and_berts_is_not(quick):
    for name, dark in (("GPT-2", True), ("BERT", False)):
        picture = Image.open(quick.figures / f"{name}-attention.png").convert("L")
        tokens = 11 if name == "GPT-2" else 12
        corner = [
            picture.getpixel((6 + 10 * x + 5, 6 + 10 * y + 5))
            for y in range(tokens)
            for x in range(y + 1, tokens)
        ]
        assert (max(corner) == 0) is dark


def test_the_table_at_the_end_has_the_runs_own_numbers(quick):
    table = quick.stdout[quick.stdout.index("6. Which one to use") :]
    for demo in quick.report["demos"]:
        for name, value in demo["metrics"].items():
            model, data = name.split(" (")[0].rsplit(", ", 1)
            assert re.search(rf"{re.escape(data)} +{re.escape(model)} .*{value:.2f}", table), name
    for idea in ("tables, vectors", "images, grids", "sequences", "generating", "understanding"):
        assert idea in table


def test_printed_lines_fit_100_columns(quick):
    assert max(map(len, quick.stdout.splitlines())) <= 100


def test_one_seed_gives_the_same_figures_to_the_last_digit_in_any_order(quick, tmp_path):
    for name in ("again", "other"):
        seed = 0 if name == "again" else 1
        done = run_script(
            "--quick",
            "--models",
            "embedded",
            "--only",
            "bert",
            "lstm",
            "mlp",
            "--seed",
            seed,
            "--json",
            tmp_path / name,
        )
        assert done.returncode in (0, 1)
    reports = [
        {demo["name"]: demo for demo in json.loads((tmp_path / name).read_text())["demos"]}
        for name in ("again", "other")
    ]
    first = {demo["name"]: demo for demo in quick.report["demos"]}
    for name in ("mlp", "lstm", "bert"):
        assert reports[0][name]["metrics"] == first[name]["metrics"]
    assert reports[1]["mlp"]["metrics"] != first["mlp"]["metrics"]
    assert [reports[0][name]["status"] for name in ("cnn", "gpt2")] == ["skipped", "skipped"]


def test_help_names_every_option():
    text = run_script("--help").stdout
    for option in ("--only", "--quick", "--device", "--models", "--seed", "--json", "--figures"):
        assert option in text

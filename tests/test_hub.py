"""The real models: from the hub if it is one and answers, else embedded ones and the reason why."""

import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from conftest import ROOT, SCRIPT, run_script
from hub_server import BEHAVIOURS, Hub, hub_files

MODELS = ROOT / "data/models"
REAL = "openai-community/gpt2"
PINNED = {
    REAL: "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "google-bert/bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": (
        "714eb0fa89d2f80546fda750413ed43d93601a13"
    ),
}
REASONS = {  # what the hub does: what the student reads, if it comes to no download
    "silent": "no answer|timed out",
    "status 401": "401",
    "status 404": "404",
    "status 429": "429",
    "status 500": "500",
    "status 503": "503",
    "captive portal": "no model hub",
    "wrong revision": "revision|no model hub",
    "gone": "refused|connect",
}
BROKEN = {  # and if a download has begun
    "silent later": "no answer|nothing|timed out|cannot find|connection",
    "cut off always": "closed|incomplete|size",
    "stalled": "timed out|stalled",
    "busy": "no answer|429|busy|timed out|Too Many",
    "wrong bytes": "header|damaged",
    "code in the config": "refused: code or a pickle in config.json",
}
SLOW = ("busy", "stalled", "xet", "silent later")  # those that wait, and compute nothing
PROGRAM = """
import argparse, importlib.util, json, sys, time
import torch, transformers
transformers.AutoTokenizer, transformers.GPT2LMHeadModel  # imported before the clock starts
script, models, report = sys.argv[1:]
spec = importlib.util.spec_from_file_location("lecture", script)
sys.modules["lecture"] = lecture = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lecture)
options = argparse.Namespace(quick=False, figures=None, models=models, seed=0)
lesson = lecture.Lesson("gpt2", torch.device("cpu"), options)
found, began = {"error": None, "words": 0}, time.perf_counter()
try:
    tokenizer, model = lecture.load_pretrained(lesson, "GPT-2", "GPT2LMHeadModel")
    found["words"] = model(**tokenizer("It is", return_tensors="pt")).logits.shape[-1]
except Exception as error:
    found["error"] = [type(error).__name__, str(error)]
found["seconds"] = time.perf_counter() - began
with open(report, "w") as file:
    json.dump(found, file)
"""


def surroundings(url, home, **more):
    """The environment of a run that knows this hub and this cache only, with what main() sets."""
    settings = dict(re.findall(r'"(HF_\w+)": "(\w+)"', SCRIPT.read_text(encoding="utf-8")))
    assert len(settings) >= 2
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_OFFLINE": "",
        "TRANSFORMERS_OFFLINE": "",
        "HF_TOKEN": "",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "OMP_NUM_THREADS": "1",  # several at a time
        **settings,
        **more,
    }


def load_once(url, home, models="auto", **more):
    """What load_pretrained printed and raised in a process of its own, and how long it took."""
    report, env = home / "report.json", surroundings(url, home, **more)
    try:
        done = run_script(PROGRAM, SCRIPT, models, report, script="-c", env=env, timeout=70)
    except subprocess.TimeoutExpired:
        return SimpleNamespace(text="", lines=[], complaints="", seconds=70, error="", words=0)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(
        text=" ".join(done.stdout.split()),
        lines=[line for line in done.stdout.splitlines() if not line.startswith("    ")],
        complaints=done.stderr,
        **json.loads(report.read_text(encoding="utf-8")),
    )


def against(behaviour, files, home, **settings):
    """One run against one hub, with the hub's log."""
    with Hub(behaviour, files) as hub:
        result = load_once(hub.url, home, **settings)
        result.log = list(hub.log)
    return result


def without_hub(files, home, **settings):
    """The same when nobody listens any more at that address."""
    with Hub("normal", files) as hub:
        pass
    return load_once(hub.url, home, **settings)


def three_times(files, home):
    """A first run, a second, and a third when the hub is gone."""
    with Hub("normal", files) as hub:
        first = load_once(hub.url, home)
        first.log = list(hub.log)
        second = load_once(hub.url, home)
        second.log = hub.log[len(first.log) :]
    return first, second, load_once(hub.url, home)


def whole_run(files, home):
    """The command, against a hub that has all three models."""
    arguments = ["--only", "gpt2", "bert", "--quick", "--models", "auto"]
    with Hub("normal", files) as hub:
        env = surroundings(hub.url, home)
        return run_script(*arguments, "--figures", home / "figures", env=env, timeout=200)


@pytest.fixture(scope="module")
def runs(lecture, tmp_path_factory):
    """The whole run, then all others: four that wait, three at a time beside them."""
    files = hub_files(lecture.PRETRAINED, MODELS)
    pool, started = ThreadPoolExecutor(7), {}

    def start(name, play, *arguments, **settings):
        home = tmp_path_factory.mktemp("home")
        started[name] = pool.submit(play, *arguments, home=home, **settings)

    start("whole", whole_run, files)
    start("three", three_times, files)
    started["whole"].exception()  # nearly alone: some of its rows are about time
    for behaviour in SLOW:
        start(behaviour, against, behaviour, files)
    for behaviour in BEHAVIOURS:
        if behaviour not in (*SLOW, "normal"):
            start(behaviour, against, behaviour, files)
    start("gone", without_hub, files)
    start("must", without_hub, files, models="hub")
    start("offline", against, "normal", files, HF_HUB_OFFLINE="1")
    start("embedded", against, "normal", files, models="embedded")
    yield lambda name: started[name].result()  # each test waits for its own
    pool.shutdown(cancel_futures=True)


def assert_embedded(result, reason):
    """The embedded model works, and one line says why it is there."""
    assert result.error is None and result.words
    assert len(result.lines) == 1, result.text
    why = "embedded, because the model hub cannot be used: "
    found = re.fullmatch(rf"gpt2-austen, 5\.6 million parameters \({why}(.+)\)", result.text)
    assert found, result.text
    assert re.search(reason, found[1], re.IGNORECASE), found[1]
    assert "Traceback" not in result.complaints


@pytest.mark.parametrize("behaviour", REASONS)
def test_a_hub_that_cannot_be_used_is_given_up_in_seconds(runs, behaviour):
    result = runs(behaviour)
    assert_embedded(result, REASONS[behaviour])
    assert result.seconds < 12
    assert not any(request.method == "GET" for request in getattr(result, "log", []))


@pytest.mark.parametrize("behaviour", REASONS)
def test_a_hub_that_cannot_be_used_costs_the_reader_one_line_and_no_warnings(runs, behaviour):
    assert runs(behaviour).complaints == ""


@pytest.mark.parametrize("behaviour", BROKEN)
def test_a_download_that_goes_wrong_is_given_up_within_a_minute(runs, behaviour):
    result = runs(behaviour)
    assert result.seconds < 60
    assert_embedded(result, BROKEN[behaviour])


def test_damaged_weights_that_stay_in_the_cache_are_said_to_be_deleted(runs):
    assert re.search(r"delete \S+models--openai-community--gpt2\)", runs("wrong bytes").text)


def test_a_download_that_is_cut_off_once_goes_on_where_it_was(runs):
    result = runs("cut off once")
    assert f"(the real {REAL})" in result.text and result.words
    weights = [r for r in result.log if r.path.endswith(".safetensors") and r.method == "GET"]
    assert [r.status for r in weights] == [200, 206]
    assert weights[0].start == 0 < weights[1].start


def test_a_store_that_does_not_answer_is_left_aside(runs):
    result = runs("xet")
    assert f"(the real {REAL})" in result.text and result.seconds < 60


def test_the_real_model_is_named_when_the_hub_has_it(runs):
    first, *_ = runs("three")
    assert first.error is None and first.words
    assert re.fullmatch(rf"GPT-2, 5\.6 million parameters \(the real {REAL}\)", first.text)


def test_only_the_pinned_revision_and_the_needed_files_are_asked_for(runs):
    first, *_ = runs("three")
    place = f"/{REAL}/resolve/{PINNED[REAL]}/"
    needed = ("config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")
    assert {request.path for request in first.log} == {place + file for file in needed}


def test_a_fetched_model_is_cached_and_not_asked_for_again(runs):
    first, second, _ = runs("three")
    assert sum(r.method == "GET" and r.path.endswith(".safetensors") for r in first.log) == 1
    assert second.log == []
    assert second.text == first.text and second.words == first.words


def test_a_cached_model_needs_no_hub(runs):
    first, _, third = runs("three")
    assert third.text == first.text and third.words == first.words
    assert third.seconds < 12


def test_offline_means_embedded_without_a_request(runs):
    result = runs("offline")
    assert_embedded(result, "HF_HUB_OFFLINE")
    assert result.log == []


def test_embedded_means_no_request(runs):
    result = runs("embedded")
    assert result.text == "gpt2-austen, 5.6 million parameters (as asked)" and result.words
    assert result.log == []


def test_without_a_hub_the_real_models_are_an_error_of_one_line(runs):
    result = runs("must")
    kind, message = result.error
    assert kind == "ConnectionError" and "\n" not in message
    assert message.startswith("no GPT-2, because the model hub cannot be used: ")
    assert re.search("refused|connect", message.split(": ", 1)[1], re.IGNORECASE)
    assert result.text == "" and result.complaints == "" and result.seconds < 12


def test_a_whole_run_uses_the_three_real_models(runs):
    done = runs("whole")
    text = " ".join(done.stdout.split())
    for repository in PINNED:
        assert f"(the real {repository})" in text
    assert "embedded" not in text
    assert done.returncode == 0, text


def test_the_revisions_are_pinned(lecture):
    assert {entry[0]: entry[1] for entry in lecture.PRETRAINED.values()} == PINNED


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(MODELS / "gpt2-austen", tmp_path / "model")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "modeling_gpt2.py", "weights.pt", "a.pkl"])
def test_a_folder_with_code_or_a_pickle_is_refused(lecture, folder, file):
    (folder / file).write_bytes(b"")
    with pytest.raises(ValueError, match=f"refused.*{file}"):
        lecture.load_folder(folder, "GPT2LMHeadModel")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_folder_that_names_code_is_refused(lecture, folder, file):
    config = json.loads((folder / file).read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "somebody/code--modeling.Model"}
    (folder / file).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=f"refused.*{file}"):
        lecture.load_folder(folder, "GPT2LMHeadModel")


@pytest.mark.parametrize("path", sorted(p for p in MODELS.iterdir() if p.is_dir()))
def test_no_embedded_model_holds_code_or_a_pickle(path):
    assert {file.suffix for file in path.rglob("*")} <= {".json", ".safetensors", ".md"}
    assert not any("auto_map" in file.read_text("utf-8") for file in path.glob("*.json"))

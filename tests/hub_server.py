"""A model hub on this machine that holds the embedded models, for tests: well-behaved, or not.

It answers to the real repository names and pinned revisions, and keeps a log of what was asked.
"""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

STATUSES = {f"status {code}": code for code in (401, 404, 429, 500, 503)}
KEPT = 10 * 2**20  # huggingface_hub writes a download to the disk in steps of 10 MiB
BEHAVIOURS = (
    "normal",
    "silent",  # accepts, and never answers
    "silent later",  # answers once, then no more
    *STATUSES,
    "captive portal",  # the same web page for everything
    "wrong revision",
    "code in the config",
    "cut off once",
    "cut off always",
    "stalled",  # the first half of the weights, then nothing more
    "busy",  # the weights: come back in two minutes
    "xet",  # offers the weights in the store of the real hub too, which does not answer
    "wrong bytes",
)


class Request(NamedTuple):
    method: str
    path: str
    start: int
    status: int


def vocabulary(tokenizer):
    """The vocab.txt that belongs to a tokenizer.json."""
    words = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    return "".join(f"{word}\n" for word in sorted(words, key=words.get)).encode()


def hub_files(pretrained, models):
    """What the hub holds, by its path there: the content of each file of the embedded models."""
    files = {}
    for repository, revision, vocabulary_file, folder in pretrained.values():
        place = f"/{repository}/resolve/{revision}/"
        for file in (models / folder).iterdir():
            files[place + file.name] = file.read_bytes()
        if vocabulary_file == "vocab.txt":
            files[place + "vocab.txt"] = vocabulary(models / folder / "tokenizer.json")
    return files


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):  # noqa: N802
        self.answer()

    def do_GET(self):  # noqa: N802
        self.answer()

    def log_message(self, *_):
        pass

    def answer(self):
        hub = self.server.hub
        silent = hub.behaviour == "silent" or (hub.behaviour == "silent later" and hub.log)
        if silent or "/xet" in self.path:
            self.note(0)
            hub.closing.wait()
            self.close_connection = True
        elif hub.behaviour in STATUSES:
            self.send(STATUSES[hub.behaviour])
        elif hub.behaviour == "captive portal":
            self.send(200, b"<html>Please accept our terms.</html>", {"Content-Type": "text/html"})
        elif self.path not in hub.files:
            self.send(404, headers={"X-Error-Code": "EntryNotFound", **self.commit()})
        elif hub.behaviour == "busy" and self.weights() and self.command == "GET":
            self.send(429, headers={"Retry-After": "120"})
        else:
            self.send_file(hub.files[self.path])

    def weights(self):
        return self.path.endswith(".safetensors")

    def commit(self):
        revision = self.path.split("/resolve/")[-1].split("/")[0]
        wrong = self.server.hub.behaviour == "wrong revision"
        return {"X-Repo-Commit": "0123456789" * 4 if wrong else revision}

    def start(self):
        """Where the asked range begins: "bytes=START-"."""
        return int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])

    def send_file(self, content):
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', **self.commit()}
        if self.server.hub.behaviour == "wrong bytes" and self.weights():
            content = bytes(255 - byte for byte in content[:1000]) + content[1000:]
        if self.server.hub.behaviour == "code in the config" and self.path.endswith("/config.json"):
            config = {"auto_map": {"AutoModel": "code.Model"}, **json.loads(content)}
            content = json.dumps(config).encode()
        if self.server.hub.behaviour == "xet" and self.weights():
            headers["X-Xet-Hash"] = hashlib.sha256(content).hexdigest()
            headers["X-Xet-Refresh-Route"] = f"{self.server.hub.url}/xet-read-token"
        start, size = self.start(), len(content)
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.send(206 if start else 200, content[start:], headers)

    def send(self, status, content=b"", headers=()):
        self.note(status)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.send_content(content)

    def send_content(self, content):
        hub = self.server.hub
        first = sum(request.method == "GET" and request.path == self.path for request in hub.log)
        cut = {
            "cut off once": KEPT + 1000 if first == 1 else None,
            "cut off always": 1000,
            "stalled": len(content) // 2,
        }.get(hub.behaviour)
        if cut is None or not self.weights():
            self.wfile.write(content)
            return
        self.wfile.write(content[:cut])
        if hub.behaviour == "stalled":
            hub.closing.wait()
        self.close_connection = True

    def note(self, status):
        self.server.hub.log.append(Request(self.command, self.path, self.start(), status))


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_):
        """The other side hung up: some of the tests want that."""


class Hub:
    """A hub at `url` until it is closed; `log` has every request that it got."""

    def __init__(self, behaviour, files):
        assert behaviour in BEHAVIOURS
        self.behaviour, self.files = behaviour, files
        self.log, self.closing = [], threading.Event()
        self.server = Quiet(("127.0.0.1", 0), Answer)
        self.server.hub = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

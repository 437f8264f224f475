"""Fetching published files, from a server on this machine that behaves as badly as real ones."""

from __future__ import annotations

import hashlib
import http.server
import random
import re
import threading

import pytest

from convarium.errors import CheckpointError
from convarium.models import download
from convarium.models.published import Published, find

CONTENT = random.Random(0).randbytes(1_500_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "c" * 40


class Server(http.server.BaseHTTPRequestHandler):
    """What it does next is told by attributes of the server object."""

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.server.asked.append(self.headers.get("Range"))
        self.answer(head=False)

    def answer(self, head):
        content = self.server.content
        if self.server.status or "missing" in self.path:
            self.send_response(self.server.status or 404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-.*", self.headers.get("Range") or "")
        if asked and self.server.ranges:
            start = int(asked[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        # What the Hugging Face hub tells of a large file.
        self.send_header("ETag", f'"{DIGEST}"')
        self.send_header("X-Linked-Etag", f'"{DIGEST}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if head:
            return
        body = content[start:]
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "кэш torch"))
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.content, server.cuts, server.ranges, server.status, server.asked = CONTENT, 0, True, 0, []
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def published(server, checksum=DIGEST[:8]):
    return Published(
        publisher="torchvision",
        model="net",
        tag="V1",
        reference="torchvision:V1",
        files=("net-01234567.pth",),
        url=f"http://127.0.0.1:{server.server_port}/net-01234567.pth",
        sha256=checksum,
    )


def folder(tmp_path):
    return tmp_path / "кэш torch" / "hub" / "checkpoints"


def test_a_file_is_fetched_into_the_cache_of_torch_hub(server, tmp_path):
    seen = []
    path = download.fetch(published(server), lambda done, total: seen.append((done, total)))
    assert path == folder(tmp_path) / "net-01234567.pth"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not path.with_name(path.name + ".partial").exists()


def test_afterwards_no_network_is_needed(server):
    path = download.fetch(published(server), print)
    server.status = 500
    assert download.fetch(published(server), print) == path
    assert server.asked == [None]


def test_a_cut_connection_is_resumed_where_it_ended(server):
    server.cuts = 2
    assert download.fetch(published(server), print).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.asked == [None, f"bytes={half}-", f"bytes={half + (len(CONTENT) - half) // 2}-"]


def test_a_later_command_goes_on_from_what_is_there(server, tmp_path):
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / "net-01234567.pth.partial").write_bytes(CONTENT[:1_000_000])
    assert download.fetch(published(server), print).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000000-"]


def test_a_whole_partial_file_only_gets_its_name(server, tmp_path):
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / "net-01234567.pth.partial").write_bytes(CONTENT)
    assert download.fetch(published(server), print).read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_published_is_fetched_anew(server, tmp_path):
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / "net-01234567.pth.partial").write_bytes(CONTENT + b"more")
    assert download.fetch(published(server), print).read_bytes() == CONTENT


def test_a_server_that_cannot_go_on_sends_the_whole_again(server):
    server.cuts, server.ranges = 1, False
    assert download.fetch(published(server), print).read_bytes() == CONTENT


def test_a_wrong_file_is_removed_and_said(server, tmp_path):
    server.content = b"<html>log in to the hotel's network</html>"
    with pytest.raises(CheckpointError, match=f"should begin {DIGEST[:8]}; it was removed"):
        download.fetch(published(server), print)
    assert [p.name for p in folder(tmp_path).iterdir() if not p.name.endswith(".lock")] == []


def test_an_address_that_is_gone_is_said_with_the_answer(server):
    server.status = 404
    with pytest.raises(CheckpointError, match="the server answers 404"):
        download.fetch(published(server), print)
    assert len(server.asked) == 1


def test_a_server_that_stays_broken_is_left_and_what_came_is_kept(server, tmp_path):
    server.cuts = 1

    def break_down(done, total):
        server.status = 503

    with pytest.raises(CheckpointError, match="750,000 bytes that have come are kept"):
        download.fetch(published(server), break_down)
    assert (folder(tmp_path) / "net-01234567.pth.partial").stat().st_size == len(CONTENT) // 2


def test_without_a_network_the_message_says_where_to_put_the_file(server, tmp_path):
    nowhere = Published(**{**vars(published(server)), "url": "http://127.0.0.1:1/net-01234567.pth"})
    with pytest.raises(CheckpointError, match="fetch the file elsewhere and put it at .*net-01234567.pth"):
        download.fetch(nowhere, print)


def test_a_file_that_torchvision_has_fetched_is_found(server, tmp_path):
    weights = find("resnet18", "torchvision:IMAGENET1K_V1")
    assert download.cached(weights) is None
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / "resnet18-f37072fd.pth").write_bytes(b"weights")
    assert download.fetch(weights).read_bytes() == b"weights"


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    import huggingface_hub

    home = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "ENDPOINT": home,
        "HUGGINGFACE_CO_URL_TEMPLATE": home + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    return server


def entry(*files):
    return Published(
        publisher="timm", model="net", tag="a1", reference="timm:net.a1", files=files, hub="timm/net.a1"
    )


def test_an_entry_of_the_hub_is_fetched_once_into_the_hubs_own_cache(hub, tmp_path):
    path = download.fetch(entry("missing.safetensors", "model.safetensors"))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "hub" / "models--timm--net.a1")
    asked = len(hub.asked)
    hub.status = 500
    assert download.fetch(entry("missing.safetensors", "model.safetensors")) == path
    assert len(hub.asked) == asked


def test_a_wrong_file_of_the_hub_is_removed_and_said(hub, tmp_path):
    hub.content = bytes(len(CONTENT))
    with pytest.raises(CheckpointError, match="not the checksum that the hub states"):
        download.fetch(entry("model.safetensors"))
    assert download.cached(entry("model.safetensors")) is None


def test_an_entry_without_the_file_is_said(hub):
    with pytest.raises(CheckpointError, match="has none of the files missing.safetensors"):
        download.fetch(entry("missing.safetensors"))

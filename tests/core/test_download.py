"""The downloader against a small local server that speaks the hub's protocol."""

import hashlib
import http.server
import threading

import pytest

from stableanimator_core import download
from stableanimator_core.errors import InputError, WeightsError
from stableanimator_core.weights.locate import KNOWN_FILES, KnownFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = bytes(range(256)) * 4096  # 1 MiB
CUT_AFTER = 300_000


class Hub(http.server.ThreadingHTTPServer):
    """Serves `files` ("owner/name/path" -> bytes) as huggingface.co does: HEAD redirects, GET knows ranges.

    Attributes:
        requests: what was asked: (method, path, Range header or None).
        cuts: how many bodies from the start are cut short.
        sent: bytes sent instead of the file's, to play a damaged transfer.
        gated: answer as for a model whose licence was not accepted.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests = files, []
        self.cuts, self.sent, self.gated = 0, None, False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.command, self.path, asked))
        repo, _, path = self.path.strip("/").partition("/resolve/main/")
        if self.path.startswith("/blob/"):
            return self._body(self.server.files[self.path.removeprefix("/blob/")], asked, with_body)
        name = f"{repo}/{path}"
        if self.server.gated:
            return self._plain(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        if name not in self.server.files:
            return self._plain(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = self.server.files[name]
        digest = hashlib.sha256(content).hexdigest()
        self._plain(
            302,
            {
                "Location": f"http://localhost:{self.server.server_address[1]}/blob/{name}",  # another host
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
            },
        )

    def _plain(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self, content: bytes, asked: str | None, with_body: bool) -> None:
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        content = self.server.sent or content
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not with_body:
            return
        if self.server.cuts:
            self.server.cuts -= 1
            self.wfile.write(content[start : start + CUT_AFTER])
            self.close_connection = True
            return
        self.wfile.write(content[start:])


@pytest.fixture
def hub(monkeypatch):
    """The server, and one role whose published file it has."""
    known = KnownFile(
        "pose_net",
        "PoseNet",
        ("pose_net.pth",),
        len(CONTENT),
        "https://example.org/page",
        "MIT",
        _sha(CONTENT),
    )
    monkeypatch.setitem(KNOWN_FILES, "pose_net", known)
    server = Hub({"FrancisRing/StableAnimator/Animation/pose_net.pth": CONTENT})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    yield server
    server.shutdown()
    server.server_close()


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_comes_whole_from_the_mirror_and_lies_in_the_official_tree(hub, tmp_path):
    path = download.fetch("pose_net", tmp_path)
    assert path == tmp_path / "Animation/pose_net.pth"
    assert path.read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_fetched_again(hub, tmp_path):
    download.fetch("pose_net", tmp_path)
    hub.requests.clear()
    download.fetch("pose_net", tmp_path)
    assert {method for method, _, _ in hub.requests} == {"HEAD"}


def test_another_file_that_is_there_is_set_aside_and_replaced(hub, tmp_path):
    path = download.fetch("pose_net", tmp_path)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert download.fetch("pose_net", tmp_path).read_bytes() == CONTENT
    assert (path.parent / "pose_net.pth.old").read_bytes() == CONTENT[:-1] + b"x"


def test_an_interrupted_transfer_is_resumed_where_it_stopped(hub, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(
        huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16
    )  # else nothing is kept so soon
    hub.cuts = 1
    assert download.fetch("pose_net", tmp_path).read_bytes() == CONTENT
    asked = [asked for method, _, asked in hub.requests if method == "GET"]
    assert len(asked) == 2 and asked[0] is None
    assert 0 < int(asked[1].removeprefix("bytes=").split("-")[0]) <= CUT_AFTER


def test_a_transfer_with_wrong_bytes_is_removed_and_named(hub, tmp_path):
    hub.sent = bytes(len(CONTENT))
    with pytest.raises(WeightsError, match="arrived damaged"):
        download.fetch("pose_net", tmp_path)
    assert not (tmp_path / "Animation/pose_net.pth").exists()
    hub.sent = None
    assert download.fetch("pose_net", tmp_path).read_bytes() == CONTENT


def test_another_file_under_the_published_name_is_refused_before_it_is_fetched(hub, tmp_path):
    hub.files["FrancisRing/StableAnimator/Animation/pose_net.pth"] = CONTENT[::-1]
    with pytest.raises(WeightsError, match="another file"):
        download.fetch("pose_net", tmp_path)
    assert not [path for method, path, _ in hub.requests if method == "GET"]
    assert not list(tmp_path.rglob("*.pth"))


def test_a_missing_file_and_a_closed_repository_are_named(hub, tmp_path):
    hub.files.clear()
    with pytest.raises(InputError, match="is not there"):
        download.fetch("pose_net", tmp_path)
    hub.gated = True
    with pytest.raises(InputError, match="consent"):
        download.fetch("pose_net", tmp_path)


def test_no_connection_is_named(tmp_path):
    with pytest.raises(InputError, match="could not be fetched"):
        download.fetch("pose_net", tmp_path, endpoint="http://127.0.0.1:9")


def test_a_full_disk_is_noticed_before_the_transfer(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match="GB free"):
        download.fetch("pose_net", tmp_path)
    assert {method for method, _, _ in hub.requests} == {"HEAD"}


def test_without_consent_licences_are_shown_and_nothing_is_fetched(hub, tmp_path, capsys):
    assert download.main(["--role", "pose_net", "--to", str(tmp_path)]) == 2
    shown = capsys.readouterr().out
    assert "licence: MIT" in shown and "1.0 MB" in shown and "Nothing was fetched" in shown
    assert hub.requests == [] and list(tmp_path.iterdir()) == []


def test_with_consent_the_command_fetches_and_says_where(hub, tmp_path, capsys):
    assert download.main(["--role", "pose_net", "--to", str(tmp_path), "--accept-licences"]) == 0
    assert str(tmp_path / "Animation/pose_net.pth") in capsys.readouterr().out
    hub.files.clear()
    assert download.main(["--role", "pose_net", "--to", str(tmp_path / "b"), "--accept-licences"]) == 1
    assert "is not there" in capsys.readouterr().err


def test_every_known_file_can_be_fetched_and_lands_where_it_is_found(tmp_path):
    from stableanimator_core.weights.locate import survey

    assert set(download.HUB_FILES) == set(KNOWN_FILES)
    for role, hub_file in download.HUB_FILES.items():
        path = tmp_path / hub_file.folder / hub_file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert {path.name, f"{path.parent.name}/{path.name}"} & set(KNOWN_FILES[role].names)
    found = survey([tmp_path])
    assert all(len(found[role]) == 1 for role in download.HUB_FILES)


def test_each_system_s_files_can_be_fetched_by_its_name():
    anyone, animator = set(download.roles_of("animate-anyone")), set(download.roles_of("stableanimator"))
    assert anyone & animator == {"person_detector", "pose_estimator"}
    assert anyone | animator == set(KNOWN_FILES) - {"face_recognizer"}
    assert "denoising_unet" in anyone and "unet" in animator


def test_an_unknown_role_is_named(tmp_path):
    with pytest.raises(InputError, match="teapot"):
        download.fetch("teapot", tmp_path)

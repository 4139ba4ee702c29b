"""A published file comes whole and checked or not at all, and the error says what to do."""

import functools
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from typer.testing import CliRunner

from clcae_lib import cli
from clcae_lib.weights.fetch import Fetcher
from clcae_lib.weights.manifest import AssetError, Manifest, read_manifest
from tests.unit._server import Server, raw, whole
from tests.unit.test_weights_manifest import ENTRY, PUBLISHED

STEP = 2**17  # a multiple of the pieces that are written
CONTENT = np.random.default_rng(0).integers(0, 256, 3 * STEP + 1000, dtype=np.uint8).tobytes()
DIGEST, SIZE = hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)
NAME = "weights.pt"
HTML = {"Content_Type": "text/html; charset=utf-8"}


@pytest.fixture
def server():
    with Server() as server:
        yield server
        server.shutdown()


@pytest.fixture
def fetcher(server, tmp_path):
    """Fetcher of one asset at https://files.test/a; keyword arguments change its entry."""

    def build(*, report=lambda text: None, **changes):
        entry = {**ENTRY, "address": "https://files.test/a", **changes}
        manifest = Manifest.model_validate({"assets": {"weights": entry}})
        return Fetcher(manifest, tmp_path, server.session(), report)

    return build


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "world"
    folder.mkdir()
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def refused(fetcher, said):
    """Assert that a fetch fails so and leaves no file in place; return the message."""
    with pytest.raises(AssetError, match=said) as caught:
        fetcher.fetch("weights")
    assert not (fetcher.data / "world" / NAME).exists()
    return str(caught.value)


def leave_a_part(server, fetcher, folder, **marks):
    """Let a fetch end after the first bytes."""
    server.serve("/a", whole(CONTENT, stop=STEP, **marks), raw(404))
    refused(fetcher, "status 404")
    assert names(folder) == [f"{NAME}.part", f"{NAME}.part.txt"]


def test_a_file_is_placed_whole_under_its_own_name_and_nothing_else_is_left(server, fetcher, folder):
    server.serve("/a", whole(CONTENT, Content_Disposition='attachment; filename="../../evil.pt"'))
    assert fetcher().fetch("weights") == (folder / NAME, True)
    assert (folder / NAME).read_bytes() == CONTENT
    assert names(folder) == [NAME]
    assert names(folder.parent) == ["digests.json", "world"]


def test_a_cut_or_silent_connection_is_continued_where_it_was_cut(server, fetcher, folder):
    server.serve("/a", whole(CONTENT, stop=STEP))
    fetch = fetcher()
    fetch.fetch("weights")
    assert (folder / NAME).read_bytes() == CONTENT
    assert server.ranges() == [None, *(f"bytes={n * STEP}-" for n in (1, 2, 3))]
    assert {request.headers["Accept-Encoding"] for request in server.requests} == {"identity"}
    timeouts = fetch.session.get_adapter("https://").timeouts
    assert len(timeouts) == 4
    assert all(0 < seconds <= 60 for timeout in timeouts for seconds in timeout), "silence is a cut"


@pytest.mark.parametrize("marks", [{}, {"etag": 'W/"x"', "Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_another_run_continues_what_one_left(server, fetcher, folder, marks):
    leave_a_part(server, fetcher(), folder, **marks)
    server.serve("/a", whole(CONTENT, **marks))
    fetcher().fetch("weights")
    assert (folder / NAME).read_bytes() == CONTENT
    assert server.ranges()[-1] == f"bytes={STEP}-"
    assert names(folder) == [NAME]


def test_a_complete_part_is_placed_and_a_published_digest_needs_no_record(server, fetcher, folder, tmp_path):
    leave_a_part(server, fetcher(), folder)
    (folder / f"{NAME}.part").write_bytes(CONTENT)
    server.serve("/a", whole(CONTENT))
    fetcher(sha256=DIGEST, size=SIZE, report=pytest.fail).fetch("weights")
    assert server.ranges()[2:] == [f"bytes={SIZE}-"], "nothing is downloaded again"
    assert not (tmp_path / "digests.json").exists()


def test_what_does_not_continue_the_same_version_is_started_over(server, fetcher, folder):
    others = [whole(CONTENT, ranges=False), whole(CONTENT, etag='"two"'), whole(CONTENT, etag=None), raw(416)]
    for odd in ("", f"bytes 0-{SIZE - 1}/{SIZE}", f"bytes {STEP}-{SIZE - 1}/9999999", "bytes */9"):
        others.append(raw(206, CONTENT[STEP:], ETag='"one"', Content_Range=odd))
    for answer in others:
        server.serve("/a", whole(CONTENT[::-1], stop=STEP), answer, whole(CONTENT, etag='"two"'))
        fetcher(sha256=DIGEST).fetch("weights")
        (folder / NAME).unlink()


def test_a_part_from_elsewhere_or_without_a_mark_of_its_version_is_not_continued(server, fetcher, folder):
    leave_a_part(server, fetcher(), folder)
    for weak in (None, 'W/"x"'):
        server.serve("/b", whole(CONTENT, etag=weak, stop=STEP), whole(CONTENT, etag=weak))
        fetcher(address="https://files.test/b").fetch("weights")
        (folder / NAME).unlink()
    assert server.ranges()[2:] == [None] * 4


def test_a_server_that_only_cuts_is_given_up(server, fetcher):
    server.serve("/a", raw(200, Content_Length=9, ETag='"one"'))
    refused(fetcher(), "weights: the connection was cut again without progress; 0 bytes are kept: fetch ag")
    assert len(server.requests) == 2


def test_wrong_bytes_and_wrong_sizes_leave_nothing_behind(server, fetcher, folder):
    def endless(request):
        request.head(200, Transfer_Encoding="chunked")
        while True:
            request.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    for answer, known, said in [
        (whole(CONTENT[::-1]), {"sha256": DIGEST}, DIGEST),
        (whole(CONTENT[::-1]), {"sha256_begins": DIGEST[:8]}, f"not {DIGEST[:8]}"),
        (whole(CONTENT), {"size": SIZE + 1}, f"offers {SIZE} bytes; size is {SIZE + 1}"),
        (whole(CONTENT), {"max_bytes": SIZE - 1}, f"offers {SIZE} bytes; .*max_bytes {SIZE - 1}"),
        (raw(200, CONTENT, Content_Length=1000), {"size": SIZE}, f"offers 1000 bytes; size is {SIZE}"),
        (endless, {"max_bytes": 10**6}, "sent more than max_bytes, 1000000"),
        (raw(200, CONTENT, Content_Length=None), {}, "does not announce the size"),
    ]:
        server.serve("/a", answer)
        refused(fetcher(**known), said)
        assert not (folder / f"{NAME}.part").is_file()
    assert len(server.requests) == 7
    assert fetcher(sha256=DIGEST).fetch("weights")[1], "with a digest, a cut would be noticed"


def test_what_is_not_the_file_is_refused_without_another_try(server, fetcher):
    answers = [
        (raw(200), "0 bytes"),
        (raw(200, CONTENT, **HTML), "does not send the file .status 200"),
        (raw(200, b"\n <!DOCTYPE HTML><html>"), "it is a web page"),
        (raw(200, b"\xef\xbb\xbf<html lang=en>"), "it is a web page"),
        (raw(200, CONTENT, Content_Encoding="gzip"), "compresses the file"),
        *((raw(status), f"status {status}") for status in (401, 403, 404, 410)),
    ]
    for answer, said in answers:
        server.serve("/a", answer)
        refused(fetcher(), said)
    assert len(server.requests) == len(answers)


def test_a_passing_failure_is_tried_again_a_few_times(server, fetcher):
    for status in (429, 500, 503):
        server.serve("/a", raw(status, Retry_After="9999"))
        refused(fetcher(), f"status {status}")
    assert len(server.requests) == 3 * 4
    server.serve("/a", raw(503, Retry_After="9999"), whole(CONTENT))
    assert fetcher().fetch("weights")[1]


def test_redirects_are_followed_to_a_limit_and_never_away_from_https(server, fetcher):
    server.serve("/a", raw(302, Location="https://other.test/b"))
    for target in ("http://other.test/x", "ftp://other.test/x", "file:///etc/passwd"):
        server.serve("/b", raw(302, Location=target))
        refused(fetcher(), "only https addresses are followed")
    server.serve("/b", raw(307, Location="/b"))
    refused(fetcher(), "8 redirects")
    server.serve("/b", raw(307, Location="/c"))
    server.serve("/c", whole(CONTENT))
    assert fetcher().fetch("weights")[1]


def test_without_a_network_host_and_place_are_named(fetcher, folder):
    fetch = fetcher(sha256=DIGEST)
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        fetch.session.get_adapter("https://").port = taken.getsockname()[1]
        said = refused(fetch, "weights: the request failed .*refused")
    for part in ("open https://files.test/a", str(folder / NAME), DIGEST, "size unknown", "licence MIT"):
        assert part in said
    assert "then run `clcae fetch weights` to check it" in said


def test_a_full_disk_and_a_folder_that_cannot_be_made_are_named(server, fetcher, tmp_path):
    server.serve("/a", whole(CONTENT))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (STEP, hard))
    try:
        refused(fetcher(), r"world cannot be written \(File too large\): free some space .*\(CLCAE_DATA\)")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (tmp_path / "elsewhere").write_text("a file")
    refused(fetcher(place="elsewhere/weights.pt"), "elsewhere cannot be written")
    assert fetcher().fetch("weights")[1]
    assert server.ranges() == [None, f"bytes={STEP}-"], "what was written was kept"


def test_links_are_not_written_through(server, fetcher, folder, tmp_path):
    leave_a_part(server, fetcher(), folder)
    (folder / f"{NAME}.part").replace(tmp_path / "victim")
    (folder / f"{NAME}.part").symlink_to(tmp_path / "victim")
    (tmp_path / "linked").symlink_to("/")
    server.serve("/a", whole(CONTENT))
    refused(fetcher(place="linked/weights.pt"), "behind a link to a place outside of .*: remove the link")
    assert fetcher().fetch("weights")[1]
    assert (tmp_path / "victim").read_bytes() == CONTENT[:STEP]
    assert not (folder / NAME).is_symlink()


@pytest.mark.parametrize("status", [200, 403])
def test_google_drive_is_asked_for_the_file_and_its_pages_become_instructions(server, fetcher, status):
    drive_id = ENTRY["address"].removeprefix("drive:")
    fetch = fetcher(address=ENTRY["address"])
    for title, said in [
        ("Quota exceeded", "quota of Google Drive for this file is used up: try again in 24 hours"),
        ("Virus scan warning", f"not send the file .status {status}, Google Drive - Virus scan warning"),
        ("Sign in", f"not send the file .status {status}, Google Drive - Sign in"),
    ]:
        page = f"<!DOCTYPE html><html><head><title>Google Drive - {title}</title></head></html>"
        server.serve("/download", raw(status, page.encode(), **HTML))
        message = refused(fetch, said)
        assert f"open https://drive.google.com/open?id={drive_id} in a browser and put the file at" in message
    server.serve("/download", whole(CONTENT))
    assert fetch.fetch("weights")[1]
    assert server.requests[-1].query == {"export": "download", "confirm": "t", "id": drive_id}


def test_an_unpublished_digest_is_recorded_at_first_use_and_kept(server, fetcher, tmp_path):
    said = []
    server.serve("/a", whole(CONTENT), whole(CONTENT[::-1]))
    path, _ = fetcher(report=said.append).fetch("weights")
    assert fetcher(report=said.append).fetch("weights") == (path, False)
    assert len(said) == 1
    assert f"{DIGEST} is recorded in {tmp_path / 'digests.json'}" in said[0]
    record = json.loads((tmp_path / "digests.json").read_text())["weights"]
    assert (record.pop("sha256"), record.pop("size")) == (DIGEST, SIZE)
    assert record.keys() == {"address", "first_used"}
    path.unlink()
    assert "; to accept another file, remove 'weights' from" in refused(fetcher(), DIGEST)


def test_a_file_put_there_by_hand_is_recorded_watched_and_never_deleted(fetcher, folder):
    (folder / NAME).write_bytes(CONTENT)
    with pytest.warns(UserWarning, match="is recorded"):
        Fetcher(fetcher().manifest, folder.parent).fetch("weights")
    for other in (CONTENT[::-1], CONTENT[:10]):
        (folder / NAME).write_bytes(other)
        with pytest.raises(AssetError, match=f"{NAME} is not weights: it.* not .* Move it away"):
            fetcher().fetch("weights")
        assert (folder / NAME).read_bytes() == other


def test_a_damaged_record_is_named(fetcher, tmp_path):
    for content in ("{", '{"weights": {"sha256": "0"}}', "[" * 5000):
        (tmp_path / "digests.json").write_text(content)
        refused(fetcher(), r"digests\.json is damaged: delete it")


def test_what_no_program_can_fetch_is_named_and_taken_when_it_is_there(fetcher, folder):
    pair = fetcher(address=f"drive-folder:{'x' * 20}", place="world/pair")
    (folder / "pair").mkdir()
    refused(pair, r"open\?id=x{20} in a browser and put the folder's files into .*pair ")
    (folder / "pair" / "a.pt").write_bytes(CONTENT)
    assert pair.fetch("weights") == (folder / "pair", False)
    unknown = fetcher(address="unknown", note="its address is unknown")
    refused(unknown, r"its address is unknown\. By hand: ask its authors and put the file at")
    (folder / NAME).write_bytes(CONTENT)
    assert unknown.fetch("weights") == (folder / NAME, False)
    (folder / "odd").mkdir()
    with pytest.raises(AssetError, match="is a folder instead of a file"):
        fetcher(place="world/odd").fetch("weights")


def test_threads_and_processes_wait_for_each_other_and_fetch_a_file_once(server, fetcher, folder):
    hold = "import filelock, sys; l = filelock.FileLock(sys.argv[1]); l.acquire(); print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(folder / f".{NAME}.lock")]
    said, found = [], []

    def report(text):
        said.append(text)
        if said.count("weights: another process is fetching it; waiting") == 3:
            other.kill()

    server.serve("/a", whole(CONTENT))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        fetchers = [fetcher(report=report) for _ in range(3)]
        threads = [threading.Thread(target=lambda f=f: found.append(f.fetch("weights"))) for f in fetchers]
        for step in (threading.Thread.start, threading.Thread.join):
            for thread in threads:
                step(thread)
    assert sorted(fetched for _, fetched in found) == [False, False, True]
    assert len(server.requests) == 1


@pytest.fixture
def shipped(repository, server, tmp_path, monkeypatch):
    """An empty data folder beside the shipped manifest, whose addresses all lead to the server."""
    monkeypatch.setenv("CLCAE_ROOT", str(repository))
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    local = functools.partial(Fetcher, session=server.session())
    monkeypatch.setattr("clcae_lib.weights.fetch.Fetcher", local)
    return tmp_path / "data"


def call(*arguments):
    return CliRunner().invoke(cli.app, ["fetch", *arguments])


def test_the_list_shows_every_asset_and_its_state(shipped):
    (shipped / "networks").mkdir(parents=True)
    (shipped / "networks" / "ir_se50.pth").write_bytes(CONTENT)
    result = call("--list")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.output.splitlines()}
    states = {name: lines[name][len(f"{name:<20} ") :].split(" data/")[0].strip() for name in PUBLISHED}
    assert (states["ir-se50"], states["moco"], states["cars-generator"]) == ("here", "to fetch", "by hand")


def test_a_wrong_name_gives_status_2_and_one_line(shipped):
    for arguments in (["fhq"], ["../../etc/passwd"], ["ffhq", "a" * 5000], []):
        result = call(*arguments)
        assert result.exit_code == 2
        assert result.output.startswith("error: ")
    assert not shipped.exists()


def test_a_set_is_fetched_on_after_a_failure_and_what_is_missing_gives_status_1(shipped, server):
    server.serve("/download", raw(404), whole(CONTENT))
    server.serve("/models/alexnet-owt-7be5be79.pth", whole(CONTENT))
    result = call("cars", "cars-contrastive")
    assert result.exit_code == 1
    assert result.output.endswith("not there: cars-inversion, cars-generator, alexnet, cars-contrastive\n")
    assert f"put the file at {shipped / 'cars' / 'stylegan2.pt'}" in result.output
    assert f"alexnet: its sha256 is {DIGEST}, not 7be5be79. By hand: open https://" in result.output
    moco = shipped / "networks" / "moco_v2_resnet50.pt"
    assert f"moco: fetched to {moco} (licence unknown)" in result.output
    assert f"moco: already {moco}" in call("moco").output
    os.truncate(moco, 10)
    for name, said in [("moco", f"it has 10 bytes, not {SIZE}"), ("alexnet", "run `clcae fetch alexnet`")]:
        with pytest.raises(AssetError, match=said):
            Fetcher(read_manifest(), shipped).check(name)

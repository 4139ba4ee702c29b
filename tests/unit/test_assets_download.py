"""A file comes whole and checked or not at all, from servers of every kind."""

import errno
import hashlib
import os
import shutil
import socket

import httpx
import numpy as np
import pytest

from clcae_lib.assets import AssetError, Policy
from clcae_lib.assets._client import opened
from clcae_lib.assets.download import Download, Expected
from tests.unit._server import Server, dribble, endless, raw, until_closed, whole

CONTENT = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PATIENCE = {"attempts": 3, "stall": 0.4, "connect": 2.0, "backoff": 0.01, "longest_wait": 0.05}


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "weights.pt"


def download(address, target, *, digest="", size=None, max_bytes=10**6, **policy):
    policy = Policy(**{**PATIENCE, "loopback": True, **policy})
    return Download(
        lambda client, headers: opened(client, address, headers, policy),
        address=address,
        target=target,
        expected=Expected(max_bytes=max_bytes, size=size, digest=digest),
        policy=policy,
    ).run()


def names(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_is_placed_whole_and_nothing_else_is_left(server, target):
    assert download(server.serve("/a", whole(CONTENT)), target) == DIGEST
    assert target.read_bytes() == CONTENT
    assert names(target) == ["weights.pt"]
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_a_name_that_the_server_gives_is_not_used(server, target):
    evil = 'attachment; filename="../../evil.pt"'
    download(server.serve("/a", whole(CONTENT, Content_Disposition=evil)), target)
    assert names(target) == ["weights.pt"]
    assert not (target.parent.parent / "evil.pt").exists()


def test_a_cut_connection_is_resumed_where_it_was_cut(server, target):
    address = server.serve("/a", *[whole(CONTENT, stop=30_000)] * 3, whole(CONTENT))
    assert download(address, target, attempts=1) == DIGEST, "an attempt that brings bytes does not count"
    assert server.ranges() == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]
    assert [request.headers["If-Range"] for request in server.requests[1:]] == ['"one"'] * 3


def test_another_run_resumes_what_one_left(server, target):
    address = server.serve("/a", whole(CONTENT, stop=30_000), raw(503), whole(CONTENT))
    with pytest.raises(AssetError, match="503"):
        download(address, target, attempts=1)
    assert names(target) == ["weights.pt.part", "weights.pt.part.json"]
    assert download(address, target) == DIGEST
    assert server.ranges()[-1] == "bytes=30000-"
    assert names(target) == ["weights.pt"]


def test_a_complete_part_is_placed_without_asking(server, target):
    address = server.serve("/a", whole(CONTENT, stop=30_000), raw(503))
    with pytest.raises(AssetError):
        download(address, target, attempts=1)
    (target.parent / "weights.pt.part").write_bytes(CONTENT)
    assert download(address, target) == DIGEST
    assert len(server.requests) == 2


def test_a_server_without_ranges_is_started_over(server, target):
    address = server.serve("/a", whole(CONTENT, stop=30_000), whole(CONTENT, ranges=False))
    assert download(address, target) == DIGEST
    assert server.ranges() == [None, "bytes=30000-"]


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changed_meanwhile_is_started_over(server, target, honest):
    """The new version is offered at once, or its rest is sent as if nothing had happened."""
    new = CONTENT[::-1]
    rest = {"ETag": '"two"', "Content_Range": f"bytes 30000-{len(new) - 1}/{len(new)}"}
    careless = raw(206, new[30_000:], **rest)
    answers = [whole(new, etag='"two"')] if honest else [careless, whole(new, etag='"two"')]
    address = server.serve("/a", whole(CONTENT, stop=30_000), *answers)
    assert download(address, target) == hashlib.sha256(new).hexdigest()
    assert target.read_bytes() == new


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-99999/100000",
        "bytes 30000-99999/100001",
        "bytes 30000-100000/100000",
        "bytes */100000",
        "",
        "x",
    ],
)
def test_an_answer_that_continues_elsewhere_is_not_believed(server, target, content_range):
    odd = raw(206, CONTENT[30_000:], ETag='"one"', Content_Range=content_range)
    address = server.serve("/a", whole(CONTENT, stop=30_000), odd, whole(CONTENT))
    assert download(address, target) == DIGEST
    assert server.ranges() == [None, "bytes=30000-", None]


def test_a_refused_range_is_started_over(server, target):
    address = server.serve("/a", whole(CONTENT, stop=30_000), raw(416), whole(CONTENT))
    assert download(address, target) == DIGEST


@pytest.mark.parametrize("known", [True, False])
def test_without_a_mark_of_the_version_only_a_known_digest_allows_to_resume(server, target, known):
    address = server.serve("/a", whole(CONTENT, etag=None, stop=30_000), whole(CONTENT, etag=None))
    assert download(address, target, digest=DIGEST if known else "") == DIGEST
    assert server.ranges() == [None, "bytes=30000-" if known else None]


def test_a_date_marks_a_version_where_the_tag_is_weak(server, target):
    marks = {"etag": 'W/"x"', "Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    download(server.serve("/a", whole(CONTENT, stop=30_000, **marks), whole(CONTENT)), target)
    assert server.requests[1].headers["If-Range"] == marks["Last_Modified"]


def test_a_part_from_elsewhere_is_not_continued(server, target):
    first = server.serve("/a", whole(CONTENT[::-1], stop=30_000), raw(503))
    with pytest.raises(AssetError):
        download(first, target, attempts=1)
    assert download(server.serve("/b", whole(CONTENT)), target) == DIGEST
    assert server.ranges()[-1] is None


def test_a_wrong_part_is_thrown_away_once(server, target):
    address = server.serve("/a", whole(CONTENT, stop=30_000), raw(503), whole(CONTENT))
    with pytest.raises(AssetError):
        download(address, target, attempts=1)
    (target.parent / "weights.pt.part").write_bytes(bytes(30_000))
    assert download(address, target, digest=DIGEST) == DIGEST
    assert server.ranges()[-2:] == ["bytes=30000-", None]


def test_a_stall_is_cut_and_resumed(server, target):
    address = server.serve("/a", dribble(CONTENT, first=30_000, every=5), whole(CONTENT))
    assert download(address, target) == DIGEST
    assert server.ranges() == [None, "bytes=30000-"]


def test_a_server_that_stays_silent_is_given_up(server, target):
    address = server.serve("/a", dribble(CONTENT, first=0, every=5))
    with pytest.raises(AssetError, match=r"127\.0\.0\.1 is silent, after 3 attempts"):
        download(address, target)
    assert not target.exists()


def test_a_trickle_is_a_stall(server, target):
    address = server.serve("/a", dribble(CONTENT, first=0, every=0.05), whole(CONTENT))
    assert download(address, target, slowest=1000) == DIGEST
    assert len(server.requests) == 2


def test_little_progress_without_end_is_given_up(server, target):
    address = server.serve("/a", whole(CONTENT, stop=10))
    with pytest.raises(AssetError, match="after 7 attempts"):
        download(address, target, connections=7)


def test_a_length_that_is_too_great_never_makes_a_file(server, target):
    address = server.serve("/a", raw(200, CONTENT, Content_Length=len(CONTENT) + 500, ETag='"one"'))
    with pytest.raises(AssetError, match=r"cut.*after \d attempts"):
        download(address, target)
    assert not target.exists()


def test_a_length_that_is_too_small_is_noticed_by_digest_and_size(server, target):
    address = server.serve("/a", raw(200, CONTENT, Content_Length=1000))
    with pytest.raises(AssetError, match=f"its sha256 is .*, not {DIGEST}"):
        download(address, target, digest=DIGEST)
    with pytest.raises(AssetError, match="offers 1000 bytes in place of 100000"):
        download(address, target, size=len(CONTENT))
    assert not target.exists()


def test_wrong_bytes_leave_nothing_behind(server, target):
    address = server.serve("/a", whole(CONTENT[::-1]))
    for digest in (DIGEST, DIGEST[:8]):
        with pytest.raises(AssetError, match=f"not {digest}"):
            download(address, target, digest=digest)
        assert names(target) == []


def test_too_large_a_file_is_refused_before_it_is_read(server, target):
    with pytest.raises(AssetError, match="has 100000 bytes, more than max_bytes, 99999"):
        download(server.serve("/a", whole(CONTENT)), target, max_bytes=99_999)
    assert names(target) == []


def test_bytes_without_end_are_cut_at_the_limit(server, target):
    with pytest.raises(AssetError, match="more than 1000000 bytes came"):
        download(server.serve("/a", endless), target)
    assert names(target) == []
    assert len(server.requests) == 1


def test_an_unknown_length_needs_something_to_check_against(server, target):
    address = server.serve("/a", until_closed(CONTENT))
    with pytest.raises(AssetError, match="does not say how long"):
        download(address, target)
    assert download(address, target, digest=DIGEST) == DIGEST


@pytest.mark.parametrize("body", [raw(200), until_closed(b"")])
def test_an_empty_file_is_refused(server, target, body):
    with pytest.raises(AssetError, match="empty file"):
        download(server.serve("/a", body), target, digest=DIGEST)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (CONTENT, {"Content_Type": "text/html; charset=utf-8"}),
        (b"\n <!DOCTYPE HTML><html>" + CONTENT, {}),
        (b"\xef\xbb\xbf<html lang=en>", {"Content_Type": "application/octet-stream"}),
    ],
)
def test_a_web_page_in_place_of_the_file_is_noticed(server, target, body, headers):
    with pytest.raises(AssetError, match="a web page came in place"):
        download(server.serve("/a", raw(200, body, **headers)), target)
    assert not target.exists()


def test_a_packed_answer_is_refused(server, target):
    with pytest.raises(AssetError, match=r"packed \(gzip\)"):
        download(server.serve("/a", raw(200, CONTENT, Content_Encoding="gzip")), target)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_final_answer_is_not_asked_for_again(server, target, status):
    with pytest.raises(AssetError, match=f"answers {status}"):
        download(server.serve("/a", raw(status)), target)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_trouble_is_waited_for(server, target, status):
    address = server.serve("/a", raw(status, Retry_After="9999"), raw(status), whole(CONTENT))
    assert download(address, target) == DIGEST, "and the wait has an upper limit"


def test_trouble_that_does_not_pass_is_given_up(server, target):
    with pytest.raises(AssetError, match="answers 500, after 3 attempts"):
        download(server.serve("/a", raw(500)), target)
    assert len(server.requests) == 3


def test_redirects_are_followed_to_a_limit(server, target):
    server.serve("/b", raw(307, Location="/c"))
    server.serve("/c", whole(CONTENT))
    assert download(server.serve("/a", raw(302, Location="/b")), target) == DIGEST
    with pytest.raises(AssetError, match="redirected more than 8 times"):
        download(server.serve("/round", raw(302, Location="/round")), target)


@pytest.mark.parametrize(
    "place",
    ["http://example.org/x", "ftp://example.org/x", "file:///etc/passwd", "//user:pass@example.org/x"],
)
def test_a_redirect_away_from_https_is_refused(server, target, place):
    with pytest.raises(AssetError, match=r"is no https|no plain address"):
        download(server.serve("/a", raw(302, Location=place)), target)
    assert names(target) == []


def test_every_hop_of_a_chain_is_https(target):
    asked = []

    def answer(request):
        asked.append(str(request.url))
        hops = {"a.test": "https://b.test/x", "b.test": "http://c.test/x"}
        return httpx.Response(302, headers={"Location": hops[request.url.host]})

    with pytest.raises(AssetError, match=r"http://c\.test is no https"):
        download("https://a.test/x", target, loopback=False, transport=httpx.MockTransport(answer))
    assert asked == ["https://a.test/x", "https://b.test/x"]


def test_plain_http_is_refused_even_on_this_machine(server, target):
    with pytest.raises(AssetError, match="is no https"):
        download(server.serve("/a", whole(CONTENT)), target, loopback=False)
    assert server.requests == []


def test_without_a_network_the_host_is_named(target):
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(AssetError, match=r"no connection to 127\.0\.0\.1: .*, after 3 attempts"):
            download(f"http://127.0.0.1:{taken.getsockname()[1]}/a", target)


def test_a_full_disk_is_told_before_anything_is_written(server, target, monkeypatch):
    usage = shutil.disk_usage(target.parent)._replace(free=50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        AssetError, match=r"no room in .* make room, or keep the data elsewhere \(CLCAE_DATA\)"
    ):
        download(server.serve("/a", whole(CONTENT)), target)
    assert not target.exists()


def test_a_disk_that_fills_meanwhile_is_told_the_same_way(server, target, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    append = "clcae_lib.assets._part.Part.append"
    monkeypatch.setattr(append, lambda part: Full(part.path.open("ab")))
    with pytest.raises(AssetError, match=r"no room in .*No space left"):
        download(server.serve("/a", whole(CONTENT)), target)
    assert not target.exists()
    assert len(server.requests) == 1


def test_a_link_in_the_part_s_place_is_not_written_through(server, target, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "weights.pt.part").symlink_to(victim)
    assert download(server.serve("/a", whole(CONTENT)), target) == DIGEST
    assert victim.read_bytes() == b"precious"
    assert not os.path.islink(target)

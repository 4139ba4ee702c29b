"""Google Drive's question is answered, its refusals are understood, and nothing else is followed."""

import hashlib

import httpx
import pytest

from clcae_lib.assets import AssetError, Policy
from clcae_lib.assets._drive import drive_opened, parse_page
from clcae_lib.assets.download import Download, Expected
from tests.unit._server import Server, raw, whole
from tests.unit.test_assets_download import PATIENCE

CONTENT = bytes(range(256)) * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HTML = {"Content_Type": "text/html; charset=utf-8"}


def question(action, **fields):
    """The page that asks whether to download what was not scanned."""
    inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items())
    return f"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
        <form action="/search" method="get"><input type="hidden" name="q" value="elsewhere"></form>
        <p>weights.pt (1.1G) is too large for Google to scan for viruses.</p>
        <form id="download-form" action="{action}" method="get"><input type="submit" value="Download anyway"/>
        {inputs}</form><form><input type="hidden" name="late" value="no"></form></body></html>""".encode()


def refusal(title, text=""):
    return (
        f"<!DOCTYPE html><html><head><title>{title}</title></head><body><p>{text}</p></body></html>".encode()
    )


QUOTA = refusal(
    "Google Drive - Quota exceeded",
    "Sorry, you can't view or download this file at this time.\n Too many users have viewed or downloaded",
)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def fetch(address, target, **policy):
    policy = Policy(**{**PATIENCE, "loopback": True, **policy})
    return Download(
        lambda client, headers: drive_opened(client, "some-id", headers, policy, base=address),
        address="drive:some-id",
        target=target,
        expected=Expected(max_bytes=10**6),
        policy=policy,
    ).run()


def test_a_small_file_comes_at_once(server, tmp_path):
    assert fetch(server.serve("/uc", whole(CONTENT)), tmp_path / "a") == DIGEST
    assert server.requests[0].query == {"export": "download", "id": "some-id"}


def test_the_question_is_answered_with_the_form_s_hidden_fields(server, tmp_path):
    server.serve("/download", whole(CONTENT))
    page = question(
        "/download?authuser=0&amp;x=1", id="some-id", export="download", confirm="t", uuid="a&amp;b"
    )
    assert fetch(server.serve("/uc", raw(200, page, **HTML)), tmp_path / "a") == DIGEST
    sent = {"authuser": "0", "x": "1", "id": "some-id", "export": "download", "confirm": "t", "uuid": "a&b"}
    assert server.requests[1].query == sent


def test_a_cut_is_resumed_through_the_question(server, tmp_path):
    server.serve("/download", whole(CONTENT, stop=1000), whole(CONTENT))
    page = question("/download", id="some-id", confirm="t")
    address = server.serve("/uc", raw(200, page, **HTML))
    assert fetch(address, tmp_path / "a") == DIGEST
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [(r.headers.get("Range"), r.path[:4]) for r in server.requests[2:]] == [
        ("bytes=1000-", "/uc?"),
        ("bytes=1000-", "/dow"),
    ]


def test_cookies_of_the_question_come_along(server, tmp_path):
    server.serve("/download", whole(CONTENT))
    page = question("/download", id="some-id", confirm="t")
    fetch(server.serve("/uc", raw(200, page, Set_Cookie="warned=yes; Path=/", **HTML)), tmp_path / "a")
    assert server.requests[1].headers["Cookie"] == "warned=yes"


def test_at_google_the_form_leads_to_another_host(tmp_path):
    def answer(request):
        if request.url.host == "drive.google.com":
            page = question("https://drive.usercontent.google.com/download", id="some-id", confirm="t")
            return httpx.Response(200, content=page, headers={"Content-Type": "text/html"})
        assert request.url.params["confirm"] == "t"
        return httpx.Response(
            200, stream=httpx.ByteStream(CONTENT), headers={"Content-Length": str(len(CONTENT))}
        )

    transport = httpx.MockTransport(answer)
    address = "https://drive.google.com/uc"
    assert fetch(address, tmp_path / "a", transport=transport, loopback=False) == DIGEST


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("https://evil.test/download", "leads to evil.test, which is not Google's"),
        ("https://evilgoogle.com/download", "not Google's"),
        ("http://drive.usercontent.google.com/download", "is no https"),
        ("file:///download", "not Google's"),
    ],
)
def test_a_form_that_leads_elsewhere_is_not_sent(server, tmp_path, action, said):
    page = question(action, id="some-id", confirm="t")
    with pytest.raises(AssetError, match=said):
        fetch(server.serve("/uc", raw(200, page, **HTML)), tmp_path / "a")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [200, 403, 429])
def test_a_used_up_quota_is_told_as_such(server, tmp_path, status):
    with pytest.raises(AssetError, match="download quota for this file is used up; try again in 24 hours"):
        fetch(server.serve("/uc", raw(status, QUOTA, **HTML)), tmp_path / "a")
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_quota_may_be_used_up_behind_the_question(server, tmp_path):
    server.serve("/download", raw(200, QUOTA, **HTML))
    page = question("/download", id="some-id", confirm="t")
    with pytest.raises(AssetError, match="quota"):
        fetch(server.serve("/uc", raw(200, page, **HTML)), tmp_path / "a")


def test_a_question_is_answered_once(server, tmp_path):
    page = question("/uc/download", id="some-id", confirm="t")
    server.serve("/uc/download", raw(200, page, **HTML))
    with pytest.raises(
        AssetError, match=r"web page in place of the file \(Google Drive - Virus scan warning\)"
    ):
        fetch(server.serve("/uc", raw(200, page, **HTML)), tmp_path / "a")
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "said"), [(404, "has no such file any more"), (200, r"in place of the file \(Sorry\)")]
)
def test_other_pages_are_refused(server, tmp_path, status, said):
    with pytest.raises(AssetError, match=said):
        fetch(server.serve("/uc", raw(status, refusal("Sorry"), **HTML)), tmp_path / "a")


def test_a_login_is_told_as_such(tmp_path):
    def answer(request):
        if request.url.host == "accounts.google.com":
            return httpx.Response(200, html="<html><title>Sign in</title>")
        return httpx.Response(302, headers={"Location": "https://accounts.google.com/v3/signin"})

    with pytest.raises(AssetError, match="asks for a login: the file is not shared with everybody"):
        fetch("https://drive.google.com/uc", tmp_path / "a", transport=httpx.MockTransport(answer))


def test_a_passing_trouble_is_waited_for(server, tmp_path):
    address = server.serve("/uc", raw(500, refusal("Error 500"), **HTML), whole(CONTENT))
    assert fetch(address, tmp_path / "a") == DIGEST


@pytest.mark.parametrize(
    "page", ["", "<form", "<form action=/download><input", "<input type=hidden name=x>" * 9999], ids=range(4)
)
def test_a_broken_page_is_no_crash(page):
    assert parse_page(page).fields == {}


def test_a_page_without_end_is_read_to_a_limit(server, tmp_path):
    def endless(request):
        request.head(200, Transfer_Encoding="chunked", **HTML)
        while True:
            request.wfile.write(b"10000\r\n" + b"<" * 0x10000 + b"\r\n")

    with pytest.raises(AssetError, match="web page in place of the file"):
        fetch(server.serve("/uc", endless), tmp_path / "a")

"""The served explorer among connections that no browser makes."""

import asyncio
import json
import re
import struct
import time
import uuid
from contextlib import closing

import psutil
import pytest
import requests
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from tests.browser.conftest import voila

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("voila")]

PROTOCOL = "v1.kernel.websocket.jupyter.org"


def frame(*parts, offsets=None):
    """A frame of the protocol v1 with these parts, or with offsets that are not theirs."""
    if offsets is None:
        offsets = [8 * (len(parts) + 2)]
        for part in parts:
            offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts)


def question():
    """A well-formed frame: what is the kernel?"""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "kernel_info_request", "username": "", "version": "5.3"}
    header |= {"session": "visitor", "date": "2020-01-01T00:00:00Z"}
    return frame(b"shell", json.dumps(header).encode(), b"{}", b"{}", b"{}")


HOSTILE = {
    "a count of 2**64 - 1": b"\xff" * 8,
    "a count above the length": struct.pack("<Q", 90) + bytes(80),
    "offsets without an end": struct.pack("<Q", 100_000) + bytes(800_000),
    "parts that overlap": frame(offsets=[0, 400_000] * 50) + bytes(400_000),
    "offsets beyond the end": frame(offsets=[56, 61, 2**63, 2**63, 2**63, 2**63]) + bytes(9),
    "no parts": frame(offsets=[]),
    "nothing": b"",
    "a text": "{}",
}


async def ends(url, content):
    """Send a hostile frame, and return the reason for which the server ends the connection."""
    socket = await websocket_connect(url, subprotocols=[PROTOCOL])
    with closing(socket):
        await socket.write_message(content, binary=isinstance(content, bytes))
        while await socket.read_message() is not None:
            pass
    return socket.close_code


async def refused(url, **headers):
    """Open a websocket that must be refused, and return the status of the refusal."""
    protocols = [PROTOCOL] if headers else []
    with pytest.raises(HTTPClientError) as caught:
        await websocket_connect(HTTPRequest(url, headers=headers), subprotocols=protocols)
    return caught.value.code


async def answer(address):
    """Ask for the page, which has no place left, and return the seconds until it answers."""
    begun = time.monotonic()
    page = await asyncio.to_thread(requests.get, address, timeout=60)
    assert page.status_code == 503, "all places are taken"
    return time.monotonic() - begun


async def attack(address, kernel):
    """Make twenty hostile connections at the same time, while the page answers others."""
    url = f"{address.replace('http', 'ws')}api/kernels/{kernel}/channels?session_id="
    evil = f"evil.test:{address.split(':')[-1].rstrip('/')}"
    sockets = [ends(f"{url}{number}", content) for number, content in enumerate([*HOSTILE.values()] * 2)]
    foreign = [refused(f"{url}a", Host=evil, Origin=f"http://{evil}") for _ in range(2)]
    bare = [refused(f"{url}b") for _ in range(2)]
    limit = max(
        1.0, 10 * max([await answer(address) for _ in range(5)])
    )  # a busy machine is slow in any case
    attacks = asyncio.gather(*sockets, *foreign, *bare)
    while not attacks.done():
        assert await answer(address) < limit
    assert await attacks == [1002] * len(sockets) + [403] * 2 + [400] * 2
    socket = await websocket_connect(f"{url}visitor", subprotocols=[PROTOCOL])
    with closing(socket):
        await socket.write_message(question(), binary=True)
        while b"kernel_info_reply" not in (reply := await socket.read_message()):
            assert reply is not None


def test_hostile_connections_are_ended_while_the_page_answers_others_from_flat_memory():
    with voila("--visitors", "1", "--name", "explorer.test") as address:
        evil = requests.get(address, headers={"Host": "evil.test"}, timeout=60)
        assert evil.status_code == 403, "a foreign name starts a kernel"
        page = requests.get(address, headers={"Host": "explorer.test"}, timeout=200)
        kernel = re.search(r'"kernelId": "([\w-]+)"', page.text)[1]
        # Other tests of this worker may have left helpers of multiprocessing.
        (process,) = [child for child in psutil.Process().children() if "explore" in child.cmdline()]
        before = process.memory_info().rss
        asyncio.run(asyncio.wait_for(attack(address, kernel), 200))
        assert process.memory_info().rss < before + 150e6

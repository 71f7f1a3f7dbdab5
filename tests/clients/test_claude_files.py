"""Files and sessions' resources with Anthropic's SDK, newest and old: what goes in is seen in the sandbox, and what agents
write comes out."""

import base64
import hashlib
import http.client
import io
import os
import uuid

import anthropic
import httpx
import pytest

from conftest import Server
from test_claude_client import IS_NEW, answered, connect, message, only, scripted

AGENTS = ["managed-agents-2026-04-01"]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture()
def client(server):
    with connect(server) as client:
        yield client


@pytest.fixture()
def beta(client):
    return client.beta


@pytest.fixture(scope="session")
def environment(server):
    with connect(server) as client:
        return client.beta.environments.create(name=f"files {uuid.uuid4()}")


def upload(client, name="data.csv", content=b"a,b\n1,2\n", kind="text/csv"):
    return client.files.upload(file=(name, content, kind))


def opened(beta, environment, *turns, **options):
    return beta.sessions.create(agent=scripted(beta, *turns).id, environment_id=environment.id, **options)


def raw(server, method, path, **options):
    headers = {"anthropic-version": "2026-10-21"} | options.pop("headers", {})
    return httpx.request(method, server.url + path, headers=headers, trust_env=False, **options)


def test_files_come_and_go(client):
    file = client.files.upload(file=("some/where/data.csv", b"a,b\n1,2\n", "text/csv"), expires_in_seconds=3600)
    assert (file.type, file.filename, file.mime_type, file.size_bytes) == ("file", "data.csv", "text/csv", 8)
    assert file.downloadable is False and (file.expires_at - file.created_at).total_seconds() == 3600
    assert client.files.retrieve_metadata(file.id) == file
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.files.download(file.id)
    assert refused.value.body["error"]["details"]["error_code"] == "file_not_downloadable"
    guessed = client.files.upload(file=("picture.png", PIXEL))
    assert guessed.mime_type == "image/png" and guessed.expires_at is None
    assert client.files.upload(file=("none", b"")).size_bytes == 0

    assert client.files.delete(file.id).id == file.id
    for call in (client.files.retrieve_metadata, client.files.delete, client.files.download):
        with pytest.raises(anthropic.NotFoundError):
            call(file.id)


def test_lists_of_files(client):
    files = [upload(client, f"{number}.csv") for number in range(5)]
    newest = [file.id for file in reversed(files)]
    first = client.files.list(limit=2)
    assert [file.id for file in first.data] == newest[:2]
    listed = []
    for file in first:
        listed.append(file.id)
        if len(listed) == 5:
            break
    assert listed == newest
    named = client.files.list(ids=[files[3].id, files[1].id, "file_unknown"])
    assert {file.id for file in named.data} == {files[1].id, files[3].id}
    with pytest.raises(anthropic.BadRequestError):
        client.files.list(ids=[files[0].id], limit=5)


@pytest.mark.skipif(IS_NEW, reason="newer SDKs have the newer shape only; the server's tests cover this for all")
def test_lists_of_the_older_shape(client):
    files = [upload(client, f"{number}.csv") for number in range(4)]
    newest = [file.id for file in reversed(files)]
    page = client.beta.files.list(limit=2)
    assert [file.id for file in page.data] == newest[:2] and page.has_more is True
    assert (page.first_id, page.last_id) == (newest[0], newest[1])
    after = client.beta.files.list(after_id=newest[1], limit=2)
    assert [file.id for file in after.data] == newest[2:]
    before = client.beta.files.list(before_id=newest[3], limit=2)
    assert [file.id for file in before.data] == newest[1:3] and before.has_more is True


def test_bad_uploads_are_refused_with_what_is_wrong(server, client):
    for form, expected in [
        ({"files": {"other": ("a", b"x")}}, "other: Extra inputs are not permitted"),
        ({"files": {"file": (None, b"x")}}, "filename"),
        ({"files": {"file": ("a", b"x")}, "data": {"expires_in_seconds": "10"}}, "expires_in_seconds"),
        ({"files": [("file", ("a", b"x")), ("file", ("b", b"y"))]}, "only once"),
        ({"files": {"file": ("..", b"x")}}, "name"),
        ({"json": {"file": "x"}}, "multipart/form-data"),
    ]:
        answer = raw(server, "POST", "/v1/files", **form)
        error = answer.json()["error"]
        assert answer.status_code == 400 and expected in error["message"], error
    # What is too large is refused before it is sent.
    address = httpx.URL(server.url)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    connection.putrequest("POST", "/v1/files")
    for name, value in [
        ("anthropic-version", "2026-10-21"),
        ("content-type", "multipart/form-data; boundary=b"),
        ("content-length", str(1 << 40)),
    ]:
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()



def test_a_large_file_passes_through(client, beta, environment):
    content = os.urandom(24 << 20)
    file = client.files.upload(file=("large.bin", io.BytesIO(content)))
    assert file.size_bytes == len(content)
    session = opened(
        beta,
        environment,
        [
            [{"tool": "bash", "input": {"command": "cd /mnt/session && sha256sum < uploads/large.bin && cp uploads/large.bin outputs/copy.bin"}}],
            [{"text": "{{last_tool_result}}"}],
        ],
        resources=[{"type": "file", "file_id": file.id, "mount_path": "/large.bin"}],
    )
    said = only(answered(beta, session, message("go")), "agent.message").content[0].text
    assert hashlib.sha256(content).hexdigest() in said
    (made,) = [one for one in beta.files.list(scope_id=session.id, betas=AGENTS).data if one.downloadable]
    assert beta.files.download(made.id).read() == content


def test_what_a_session_is_given_and_what_it_makes(client, beta, environment):
    data = upload(client)
    look = "cd /mnt/session/uploads; ls; cat data.csv; echo x > data.csv; echo x > new"
    make = "cd /mnt/session/outputs; mkdir sub; echo '<b>1</b>' > page.html; echo 2 > sub/two.txt; ln -s /etc/passwd link"
    session = opened(
        beta,
        environment,
        [[{"tool": "bash", "input": {"command": f"{look}; {make}"}}], [{"text": "{{last_tool_result}}"}]],
        [[{"tool": "bash", "input": {"command": "ls /mnt/session/uploads; echo 3 > /mnt/session/outputs/page.html"}}], [{"text": "{{last_tool_result}}"}]],
        resources=[
            {"type": "file", "file_id": data.id, "mount_path": "/data.csv"},
            {"type": "file", "file_id": data.id},
        ],
    )
    first, second = session.resources
    assert first.mount_path == "/mnt/session/uploads/data.csv"
    assert second.mount_path == f"/mnt/session/uploads/{data.id}"
    assert len({first.file_id, second.file_id, data.id}) == 3, "each is a copy of its own"
    assert beta.sessions.resources.retrieve(first.id, session_id=session.id) == first
    assert beta.sessions.retrieve(session.id).resources == session.resources
    assert list(beta.sessions.resources.list(session.id)) == session.resources

    said = only(answered(beta, session, message("look")), "agent.message").content[0].text
    assert "data.csv" in said and "a,b\n1,2" in said and said.count("Read-only file system") == 2, said
    made = {one.filename: one for one in beta.files.list(scope_id=session.id, betas=AGENTS).data if one.downloadable}
    assert set(made) == {"page.html", "two.txt"}
    page = made["page.html"]
    assert (page.mime_type, page.scope.type, page.scope.id) == ("text/html", "session", session.id)
    answer = beta.files.with_raw_response.download(page.id)
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert beta.files.download(page.id).read() == b"<b>1</b>\n"

    # While the sandbox is there, what is added and removed is seen at once.
    late = upload(client, "late.txt", b"late", "text/plain")
    added = beta.sessions.resources.add(session.id, file_id=late.id, type="file", mount_path="late.txt")
    beta.sessions.resources.delete(first.id, session_id=session.id)
    said = only(answered(beta, session, message("again")), "agent.message").content[0].text
    assert "late.txt" in said and "data.csv" not in said, said
    assert [one.id for one in beta.sessions.resources.list(session.id)] == [second.id, added.id]
    with pytest.raises(anthropic.NotFoundError):
        beta.sessions.resources.retrieve(first.id, session_id=session.id)
    again = {one.filename: one for one in beta.files.list(scope_id=session.id, betas=AGENTS).data if one.downloadable}
    assert again["two.txt"].id == made["two.txt"].id and again["page.html"].id != page.id
    assert beta.files.download(again["page.html"].id).read() == b"3\n"
    with pytest.raises(anthropic.NotFoundError):
        beta.files.download(page.id)

    # With the session go its files, and only they.
    beta.sessions.delete(session.id)
    assert beta.files.list(scope_id=session.id, betas=AGENTS).data == []
    with pytest.raises(anthropic.NotFoundError):
        beta.files.download(again["page.html"].id)
    assert client.files.retrieve_metadata(data.id).id == data.id


def test_bad_resources_are_refused(client, beta, environment):
    data = upload(client)
    agent = scripted(beta, [[{"text": "hi"}]])
    for resources, expected in [
        ([{"type": "file", "file_id": "file_unknown"}], "file"),
        ([{"type": "file", "file_id": data.id, "mount_path": "/../x"}], "mount_path"),
        ([{"type": "file", "file_id": data.id, "mount_path": "/a"}, {"type": "file", "file_id": data.id, "mount_path": "/a/b"}], "mount_path"),
    ]:
        with pytest.raises(anthropic.APIStatusError) as refused:
            beta.sessions.create(agent=agent.id, environment_id=environment.id, resources=resources)
        assert refused.value.status_code in (400, 404) and expected in refused.value.message


def test_messages_show_files(client, beta, environment):
    picture = upload(client, "picture.png", PIXEL, "image/png")
    text = upload(client, "notes.txt", "größe".encode(), "text/plain")
    session = opened(beta, environment, [[{"text": "seen"}]])
    content = [
        {"type": "image", "source": {"type": "file", "file_id": picture.id}},
        {"type": "document", "source": {"type": "file", "file_id": text.id}, "title": "Notes"},
    ]
    events = answered(beta, session, {"type": "user.message", "content": content})
    shown = only(events, "user.message").content
    assert base64.b64decode(shown[0].source.data) == PIXEL
    assert shown[1].source.data == "größe" and shown[1].title == "Notes"
    for block, expected in [
        ({"type": "image", "source": {"type": "file", "file_id": text.id}}, "no image"),
        ({"type": "document", "source": {"type": "file", "file_id": picture.id}}, "no document"),
        ({"type": "image", "source": {"type": "file", "file_id": "file_none"}}, "events.0.content.0.source.file_id"),
    ]:
        with pytest.raises(anthropic.BadRequestError) as refused:
            beta.sessions.events.send(session.id, events=[{"type": "user.message", "content": [block]}])
        assert expected in refused.value.message


def test_files_outlast_a_kill(tmp_path):
    """What was acknowledged is there after `kill -9`; what was under way has left nothing."""
    server = Server()
    server.start()
    try:
        with connect(server) as client:
            kept = upload(client)
            gone = upload(client, "gone.txt")
            client.files.delete(gone.id)
        blobs = server.data / "files"

        def endless():
            yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="half"\r\n\r\n'
            yield b"x" * (4 << 20)
            # Half of it has arrived by now, as the file shows.
            deadline = 500_000
            while not any(path.stat().st_size for path in blobs.glob(".partial-*")):
                deadline -= 1
                assert deadline, "the upload does not arrive"
            server.process.kill()
            server.process.wait()
            yield b"x"

        with pytest.raises(httpx.TransportError):
            raw(server, "POST", "/v1/files", headers={"content-type": "multipart/form-data; boundary=b"}, content=endless())
        assert list(blobs.glob(".partial-*"))
        (blobs / "file_orphan").write_bytes(b"no row")
        server.log.close()
        server.start()
        assert sorted(path.name for path in blobs.iterdir()) == [kept.id]
        with connect(server) as client:
            assert client.files.retrieve_metadata(kept.id).size_bytes == 8
    finally:
        server.stop()
        server.remove()

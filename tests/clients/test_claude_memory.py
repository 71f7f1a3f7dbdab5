"""Memory stores through Anthropic's SDK, the newest and an old one."""

import hashlib
import uuid

import anthropic
import pytest

from test_claude_client import answered, beta, client, environment, message, only, scripted  # noqa: F401 (fixtures)


@pytest.fixture()
def store(beta):  # noqa: F811
    return beta.memory_stores.create(name=f"Store {uuid.uuid4()}", description="facts", metadata={"a": "1"})


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_stores(beta, store):  # noqa: F811
    assert (store.type, store.description, store.metadata, store.archived_at) == ("memory_store", "facts", {"a": "1"}, None)
    changed = beta.memory_stores.update(store.id, name="Other", metadata={"a": None, "b": "2"})
    assert (changed.name, changed.metadata, changed.description) == ("Other", {"b": "2"}, "facts")
    assert beta.memory_stores.retrieve(store.id) == changed
    assert store.id in [found.id for found in beta.memory_stores.list(limit=1)]
    archived = beta.memory_stores.archive(store.id)
    assert archived.archived_at is not None
    assert store.id not in [found.id for found in beta.memory_stores.list()]
    assert store.id in [found.id for found in beta.memory_stores.list(include_archived=True)]
    with pytest.raises(anthropic.BadRequestError):
        beta.memory_stores.memories.create(store.id, path="/a", content="x")
    gone = beta.memory_stores.delete(store.id)
    assert (gone.id, gone.type) == (store.id, "memory_store_deleted")
    with pytest.raises(anthropic.NotFoundError):
        beta.memory_stores.retrieve(store.id)


def test_memories(beta, store):  # noqa: F811
    memories = beta.memory_stores.memories
    made = memories.create(store.id, path="/notes/a.md", content="eins", view="full")
    assert (made.type, made.path, made.content, made.content_sha256) == ("memory", "/notes/a.md", "eins", sha("eins"))
    assert memories.create(store.id, path="/b.md", content="").content is None
    assert memories.retrieve(made.id, memory_store_id=store.id).content == "eins"

    with pytest.raises(anthropic.ConflictError) as taken:
        memories.create(store.id, path="/notes/a.md", content="x")
    assert taken.value.response.headers["x-should-retry"] == "false"
    error = taken.value.body["error"]
    assert (error["type"], error["conflicting_memory_id"]) == ("memory_path_conflict_error", made.id)

    updated = memories.update(
        made.id,
        memory_store_id=store.id,
        content="zwei",
        precondition={"type": "content_sha256", "content_sha256": made.content_sha256},
    )
    assert (updated.content_sha256, updated.id) == (sha("zwei"), made.id)
    with pytest.raises(anthropic.ConflictError) as stale:
        memories.update(
            made.id,
            memory_store_id=store.id,
            content="drei",
            precondition={"type": "content_sha256", "content_sha256": made.content_sha256},
        )
    assert stale.value.body["error"]["type"] == "memory_precondition_failed_error"

    top = list(memories.list(store.id, depth=1, limit=1))
    assert [(item.type, item.path) for item in top] == [("memory", "/b.md"), ("memory_prefix", "/notes/")]
    below = list(memories.list(store.id, path_prefix="/notes/", view="full"))
    assert [item.content for item in below] == ["zwei"]

    with pytest.raises(anthropic.ConflictError):
        memories.delete(made.id, memory_store_id=store.id, expected_content_sha256=sha("eins"))
    gone = memories.delete(made.id, memory_store_id=store.id, expected_content_sha256=sha("zwei"))
    assert (gone.id, gone.type) == (made.id, "memory_deleted")


def test_versions(beta, store):  # noqa: F811
    memories, versions = beta.memory_stores.memories, beta.memory_stores.memory_versions
    made = memories.create(store.id, path="/a", content="eins")
    memories.update(made.id, memory_store_id=store.id, path="/b")
    memories.delete(made.id, memory_store_id=store.id)
    found = list(versions.list(store.id, memory_id=made.id, limit=1))
    assert [(version.operation, version.path) for version in found] == [
        ("deleted", "/b"),
        ("modified", "/b"),
        ("created", "/a"),
    ]
    assert found[0].content_sha256 is None
    assert found[0].created_by.type == "api_actor"
    assert [v.id for v in versions.list(store.id, operation="created")] == [found[2].id]
    assert versions.retrieve(found[2].id, memory_store_id=store.id).content == "eins"
    redacted = versions.redact(found[2].id, memory_store_id=store.id)
    assert (redacted.content, redacted.path, redacted.content_sha256) == (None, None, None)
    assert redacted.redacted_at is not None and redacted.redacted_by.type == "api_actor"


def test_sessions(beta, store, environment):  # noqa: F811
    folder = "/mnt/memory/" + store.name.lower().replace(" ", "-")
    beta.memory_stores.memories.create(store.id, path="/known.md", content="known")
    command = f"cat {folder}/known.md && printf new > {folder}/made.md"
    agent = scripted(beta, [[{"tool": "bash", "input": {"command": command}}], [{"text": "{{last_tool_result}}"}]])
    session = beta.sessions.create(
        agent=agent.id,
        environment_id=environment.id,
        resources=[{"type": "memory_store", "memory_store_id": store.id, "instructions": "look"}],
    )
    attached = session.resources[0]
    assert (attached.type, attached.memory_store_id, attached.mount_path) == ("memory_store", store.id, folder)
    assert (attached.access, attached.instructions, attached.description) == ("read_write", "look", "facts")
    events = answered(beta, session, message("go"))
    assert "known" in only(events, "agent.message").content[0].text
    made = [m for m in beta.memory_stores.memories.list(store.id, view="full") if m.path == "/made.md"][0]
    assert made.content == "new"
    version = beta.memory_stores.memory_versions.retrieve(made.memory_version_id, memory_store_id=store.id)
    assert (version.created_by.type, version.created_by.session_id) == ("session_actor", session.id)
    assert [v.id for v in beta.memory_stores.memory_versions.list(store.id, session_id=session.id)] == [version.id]

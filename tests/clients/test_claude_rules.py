"""Rules of agents, environments and memory stores that the other suites leave out: what is refused, and what is kept."""

import uuid

import anthropic
import pytest

from test_claude_client import (  # noqa: F401 (fixtures)
    TICKET,
    TOOLSET,
    answered,
    beta,
    client,
    environment,
    message,
    only,
    scripted,
)

SERVER = {"type": "url", "name": "up", "url": "https://a.example/mcp"}
MCP = {"type": "mcp_toolset", "mcp_server_name": "up"}


def tool(**changes):
    return {"tools": [TICKET | changes]}


AGENTS = {
    "no name": {"name": None},
    "an empty name": {"name": ""},
    "a long name": {"name": "x" * 257},
    "a long description": {"description": "x" * 2049},
    "a long system prompt": {"system": "x" * 100_001},
    "too much metadata": {"metadata": {str(n): "v" for n in range(17)}},
    "a long key of metadata": {"metadata": {"k" * 65: "v"}},
    "a long value of metadata": {"metadata": {"k": "v" * 513}},
    "metadata that is no text": {"metadata": {"k": 1}},
    "an effort that there is not": {"model": {"id": "scripted/echo", "effort": "huge"}},
    "a server that no tool set is for": {"mcp_servers": [SERVER]},
    "a tool set for no server": {"tools": [MCP]},
    "two servers of one name": {"mcp_servers": [SERVER, SERVER], "tools": [MCP]},
    "a tool with a built-in name": tool(name="bash"),
    "a tool with the name of an MCP tool": tool(name="mcp__a__b"),
    "a tool with a bad name": tool(name="open ticket"),
    "two tools of one name": {"tools": [TICKET, TICKET]},
    "a schema that is no object": tool(input_schema={"type": "string"}),
    "a schema with a union on top": tool(input_schema={"type": "object", "anyOf": []}),
    "a built-in tool that there is not": {"tools": [TOOLSET | {"configs": [{"name": "hammer"}]}]},
    "a policy that there is not": {"tools": [TOOLSET | {"default_config": {"permission_policy": {"type": "maybe"}}}]},
    "a skill that nobody has": {"skills": [{"type": "custom", "skill_id": "skill_nobody"}]},
    "an identity that is not there": {"execution_identity": {"type": "aws_role", "role_arn": "arn:aws:iam::1:role/r"}},
}


@pytest.mark.parametrize("what", AGENTS)
def test_agents_that_can_not_be(beta, what):  # noqa: F811
    changes = AGENTS[what]
    body = {"name": "A", "model": "scripted/echo", "tools": [TOOLSET]} | changes
    with pytest.raises(anthropic.APIStatusError) as refused:
        beta.agents.create(**{"name": "A", "model": "scripted/echo"}, extra_body=body)
    assert refused.value.status_code in (400, 404), refused.value
    # The field is named.
    words = refused.value.body["error"]["message"]
    assert any(field in words for field in changes) or "mcp_servers" in words, words


def test_what_an_update_of_an_agent_keeps(beta):  # noqa: F811
    made = beta.agents.create(
        name="A",
        model={"id": "scripted/echo", "effort": "high"},
        system="Be brief.",
        description="d",
        tools=[TOOLSET, TICKET],
    )
    # The effort stays with its model, and goes with another one.
    same = beta.agents.update(made.id, version=1, model={"id": "scripted/echo"}, description="")
    assert (same.model.effort.type, same.system, same.description) == ("high", "Be brief.", None)
    assert [found.type for found in same.tools] == ["agent_toolset_20260401", "custom"]
    other = beta.agents.update(made.id, version=2, model="scripted/script", tools=[])
    assert (other.model.to_dict().get("effort"), other.tools) == (None, [])
    for name in ("name", "model"):
        with pytest.raises(anthropic.BadRequestError, match=name):
            beta.agents.update(made.id, version=3, extra_body={name: None})
    assert beta.agents.retrieve(made.id).version == 3


def test_rules_of_environments(beta):  # noqa: F811
    made = beta.environments.create(name=f"rules {uuid.uuid4()}", metadata={"a": "1", "b": "2"}, description="d")
    changed = beta.environments.update(made.id, description="", metadata={"a": "", "b": None, "c": "3"})
    assert (changed.description, changed.metadata) == ("", {"c": "3"})
    agent = beta.agents.create(name="Echo", model="scripted/echo")
    archived = beta.environments.archive(made.id)
    assert beta.environments.archive(made.id) == archived
    with pytest.raises(anthropic.BadRequestError, match="archived"):
        beta.sessions.create(agent=agent.id, environment_id=made.id)
    with pytest.raises(anthropic.APIStatusError) as unknown:
        beta.sessions.create(agent=agent.id, environment_id="env_nobody")
    assert unknown.value.status_code in (400, 404)
    for config in (
        {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["https://a.example/x"]}},
        {"type": "cloud", "networking": {"type": "offline"}},
        {"type": "cloud", "packages": {"pip": ["--pre"]}},
        {"type": "cloud", "surprise": 1},
    ):
        with pytest.raises(anthropic.BadRequestError, match="config|packages"):
            beta.environments.create(name=f"rules {uuid.uuid4()}", config=config)


def test_a_session_outlives_what_it_was_made_of(beta, environment):  # noqa: F811
    agent = scripted(beta, [[{"text": "one"}]], [[{"text": "two"}]])
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    answered(beta, session, message("go"))
    beta.agents.update(agent.id, version=1, name="Renamed", system="[]")
    beta.agents.archive(agent.id)
    assert only(answered(beta, session, message("on")), "agent.message").content[0].text == "two"
    assert (beta.sessions.retrieve(session.id).agent.name, session.agent.version) == ("Coder", 1)
    with pytest.raises(anthropic.BadRequestError, match="archived"):
        beta.sessions.create(agent=agent.id, environment_id=environment.id)


@pytest.fixture()
def store(beta):  # noqa: F811
    return beta.memory_stores.create(name=f"Rules {uuid.uuid4()}")


@pytest.mark.parametrize(
    "path",
    ["", "a", "/", "/a/", "//a", "/a//b", "/./a", "/a/../b", "/" + "x" * 256, "/" + "é" * 600, "/a\0b", "/e\u0301"]
    + ["/a" * 21],
)
def test_paths_that_memories_can_not_have(beta, store, path):  # noqa: F811
    with pytest.raises(anthropic.BadRequestError, match="path"):
        beta.memory_stores.memories.create(store.id, path=path, content="x")


def test_rules_of_memories(beta, store):  # noqa: F811
    memories = beta.memory_stores.memories
    # In bytes of UTF-8.
    most = memories.create(store.id, path="/" + "a/" * 19 + "b", content="é" * 51_200, view="full")
    assert (most.content_size_bytes, len(most.content)) == (102_400, 51_200)
    with pytest.raises(anthropic.BadRequestError, match="content"):
        memories.create(store.id, path="/too-much", content="é" * 51_201)
    with pytest.raises(anthropic.BadRequestError, match="depth"):
        memories.list(store.id, depth=2)
    with pytest.raises(anthropic.BadRequestError, match="path_prefix"):
        memories.list(store.id, path_prefix="/a")
    # `/A` and `/a` are two; a memory and a folder of one name are not.
    assert memories.create(store.id, path="/A", content="").id != memories.create(store.id, path="/b", content="").id
    with pytest.raises(anthropic.ConflictError) as taken:
        memories.create(store.id, path="/b/c", content="")
    assert taken.value.body["error"]["conflicting_path"] == "/b"
    head = beta.memory_stores.memories.retrieve(most.id, memory_store_id=store.id).memory_version_id
    with pytest.raises(anthropic.BadRequestError):
        beta.memory_stores.memory_versions.redact(head, memory_store_id=store.id)


def test_lists_with_contents_have_fewer_rows(beta, store):  # noqa: F811
    memories = beta.memory_stores.memories
    for number in range(21):
        memories.create(store.id, path=f"/{number:02}", content=str(number))
    page = memories.list(store.id, view="full", limit=100)
    assert (len(page.data), page.has_next_page()) == (20, True)
    assert [memory.content for memory in page] == [str(number) for number in range(21)]
    assert len(memories.list(store.id, limit=100).data) == 21


def test_a_store_that_a_session_may_only_read(beta, store, environment):  # noqa: F811
    folder = "/mnt/memory/" + store.name.lower().replace(" ", "-")
    known = beta.memory_stores.memories.create(store.id, path="/known.md", content="known")
    look = f"cat {folder}/known.md; echo changed > {folder}/known.md; echo new > {folder}/new.md; rm {folder}/known.md"
    agent = scripted(beta, [[{"tool": "bash", "input": {"command": look}}], [{"text": "{{last_tool_result}}"}]])
    resources = [{"type": "memory_store", "memory_store_id": store.id, "access": "read_only"}]
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id, resources=resources)
    assert session.resources[0].access == "read_only"
    seen = only(answered(beta, session, message("go")), "agent.message").content[0].text
    assert seen.startswith("known") and seen.count("Read-only file system") == 3, seen
    (left,) = beta.memory_stores.memories.list(store.id, view="full")
    assert (left.id, left.content) == (known.id, "known")
    beta.memory_stores.archive(store.id)
    with pytest.raises(anthropic.BadRequestError, match="archived"):
        beta.sessions.create(agent=agent.id, environment_id=environment.id, resources=resources)


def test_what_an_agent_removes_is_a_version(beta, store, environment):  # noqa: F811
    folder = "/mnt/memory/" + store.name.lower().replace(" ", "-")
    old = beta.memory_stores.memories.create(store.id, path="/old.md", content="old")
    agent = scripted(beta, [[{"tool": "bash", "input": {"command": f"rm {folder}/old.md"}}], [{"text": "done"}]])
    resources = [{"type": "memory_store", "memory_store_id": store.id}]
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id, resources=resources)
    answered(beta, session, message("go"))
    assert list(beta.memory_stores.memories.list(store.id)) == []
    versions = list(beta.memory_stores.memory_versions.list(store.id, memory_id=old.id))
    assert [(version.operation, version.created_by.type) for version in versions] == [
        ("deleted", "session_actor"),
        ("created", "api_actor"),
    ]

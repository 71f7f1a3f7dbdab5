"""The check of what the other suites receive (`claude_types.py`) fails when it should."""

import copy
import json
import os
import subprocess

import anthropic
import pytest

import claude_types
import traffic
from conftest import NODE_TIMEOUT, check_traffic
from stub import answering
from traffic import Exchange

AGENT = {
    "id": "agent_1",
    "type": "agent",
    "version": 1,
    "name": "A",
    "model": {"id": "scripted/echo", "effort": {"type": "low"}},
    "system": None,
    "description": None,
    "tools": [
        {
            "type": "agent_toolset_20260401",
            "default_config": {"enabled": True, "permission_policy": {"type": "always_ask"}},
            "configs": [
                {"type": "bash", "name": "bash", "enabled": True, "permission_policy": {"type": "always_allow"}}
            ],
        },
        {"type": "custom", "name": "t", "description": "d", "input_schema": {"type": "object", "x": 1}},
    ],
    "mcp_servers": [],
    "skills": [],
    "multiagent": None,
    "execution_identity": {"type": "service_account"},
    "metadata": {"any_at": "all"},
    "created_at": "2026-11-01T10:00:00.000Z",
    "updated_at": "2026-11-01T10:00:00.000Z",
    "archived_at": None,
}
IDLE = {
    "type": "session.status_idle",
    "id": "sevt_1",
    "processed_at": "2026-11-01T10:00:00Z",
    "stop_reason": {"type": "end_turn"},
    "stop_details": None,
}


def exchange(path, body, method="GET", status=200, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"request-id": "req_1", "content-type": "application/json"} | headers
    return Exchange(method, f"http://h{path}", {"anthropic-version": "2026-10-21"}, status, headers, raw, True)


def agent(**changes):
    return exchange("/v1/agents/agent_1", AGENT | changes)


def without(name):
    return exchange("/v1/agents/agent_1", {key: value for key, value in AGENT.items() if key != name})


def tool(**changes):
    tools = copy.deepcopy(AGENT["tools"])
    tools[0]["configs"][0] |= changes
    return agent(tools=tools)


def stream(event, name=None, path="/v1/sessions/s/events/stream"):
    text = f"event: {event['type'] if name is None else name}\ndata: {json.dumps(event)}\n\n"
    return exchange(path, text.encode(), **{"content-type": "text/event-stream"})


def refusal(**changes):
    return {
        "type": "error",
        "error": {"type": "not_found_error", "message": "no"},
        "request_id": "req_1",
    } | changes


def problems(exchange):
    return claude_types.problems(exchange, claude_types.Count())


RIGHT = {
    "an agent": agent(),
    "a page": exchange("/v1/agents", {"data": [AGENT], "next_page": None}),
    "an event": stream(IDLE),
    "a ping": stream({"type": "ping"}),
    "an error": exchange("/v1/sessions/s", refusal(), status=404),
    "an error with details": exchange(
        "/v1/agents/a",
        refusal(error={"type": "conflict_error", "message": "m", "details": {"error_code": "stale"}}),
        status=409,
    ),
    "nothing to do": exchange("/v1/environments/e/work/poll", None),
    "an extension": exchange("/v1/agents/a", {"id": "a", "type": "agent_deleted"}, "DELETE"),
}

WRONG = {
    "a field that is not there": without("metadata"),
    "a nullable field that is not there": without("archived_at"),
    "null where there is none": agent(name=None),
    "another type of value": agent(version="1"),
    "a field that nobody declares": agent(colour="red"),
    "a value outside of an enumeration": agent(model={"id": "m", "effort": {"type": "huge"}}),
    "a member of a union that is not declared": agent(tools=[{"type": "hammer"}]),
    "a field deep within a union": tool(enabled="yes"),
    "a missing field deep within a union": agent(tools=[{"type": "custom", "name": "t", "description": "d"}]),
    "a time that is none": agent(created_at="yesterday"),
    "a time elsewhere": agent(created_at="2026-11-01T10:00:00+01:00"),
    "a page without its end": exchange("/v1/agents", {"data": []}),
    "a page of sessions that leads nowhere back": exchange("/v1/sessions", {"data": [], "next_page": None}),
    "a row of another kind": exchange("/v1/environments", {"data": [AGENT], "next_page": None}),
    "a route without a type": exchange("/v1/wishes", {"data": []}),
    "a method without a type": exchange("/v1/agents/agent_1", AGENT, "PUT"),
    "an answer without a request id": exchange("/v1/agents/agent_1", AGENT, **{"request-id": ""}),
    "an answer in HTML": exchange("/v1/agents/agent_1", b"<p>", **{"content-type": "text/html"}),
    "an answer that is not JSON": exchange("/v1/agents/agent_1", b"{"),
    "an event of a type that is not declared": stream({"type": "session.status_bored", "id": "sevt_1"}),
    "an event without its time": stream({key: IDLE[key] for key in IDLE if key != "processed_at"}),
    "a frame with another name": stream(IDLE, "session.status_running"),
    "a frame without a name": stream(IDLE, ""),
    "an event of another stream": stream({"type": "session.deleted", "id": "e"}, path="/v1/sessions/s/threads/t/stream"),
    "an error of another request": exchange("/v1/agents/a", refusal(request_id="req_2"), status=404),
    "an error of another status": exchange("/v1/agents/a", refusal(), status=400),
    "an error with details that are none": exchange(
        "/v1/agents/a",
        refusal(error={"type": "not_found_error", "message": "m", "details": "none"}),
        status=404,
    ),
    "an error in another shape": exchange("/v1/agents/a", {"error": "no"}, status=404),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name):
    assert problems(RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(name):
    assert problems(WRONG[name])


def test_problems_say_where():
    assert problems(tool(enabled="yes")) == [
        "GET /v1/agents/agent_1 (200): .tools[0].configs[0].enabled: 'yes' is not of type 'boolean'"
    ]


def test_other_dialects_are_left_alone():
    other = exchange("/v1/agents", {"agents": []})
    other.request.clear()
    assert problems(other) == []


@pytest.fixture()
def liar():
    """A server that answers everything with an agent whose name is null."""
    body = json.dumps(AGENT | {"name": None}).encode()
    with answering(body, content_type="application/json", request_id="req_1") as url:
        yield url


FOUND = ["GET /v1/agents/agent_1 (200): .name: None is not of type 'string'"]


def test_python_is_recorded(liar):
    with anthropic.Anthropic(base_url=liar, api_key="k", max_retries=0) as client:
        client.beta.agents.retrieve("agent_1")
    assert check_traffic() == FOUND


def test_async_python_is_recorded(liar):
    import asyncio

    async def run():
        async with anthropic.AsyncAnthropic(base_url=liar, api_key="k", max_retries=0) as client:
            await client.beta.agents.retrieve("agent_1")

    asyncio.run(run())
    assert check_traffic() == FOUND


def test_node_is_recorded(liar):
    program = (
        'import Anthropic from "@anthropic-ai/sdk";'
        'await new Anthropic({ baseURL: process.argv[1], apiKey: "k" }).beta.agents.retrieve("agent_1");'
    )
    command = ["node", "--input-type=module", "-e", program, liar]
    subprocess.run(command, cwd=traffic.NODE, env=os.environ, check=True, timeout=NODE_TIMEOUT)
    assert check_traffic() == FOUND


def test_every_route_of_the_sdk_has_a_type():
    for types in claude_types.declared().values():
        for route in types.routes:
            assert (route["kind"] == "bytes") != (route.get("schema") in types.definitions), route

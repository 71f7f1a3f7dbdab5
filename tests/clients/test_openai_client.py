"""The OpenAI SDK, with nothing changed but the base URL and one header."""

import asyncio

import openai
import pytest
from openclaw_managed_agents import OpenClawClient

from conftest import script


@pytest.fixture()
def chat(server):
    def connect(agent_id, **headers):
        headers = {"x-openclaw-agent-id": agent_id} | headers
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", default_headers=headers, max_retries=0)

    return connect


@pytest.fixture()
def agents(server):
    with OpenClawClient(base_url=server.url) as client:
        yield client.agents


def ask(client, text, **options):
    return client.chat.completions.create(
        model="placeholder", messages=[{"role": "user", "content": text}], **options
    )


def test_blocking(chat, agents):
    agent = agents.create(model="scripted/echo")
    reply = ask(chat(agent.agent_id), "Hello there")
    assert reply.choices[0].message.content == "Hello there"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0


def test_streaming_is_real(chat, agents):
    agent = agents.create(model="scripted/echo")
    text = "word " * 200
    pieces, usage, reason = [], None, None
    for chunk in ask(chat(agent.agent_id), text, stream=True, stream_options={"include_usage": True}):
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            if choice.delta.content:
                pieces.append(choice.delta.content)
    assert "".join(pieces).strip() == text.strip()
    assert len(pieces) > 1, "the answer came in one piece"
    assert reason == "stop" and usage.completion_tokens > 0


def test_sticky_sessions(chat, agents, server):
    turns = [[[{"text": text}]] for text in ("one", "two", "three")]
    agent = agents.create(model="scripted/script", instructions=script(*turns))
    client = chat(agent.agent_id)
    assert ask(client, "a", user="sticky-1").choices[0].message.content == "one"
    assert ask(client, "b", user="sticky-1").choices[0].message.content == "two"
    by_header = chat(agent.agent_id, **{"x-openclaw-session-key": "sticky-1"})
    assert ask(by_header, "c").choices[0].message.content == "three"
    with OpenClawClient(base_url=server.url) as native:
        assert native.sessions.get("sticky-1").turns == 3
    other = agents.create(model="scripted/echo")
    with pytest.raises(openai.ConflictError):
        ask(chat(other.agent_id, **{"x-openclaw-session-key": "sticky-1"}), "c")


def test_errors_in_openai_shape(chat, agents):
    with pytest.raises(openai.BadRequestError) as missing:
        ask(chat(""), "a")
    assert missing.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError):
        ask(chat("agt_nobody"), "a")
    failing = agents.create(
        model="scripted/script", instructions=script([[{"error": {"kind": "request_failed", "message": "no such thing"}}]])
    )
    with pytest.raises(openai.APIStatusError) as failed:
        ask(chat(failing.agent_id), "a")
    assert failed.value.status_code >= 500 and "no such thing" in str(failed.value)
    archived = agents.create(model="scripted/echo")
    agents.archive(archived.agent_id)
    with pytest.raises(openai.ConflictError):
        ask(chat(archived.agent_id), "a")


def test_models_in_openai_shape(chat, agents):
    agent = agents.create(model="scripted/echo")
    models = [model.id for model in chat(agent.agent_id).models.list()]
    assert "scripted/echo" in models


def test_a_client_that_leaves_stops_its_turn(chat, agents, server):
    agent = agents.create(
        model="scripted/script",
        instructions=script([[{"text": "begun "}, {"delay_ms": 600_000}, {"text": "never"}]]),
    )
    stream = ask(chat(agent.agent_id), "go", stream=True, user="leaves-1")
    said = next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
    assert said.choices[0].delta.content == "begun "
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        ask(chat(agent.agent_id), "go", user="leaves-2", timeout=0.5)
    with OpenClawClient(base_url=server.url) as native:
        for session in ("leaves-1", "leaves-2"):
            kinds = []
            for event in native.sessions.stream(session):
                kinds.append(event.type)
                if event.type == "session.status_idle":
                    break
            assert "user.interrupt" in kinds


def test_the_asynchronous_client(server, agents):
    agent = agents.create(model="scripted/echo")

    async def talk():
        headers = {"x-openclaw-agent-id": agent.agent_id}
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="unused", default_headers=headers, max_retries=0
        ) as client:
            whole = [ask(client, f"number {number}") for number in range(5)]
            answers = [answer.choices[0].message.content for answer in await asyncio.gather(*whole)]
            pieces = []
            async for chunk in await ask(client, "piece by piece", stream=True):
                pieces += [choice.delta.content or "" for choice in chunk.choices]
            return answers, "".join(pieces)

    answers, streamed = asyncio.run(talk())
    assert answers == [f"number {number}" for number in range(5)]
    assert streamed == "piece by piece"


def test_authentication(guarded):
    with OpenClawClient(base_url=guarded.url, api_token=guarded.token) as native:
        agent = native.agents.create(model="scripted/echo")
    for key, passes in ((guarded.token, True), ("wrong", False)):
        headers = {"x-openclaw-agent-id": agent.agent_id}
        client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, default_headers=headers, max_retries=0)
        if passes:
            assert ask(client, "let me in").choices[0].message.content == "let me in"
        else:
            with pytest.raises(openai.AuthenticationError):
                ask(client, "let me in")

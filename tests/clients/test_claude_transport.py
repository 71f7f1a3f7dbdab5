"""What Anthropic's SDK does by itself below the calls: retries, limits, headers."""

import anthropic
import httpx
import pytest

from canary import API_TOKEN
from conftest import Server
from test_claude_client import connect


# Requests that a caller has at once; another one every two seconds.
BURST = 30


@pytest.fixture()
def busy():
    """A server that takes little of each caller."""
    server = Server(OPENCLAW_API_TOKEN=API_TOKEN, OPENCLAW_RATE_LIMIT_RPM=str(BURST))
    server.start()
    yield server
    server.stop()
    server.remove()


def test_the_sdk_waits_for_its_turn(busy):
    with connect(busy) as impatient:
        with pytest.raises(anthropic.RateLimitError) as refused:
            for _ in range(3 * BURST):
                impatient.beta.agents.list(limit=1)
        assert refused.value.body["error"]["type"] == "rate_limit_error"
        assert float(refused.value.response.headers["retry-after"]) > 0
    # With the retries that it has by default, the same requests pass: it waits for as long as it is told.
    with anthropic.Anthropic(base_url=busy.url, api_key=busy.token) as patient:
        answers = (patient.beta.agents.with_raw_response.list(limit=1) for _ in range(3 * BURST))
        waited = next(answer for answer in answers if answer.retries_taken > 0)
        assert waited.parse().data == []


def test_definite_conflicts_are_not_tried_again(server):
    with anthropic.Anthropic(base_url=server.url, api_key="unused") as client:
        seen = []
        client._client.event_hooks["response"].append(lambda response: seen.append(response.status_code))
        agent = client.beta.agents.create(name="A", model="scripted/echo")
        client.beta.agents.update(agent.id, version=1, name="B")
        with pytest.raises(anthropic.ConflictError):
            client.beta.agents.update(agent.id, version=1, name="C")
        assert seen == [200, 200, 409]


def test_a_body_that_is_too_large_is_refused(server):
    with connect(server) as client:
        with pytest.raises(anthropic.APIStatusError) as refused:
            client.beta.agents.create(name="A", model="scripted/echo", description="x" * (33 << 20))
        assert (refused.value.status_code, refused.value.type) == (413, "request_too_large")


def test_headers_of_every_answer(server):
    with connect(server) as client:
        answer = client.beta.agents.with_raw_response.list(limit=1)
        assert answer.headers["request-id"].startswith("req_")
        with pytest.raises(anthropic.NotFoundError) as refused:
            client.beta.agents.retrieve("agent_nobody")
        assert refused.value.request_id == refused.value.response.headers["request-id"] != answer.headers["request-id"]


def test_actions_without_a_body_and_betas_that_nobody_knows(server):
    """As the SDKs of several languages send them: an empty body with a content type, or without."""
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "managed-agents-2026-04-01,something-new-2027-01-01"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as plain:
        for more in ({}, {"headers": {"content-type": "application/json"}}, {"json": {}}):
            agent = plain.post("/v1/agents?beta=true", json={"name": "A", "model": "scripted/echo"}).json()
            archived = plain.post(f"/v1/agents/{agent['id']}/archive", **more)
            assert archived.status_code == 200 and archived.json()["archived_at"], archived.text
        for method, path, status in (
            ("GET", "/v1/wishes", 404),
            ("PUT", "/v1/agents", 405),
            ("PATCH", f"/v1/agents/{agent['id']}", 405),
        ):
            answer = plain.request(method, path)
            assert answer.status_code == status and answer.json()["type"] == "error", answer.text
        answer = plain.post("/v1/agents", content=b"{", headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")

"""Lists of the Claude dialect: their filters, their cursors, and the ways in which clients write queries."""

import datetime
import uuid

import anthropic
import httpx
import pytest

from test_claude_client import IS_NEW, beta, client, environment  # noqa: F401 (fixtures)

SECOND = datetime.timedelta(seconds=1)


@pytest.fixture()
def made(beta, environment):  # noqa: F811
    """Four sessions of an agent, the oldest first; two of them of its second version, one of those with a store."""
    agent = beta.agents.create(name="Echo", model="scripted/echo")
    beta.agents.update(agent.id, version=1, name="Other")
    store = beta.memory_stores.create(name=f"s {uuid.uuid4()}")
    sessions = [
        beta.sessions.create(agent={"type": "agent", "id": agent.id, "version": version}, environment_id=environment.id)
        for version in (1, 1, 2)
    ]
    resources = [{"type": "memory_store", "memory_store_id": store.id}]
    sessions.append(beta.sessions.create(agent=agent.id, environment_id=environment.id, resources=resources))
    return agent, store, sessions


def test_filters_of_sessions(beta, made):  # noqa: F811
    agent, store, sessions = made
    ids = [session.id for session in sessions]

    def listed(**filters):
        return [found.id for found in beta.sessions.list(order="asc", limit=1, **filters)]

    assert listed(agent_id=agent.id) == ids
    assert listed(agent_id=agent.id, agent_version=1) == ids[:2]
    assert listed(memory_store_id=store.id) == ids[3:]
    times = [session.created_at for session in sessions]
    assert listed(agent_id=agent.id, created_at_gte=times[1]) == [i for i, t in zip(ids, times) if t >= times[1]]
    assert listed(agent_id=agent.id, created_at_gt=times[1]) == [i for i, t in zip(ids, times) if t > times[1]]
    assert listed(agent_id=agent.id, created_at_lt=times[2]) == [i for i, t in zip(ids, times) if t < times[2]]
    assert listed(agent_id=agent.id, created_at_lte=times[0] - SECOND) == []
    assert listed(agent_id="agent_nobody") == []
    with pytest.raises(anthropic.BadRequestError, match="agent_version"):
        listed(agent_version=1)


def test_cursors_are_for_the_list_that_gave_them(beta, made):  # noqa: F811
    agent, _, sessions = made
    page = beta.sessions.list(agent_id=agent.id, limit=2)
    with pytest.raises(anthropic.BadRequestError, match="page"):
        beta.sessions.list(agent_id=agent.id, limit=2, page=page.next_page, order="asc")
    # Another limit is fine.
    rest = beta.sessions.list(agent_id=agent.id, limit=50, page=page.next_page)
    assert [found.id for found in rest.data] == [sessions[1].id, sessions[0].id] and rest.next_page is None
    assert [found.id for found in beta.sessions.list(agent_id=agent.id, limit=1, page=rest.prev_page).data] == [
        sessions[2].id
    ]
    for bad in ("page_nonsense", page.next_page[:-2], page.next_page + "x"):
        with pytest.raises(anthropic.BadRequestError, match="page"):
            beta.sessions.list(agent_id=agent.id, page=bad)


def test_limits_of_pages(beta):  # noqa: F811
    # Each list with more than it gives at most.
    lists = {
        "agents": (beta.agents.list, 100),
        "vaults": (beta.vaults.list, 100),
        "deployments": (beta.deployments.list, 100),
        "deployment runs": (beta.deployment_runs.list, 1000),
        "memory stores": (beta.memory_stores.list, 100),
        "sessions": (beta.sessions.list, 1000),
    }
    for name, (rows, most) in lists.items():
        if name != "sessions":
            assert rows(limit=most).data is not None, name
        for limit in (0, -1, 100_000):
            with pytest.raises(anthropic.BadRequestError, match="limit"):
                rows(limit=limit)


def test_every_spelling_of_a_query(server, made):
    """Arrays as SDKs of several versions write them, times with offsets, and the `beta` that some append."""
    agent, _, sessions = made
    with httpx.Client(base_url=server.url, headers={"anthropic-version": "2026-10-21"}, trust_env=False) as plain:

        def listed(query):
            answer = plain.get(f"/v1/sessions?agent_id={agent.id}&order=asc&{query}")
            assert answer.status_code == 200, answer.text
            return [row["id"] for row in answer.json()["data"]]

        ids = [session.id for session in sessions]
        for query in (
            "statuses[]=idle&statuses[]=running",
            "statuses%5B%5D=idle&statuses%5B%5D=running",
            "statuses=idle&statuses=running",
            "statuses=idle,running",
            "beta=true",
        ):
            assert listed(query) == ids, query
        assert listed("statuses=running") == []
        since = sessions[2].created_at
        later = [session.id for session in sessions if session.created_at >= since]
        assert listed(f"created_at%5Bgte%5D={since.isoformat().replace('+', '%2B')}") == later
        there = since.astimezone(datetime.timezone(datetime.timedelta(hours=-7)))
        assert listed(f"created_at[gte]={there.isoformat()}") == later
        for query in ("statuses=asleep", "created_at[gte]=yesterday", "created_at[near]=2026-01-01T00:00:00Z"):
            answer = plain.get(f"/v1/sessions?{query}")
            field = query.split("=")[0].split("[")[0]
            assert answer.status_code == 400 and field in answer.json()["error"]["message"], (query, answer.text)


@pytest.mark.skipif(not IS_NEW, reason="the older SDK does not know of endpoints")
def test_pages_of_the_old_kind_go_both_ways(beta):  # noqa: F811
    webhooks = beta.organization.webhooks
    kind = "user_profile.program_status_updated"
    made = [webhooks.create(url="https://a.example/", enabled_events=[kind], name=f"e{n}").id for n in range(4)]
    newest = made[::-1]
    page = webhooks.list(limit=2)
    assert [found.id for found in page.data] == newest[:2]
    assert (page.has_more, page.first_id, page.last_id) == (True, newest[0], newest[1])
    after = webhooks.list(limit=2, after_id=page.last_id)
    assert [found.id for found in after.data] == newest[2:4]
    before = webhooks.list(limit=2, before_id=newest[3])
    assert [found.id for found in before.data] == newest[1:3] and before.has_more is True
    assert [found for found in (e.id for e in webhooks.list(limit=1, order="asc")) if found in made] == made
    with pytest.raises(anthropic.BadRequestError):
        webhooks.list(after_id=newest[0], before_id=newest[1])
    for one in made:
        webhooks.delete(one)

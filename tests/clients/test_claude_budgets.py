"""Budgets of sessions whose model has a price: each request of `provider.py` costs three cents."""

import uuid

import anthropic
import pytest

from provider import INPUT, OUTPUT
from test_claude_client import IS_NEW, TOOLSET, answered, connect, message, only

CENTS = (INPUT * 3 + OUTPUT * 15) / 1_000_000 * 100


def limit(cents):
    return {"type": "limit", "max_list_cost": {"amount": str(cents), "currency": "USD"}}


@pytest.fixture()
def beta(priced):
    with connect(priced) as client:
        yield client.beta


def opened(beta, cents, **agent):
    agent = beta.agents.create(name="Priced", model="claude-priced", tools=[TOOLSET], **agent)
    environment = beta.environments.create(name=f"budgets {uuid.uuid4()}")
    budget = {"extra_body": {"budget": limit(cents)}} if cents else {}
    return beta.sessions.create(agent=agent.id, environment_id=environment.id, **budget)


def refused(call, code):
    with pytest.raises(anthropic.BadRequestError) as wrong:
        call()
    assert wrong.value.body["error"]["details"]["error_code"] == code, wrong.value


def test_what_requests_cost_is_told(beta):
    assert CENTS == 3
    session = opened(beta, None)
    events = answered(beta, session, message("go"))
    assert only(events, "agent.tool_use").name == "bash"
    usage = beta.sessions.retrieve(session.id).to_dict()["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (2 * INPUT, 2 * OUTPUT)
    assert (float(usage["list_cost"]["amount"]), usage["list_cost"]["currency"]) == (2 * CENTS, "USD")


def test_a_budget_stops_a_turn_and_more_lets_it_go_on(beta):
    session = opened(beta, 3)
    assert session.to_dict()["budget"] == limit(3)
    events = answered(beta, session, message("go"))
    # The request that crosses the limit is finished, with its tool; the next is not begun.
    assert events[-1].stop_reason.type == "budget_reached"
    assert only(events, "agent.tool_result")
    logged = [event.to_dict() for event in beta.sessions.events.list(session.id)]
    ends = [event for event in logged[-3:] if event["type"] != "session.usage"]
    assert [end["stop_reason"] for end in ends] == [{"type": "budget_reached"}] * 2
    assert [event["budget"] for event in logged if event["type"] == "session.usage"] == [limit(3)]

    with pytest.raises(anthropic.BadRequestError, match="budget"):
        beta.sessions.events.send(session.id, events=[message("more")])
    # An interrupt is swallowed: the turn waits for its budget.
    beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}])
    refused(lambda: beta.sessions.update(session.id, extra_body={"budget": limit(1)}), "budget_not_raised")
    with beta.sessions.events.stream(session.id) as stream:
        updated = beta.sessions.update(session.id, extra_body={"budget": limit(5000)})
        assert updated.to_dict()["budget"] == limit(5000)
        rest = []
        for event in stream:
            rest.append(event)
            if event.type == "session.status_idle":
                break
    assert only(rest, "agent.message").content[0].text == "after"
    assert rest[-1].stop_reason.type == "end_turn"


def test_a_budget_that_is_removed_never_comes_back(beta):
    session = opened(beta, 3)
    answered(beta, session, message("go"))
    with beta.sessions.events.stream(session.id) as stream:
        assert beta.sessions.update(session.id, extra_body={"budget": None}).to_dict()["budget"] is None
        for event in stream:
            if event.type == "session.status_idle":
                break
    assert event.stop_reason.type == "end_turn"
    refused(lambda: beta.sessions.update(session.id, extra_body={"budget": limit(9000)}), "budget_create_only")


def test_what_waits_for_a_client_outranks_the_budget(beta):
    ask = TOOLSET | {"default_config": {"permission_policy": {"type": "always_ask"}}}
    agent = beta.agents.create(name="Priced", model="claude-priced", tools=[ask])
    environment = beta.environments.create(name=f"budgets {uuid.uuid4()}")
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id, extra_body={"budget": limit(3)})
    events = answered(beta, session, message("go"))
    use = only(events, "agent.tool_use")
    assert (events[-1].stop_reason.type, events[-1].stop_reason.event_ids) == ("requires_action", [use.id])
    confirmed = answered(beta, session, {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "allow"})
    assert confirmed[-1].stop_reason.type == "budget_reached" and only(confirmed, "agent.tool_result")


@pytest.mark.parametrize("amount", ["0", "-1", "007", "1.5", "", "1e3", 5, None])
def test_amounts_that_are_none(beta, amount):
    agent = beta.agents.create(name="Priced", model="claude-priced")
    environment = beta.environments.create(name=f"budgets {uuid.uuid4()}")
    budget = {"type": "limit", "max_list_cost": {"amount": amount, "currency": "USD"}}
    with pytest.raises(anthropic.BadRequestError, match="amount"):
        beta.sessions.create(agent=agent.id, environment_id=environment.id, extra_body={"budget": budget})


@pytest.mark.skipif(not IS_NEW, reason="the older SDK has no such parameter")
def test_runs_of_deployments_have_the_deployments_budget(beta):
    agent = beta.agents.create(name="Priced", model="claude-priced", tools=[TOOLSET])
    environment = beta.environments.create(name=f"budgets {uuid.uuid4()}")
    made = beta.deployments.create(
        name="Dear", agent=agent.id, environment_id=environment.id, initial_events=[message("go")], budget=limit(3)
    )
    assert made.to_dict()["budget"] == limit(3)
    run = beta.deployments.run(made.id)
    with beta.sessions.events.stream(run.session_id) as stream:
        if beta.sessions.retrieve(run.session_id).status != "idle":
            for event in stream:
                if event.type == "session.status_idle":
                    break
    idle = [event for event in beta.sessions.events.list(run.session_id) if event.type == "session.status_idle"]
    assert [event.stop_reason.type for event in idle] == ["budget_reached"]

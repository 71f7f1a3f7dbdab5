"""Skills through Anthropic's SDK: the newest, and an old one that sends the beta header of 2025."""

import io
import zipfile

import anthropic
import pytest

from conftest import Server
from test_claude_client import (  # noqa: F401 (fixtures)
    IS_NEW,
    TOOLSET,
    answered,
    beta,
    client,
    connect,
    environment,
    message,
    only,
    scripted,
)

MAIN = "---\nname: pdf-tools\ndescription: Fills forms\n---\nRead forms.md.\n"
NAME = "display_name" if IS_NEW else "display_title"
# What the old shape calls a version, and where a skill says which is its newest.
VERSION, LATEST = ("id", "latest_version_id") if IS_NEW else ("version", "latest_version")


def files(main=MAIN):
    return [("pdf/SKILL.md", main.encode(), "text/markdown"), ("pdf/forms.md", b"How to fill them", "text/markdown")]


@pytest.fixture()
def skill(beta):  # noqa: F811
    return beta.skills.create(files=files(), **{NAME: "PDF tools"})


def test_life(beta, skill):  # noqa: F811
    assert (skill.type, getattr(skill, NAME)) == ("skill", "PDF tools")
    assert (skill.source.type if IS_NEW else skill.source) == "custom"
    latest = getattr(skill, LATEST)
    assert getattr(beta.skills.retrieve(skill.id), LATEST) == latest
    first = beta.skills.versions.retrieve(latest, skill_id=skill.id)
    assert (first.type, first.name, first.description) == ("skill_version", "pdf-tools", "Fills forms")
    assert beta.skills.versions.retrieve("latest", skill_id=skill.id).id == first.id
    second = beta.skills.versions.create(skill.id, files=files(MAIN.replace("Fills", "Reads")))
    assert second.description == "Reads forms"
    assert [version.id for version in beta.skills.versions.list(skill.id, limit=1)] == [second.id, first.id]
    assert skill.id in [found.id for found in beta.skills.list(limit=1, source="custom")]
    assert list(beta.skills.list(source="anthropic")) == []
    with pytest.raises(anthropic.BadRequestError):
        beta.skills.delete(skill.id)
    for version in (first, second):
        gone = beta.skills.versions.delete(getattr(version, VERSION), skill_id=skill.id)
        assert (gone.id, gone.type) == (getattr(version, VERSION), "skill_version_deleted")
    gone = beta.skills.delete(skill.id)
    assert (gone.id, gone.type) == (skill.id, "skill_deleted")
    with pytest.raises(anthropic.NotFoundError):
        beta.skills.retrieve(skill.id)


def test_a_workspace_has_so_many():
    server = Server(
        OPENCLAW_MAX_SKILLS="1", OPENCLAW_MAX_SKILL_VERSIONS="2", OPENCLAW_MAX_MEMORY_STORES="1"
    )
    server.start()
    try:
        with connect(server) as client:
            skills = client.beta.skills
            made = skills.create(files=files())
            skills.versions.create(made.id, files=files())
            with pytest.raises(anthropic.BadRequestError, match="a workspace may have 1 skills"):
                skills.create(files=files())
            with pytest.raises(anthropic.BadRequestError, match="may have 2 versions in all"):
                skills.versions.create(made.id, files=files())

            def store(name):
                return client.post("/v1/memory_stores", body={"name": name}, cast_to=object)

            store("one")
            with pytest.raises(anthropic.BadRequestError, match="a workspace may have 1 memory stores") as refused:
                store("two")
            assert refused.value.body["error"]["details"]["error_code"] == "too_many_memory_stores"
    finally:
        server.stop()
        server.remove()


def test_archives(beta, skill):  # noqa: F811
    content = beta.skills.versions.download(getattr(skill, LATEST), skill_id=skill.id).read()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["pdf/SKILL.md", "pdf/forms.md"]
        assert archive.read("pdf/forms.md") == b"How to fill them"
    again = beta.skills.create(files=[("pdf.zip", content, "application/zip")])
    assert beta.skills.versions.download(getattr(again, LATEST), skill_id=again.id).read() == content
    with pytest.raises(anthropic.BadRequestError) as refused:
        beta.skills.create(files=[("pdf/forms.md", b"x", "text/plain")])
    assert "SKILL.md is missing" in refused.value.body["error"]["message"]


def test_agents(beta, skill):  # noqa: F811
    chosen = [{"type": "custom", "skill_id": skill.id}]
    agent = beta.agents.create(name="A", model="scripted/echo", tools=[TOOLSET], skills=chosen)
    assert [(found.type, found.skill_id) for found in agent.skills] == [("custom", skill.id)]
    version = beta.skills.versions.retrieve(agent.skills[0].version, skill_id=skill.id)
    assert version.description == "Fills forms"
    with pytest.raises(anthropic.BadRequestError) as refused:
        beta.agents.create(
            name="A", model="scripted/echo", tools=[TOOLSET], skills=[{"type": "anthropic", "skill_id": "pdf"}]
        )
    assert "skills.0.skill_id" in refused.value.body["error"]["message"]


def test_agents_in_threads_have_skills_of_their_own(beta, skill, environment):  # noqa: F811
    # Another skill, whose folder has the same name.
    other = beta.skills.create(files=files(MAIN.replace("Read forms.md", "Read nothing")))

    def prints(path):
        return [{"tool": "bash", "input": {"command": f"cat {path}"}}]

    says = [{"text": "{{last_tool_result}}"}]
    worker = scripted(
        beta, [prints("/mnt/skills/threads/*/pdf/SKILL.md"), says], skills=[{"type": "custom", "skill_id": other.id}]
    )
    asks = [{"tool": "send_to_agent", "input": {"agent": worker.id, "message": "go"}}]
    lead = scripted(
        beta,
        [asks, says],
        [prints("/mnt/skills/pdf/SKILL.md"), says],
        skills=[{"type": "custom", "skill_id": skill.id}],
        multiagent={"type": "coordinator", "agents": [worker.id]},
    )
    session = beta.sessions.create(agent=lead.id, environment_id=environment.id)
    theirs = only(answered(beta, session, message("go")), "agent.message").content[0].text
    assert "Read nothing." in theirs and "Read forms.md." not in theirs
    ours = only(answered(beta, session, message("go")), "agent.message").content[0].text
    assert "Read forms.md." in ours and "Read nothing." not in ours


def test_sessions(beta, skill, environment):  # noqa: F811
    turn = [[{"tool": "read", "input": {"file_path": "/mnt/skills/pdf/SKILL.md"}}], [{"text": "{{last_tool_result}}"}]]
    agent = scripted(beta, turn, skills=[{"type": "custom", "skill_id": skill.id}])
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    assert session.agent.skills[0].skill_id == skill.id
    events = answered(beta, session, message("go"))
    assert "Read forms.md." in only(events, "agent.message").content[0].text

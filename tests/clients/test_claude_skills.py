"""Skills through Anthropic's SDK: the newest, and an old one that sends the beta header of 2025."""

import io
import zipfile

import anthropic
import pytest

from test_claude_client import (  # noqa: F401 (fixtures)
    IS_NEW,
    TOOLSET,
    answered,
    beta,
    client,
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


def test_sessions(beta, skill, environment):  # noqa: F811
    turn = [[{"tool": "read", "input": {"file_path": "/mnt/skills/pdf/SKILL.md"}}], [{"text": "{{last_tool_result}}"}]]
    agent = scripted(beta, turn, skills=[{"type": "custom", "skill_id": skill.id}])
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
    assert session.agent.skills[0].skill_id == skill.id
    events = answered(beta, session, message("go"))
    assert "Read forms.md." in only(events, "agent.message").content[0].text

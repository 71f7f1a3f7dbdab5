CREATE TABLE skills (
    key          INTEGER PRIMARY KEY,
    workspace    TEXT NOT NULL,
    id           TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX skills_listed ON skills (workspace, key);

CREATE TABLE skill_versions (
    key         INTEGER PRIMARY KEY,
    workspace   TEXT NOT NULL,
    skill       INTEGER NOT NULL REFERENCES skills (key),
    id          TEXT NOT NULL UNIQUE,
    number      INTEGER NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    directory   TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    -- The files, as a zip archive. Last, so that reading the rest does not read it.
    content     BLOB NOT NULL
) STRICT;
CREATE INDEX skill_versions_listed ON skill_versions (skill, key);
CREATE UNIQUE INDEX skill_versions_by_number ON skill_versions (skill, number);

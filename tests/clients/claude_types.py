"""Checks what was received in the Claude dialect against the types that Anthropic's SDK declares (`node/types.mjs`).

The SDKs themselves tolerate almost anything. This does not: a field that must be there and is not, a null where the
declarations have none, a value of another type or outside of its enumeration, a field that they don't know, and an
answer of a route that they don't know are all problems, unless they stand in a table below.
"""

import dataclasses
import datetime
import functools
import json
import os
import re
import subprocess
import urllib.parse

import jsonschema
import jsonschema.validators

from traffic import NODE, Exchange

NEWEST, BEFORE_GA = "@anthropic-ai/sdk", "anthropic-sdk-before-ga"
# With these, clients ask for the shapes that files and skills had while they were beta.
OLD_BETAS = {"files-api-2025-04-14", "skills-2025-10-02"}

# Routes that Anthropic's service has not (DIVERGENCES.md), and what they answer.
EXTENSIONS = {
    ("DELETE", "/v1/agents/{}"): {
        "type": "object",
        "properties": {"id": {"type": "string"}, "type": {"const": "agent_deleted"}},
        "required": ["id", "type"],
        "additionalProperties": False,
    },
}

# Nullable or absent against the declarations on purpose: `(definition, field)`, each with its reason in DIVERGENCES.md.
NULLABLE = {
    # A session that was made in another dialect without an environment.
    ("BetaManagedAgentsSession", "environment_id"),
    # A skill whose versions are all deleted.
    ("BetaSkill", "latest_version_id"),
}

# Lists of names that hold others than the declarations have, each with its reason in DIVERGENCES.md.
WIDER = {
    # Endpoints are told of all events here, not only of those of an organization.
    ("BetaOrganizationWebhookEndpoint", "enabled_events"),
    ("BetaNewOrganizationWebhookEndpoint", "enabled_events"),
}

# What an error may say besides; the SDK reads it (`error_code`), and declares it for a few errors only.
DETAILS = {"type": "object", "properties": {"error_code": {"type": "string"}}, "required": ["error_code"]}
# Errors that the SDK has classes for, by their status, and that its union of errors leaves out.
MORE_ERRORS = {
    "conflict_error": {},
    "request_too_large": {},
    "memory_precondition_failed_error": {},
    "memory_path_conflict_error": {
        "conflicting_memory_id": {"type": "string"},
        "conflicting_path": {"type": "string"},
    },
}
ERROR_TYPES = {
    400: {"invalid_request_error"},
    401: {"authentication_error"},
    402: {"billing_error"},
    403: {"permission_error"},
    404: {"not_found_error"},
    405: {"invalid_request_error"},
    409: {"conflict_error", "memory_precondition_failed_error", "memory_path_conflict_error"},
    412: {"invalid_request_error"},
    413: {"request_too_large"},
    422: {"invalid_request_error"},
    429: {"rate_limit_error"},
    500: {"api_error"},
    503: {"api_error", "overloaded_error"},
    504: {"timeout_error"},
    529: {"overloaded_error"},
}


def _pattern(template: str) -> re.Pattern:
    return re.compile("/".join("[^/]+" if part == "{}" else re.escape(part) for part in template.split("/")))


class Types:
    """The declarations of one version of the SDK."""

    def __init__(self, version: str, routes: list, definitions: dict) -> None:
        self.version = version
        for name, field in NULLABLE:
            declared = definitions.get(name, {}).get("properties", {})
            if field in declared:
                declared[field] = {"anyOf": [declared[field], {"type": "null"}]}
        for name, field in WIDER:
            declared = definitions.get(name, {}).get("properties", {})
            if field in declared:
                declared[field] = {"type": "array", "items": {"type": "string"}}
        self.definitions = definitions
        self._add_errors()
        # Paths with literal segments come before those with parameters in the same place.
        self.routes = sorted(routes, key=lambda route: [part == "{}" for part in route["path"].split("/")])
        for route in self.routes:
            route["pattern"] = _pattern(route["path"])
        kind = jsonschema.validators.validator_for({"$schema": "http://json-schema.org/draft-07/schema#"})
        self.validator = kind({"definitions": definitions})

    def _add_errors(self) -> None:
        union = self.definitions["BetaErrorObject" if "BetaErrorObject" in self.definitions else "BetaError"]["anyOf"]
        for member in union:
            self.definitions[member["$ref"].split("/")[-1]]["properties"]["details"] = DETAILS
        for kind, more in MORE_ERRORS.items():
            properties = {"type": {"const": kind}, "message": {"type": "string"}, "details": DETAILS} | more
            fields = {"properties": properties, "required": ["type", "message"], "additionalProperties": False}
            union.append({"type": "object"} | fields)

    def route(self, method: str, path: str) -> dict | None:
        for route in self.routes:
            if route["method"] == method and route["pattern"].fullmatch(path):
                return route
        for (verb, template), schema in EXTENSIONS.items():
            if verb == method and _pattern(template).fullmatch(path):
                return {"kind": "json", "extension": schema}
        return None

    def mistakes(self, value, schema: dict | str) -> list[str]:
        """What is wrong with a value of this definition (its name) or schema."""
        if isinstance(schema, str):
            schema = {"$ref": f"#/definitions/{urllib.parse.quote(schema)}"}
        errors = self.validator.evolve(schema=schema | {"definitions": self.definitions}).iter_errors(value)
        found = [line for error in errors for line in _explained(error)]
        return found + [f"{where}: {text!r} is not a time in UTC" for where, text in _times(value, "")]


def _explained(error: jsonschema.ValidationError) -> list[str]:
    """An error in words. Of a union, only the alternative that the value's `type` chooses is of interest."""
    if error.validator == "anyOf" and error.context:
        branches: dict[int, list] = {}
        for inner in error.context:
            branches.setdefault(inner.schema_path[0], []).append(inner)
        meant = [errors for errors in branches.values() if not any(_is_of_type(inner) for inner in errors)]
        if len(meant) == 1:
            return [line for inner in meant[0] for line in _explained(inner)]
        kind = error.instance.get("type") if isinstance(error.instance, dict) else error.instance
        return [f"{_where(error)}: {json.dumps(kind, default=str)[:200]} is none of the declared alternatives"]
    return [f"{_where(error)}: {error.message[:300]}"]


def _is_of_type(error: jsonschema.ValidationError) -> bool:
    """Whether an alternative fails because it is one for values of another `type`."""
    path = list(error.path)
    if path and path[-1] == "type" and error.validator in ("const", "enum"):
        return len(error.relative_path) == 1
    return not error.relative_path and error.validator == "type"


def _where(error: jsonschema.ValidationError) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path) or "."


def _times(value, where: str):
    """The texts of fields named like times that are no times in UTC."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _times(item, f"{where}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            # What users and models chose is free.
            if name in ("metadata", "input", "input_schema"):
                continue
            if name.endswith("_at") and isinstance(item, str) and not _is_time(item):
                yield f"{where}.{name}", item
            yield from _times(item, f"{where}.{name}")


def _is_time(text: str) -> bool:
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).utcoffset() == datetime.timedelta(0)
    except ValueError:
        return False


@functools.cache
def declared() -> dict[str, Types]:
    """The types of each version of the SDK, generated from what is installed."""
    if not (NODE / "node_modules").is_dir():
        raise RuntimeError("the packages of tests/clients/node are not installed: npm ci --prefix tests/clients/node")
    plain = {name: value for name, value in os.environ.items() if name not in ("NODE_OPTIONS", "OMA_TRAFFIC")}
    done = subprocess.run(
        ["node", "types.mjs"], cwd=NODE, env=plain, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"types.mjs: {done.stderr}")
    return {name: Types(**package) for name, package in json.loads(done.stdout)["packages"].items()}


@dataclasses.dataclass
class Count:
    """What has been checked, so that nobody takes silence for success."""

    answers: int = 0
    errors: int = 0
    events: int = 0
    routes: set[str] = dataclasses.field(default_factory=set)
    kinds: set[str] = dataclasses.field(default_factory=set)


def problems(exchange: Exchange, count: Count) -> list[str]:
    """What is wrong with an answer, if it is one of this dialect."""
    if "anthropic-version" not in exchange.request:
        return []
    path = urllib.parse.urlsplit(exchange.url).path
    betas = set(exchange.request.get("anthropic-beta", "").split(","))
    types = declared()[BEFORE_GA if betas & OLD_BETAS else NEWEST]
    name = f"{exchange.method} {path} ({exchange.status})"
    try:
        found = _found(exchange, types, path, count)
    except ValueError as error:
        found = [str(error)]
    return [f"{name}: {problem}" for problem in found]


def _found(exchange: Exchange, types: Types, path: str, count: Count) -> list[str]:
    found = [] if exchange.headers.get("request-id") else ["no request-id header"]
    if exchange.status >= 400:
        count.errors += 1
        return found + (_error(exchange, types) if exchange.whole else [])
    route = types.route(exchange.method, path)
    if route is None:
        return found + ["a route that the SDK does not know"]
    count.routes.add(f"{exchange.method} {route.get('path', path)}")
    if route["kind"] == "bytes":
        return found
    if route["kind"] == "stream":
        return found + _stream(exchange, types, route, count)
    if not exchange.whole:
        # The client, or a server that was killed, has gone.
        return found
    if exchange.headers.get("content-type") != "application/json":
        return found + [f"content-type is {exchange.headers.get('content-type')}"]
    count.answers += 1
    return found + types.mistakes(json.loads(exchange.content()), route.get("extension") or route["schema"])


def _error(exchange: Exchange, types: Types) -> list[str]:
    body = json.loads(exchange.content())
    if found := types.mistakes(body, "ErrorAnswer"):
        return found
    found = []
    if body.get("request_id") != exchange.headers.get("request-id"):
        found.append("request_id is not what the header says")
    kind = body["error"]["type"]
    if kind not in ERROR_TYPES.get(exchange.status, ()):
        found.append(f"no such status with {kind}")
    return found


def frames(text: str):
    """The whole frames of an event stream, as pairs of the event's name and its data."""
    *whole, _ = text.split("\n\n")
    for frame in whole:
        fields: dict[str, list[str]] = {}
        for line in frame.split("\n"):
            field, _, value = line.partition(":")
            if field:
                fields.setdefault(field, []).append(value.removeprefix(" "))
        if "data" in fields:
            yield fields.get("event", [""])[-1], json.loads("\n".join(fields["data"]))


def _stream(exchange: Exchange, types: Types, route: dict, count: Count) -> list[str]:
    if exchange.headers.get("content-type") != "text/event-stream":
        return [f"content-type is {exchange.headers.get('content-type')}"]
    found = []
    for name, event in frames(exchange.content().decode(errors="replace")):
        if name != event.get("type"):
            found.append(f"a frame {name!r} with an event of type {event.get('type')!r}")
        elif name == "error":
            found += types.mistakes(event, "ErrorAnswer")
        elif name != "ping":
            count.events += 1
            count.kinds.add(name)
            found += [f"{name} {mistake}" for mistake in types.mistakes(event, route["schema"])]
    return found

//! Every setting of the server, declared once.
//!
//! To add one, add it to its section here and use it where [`crate::serve`] builds the parts; the reader, the
//! flags, `docs/configuration.md` and `oma config` follow by themselves.

mod choices;

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use oma_tools::Rule;
use secrecy::SecretString;

use crate::config::setting::{Section, Setting, section};
use crate::config::units::Bytes;
use crate::config::value::{BuildFile, HostAddress, List, Listen, LogLevel, Place, Variable};

pub(crate) use choices::{
    Backend, EffortForm, Enforcement, Input, LogFormat, Protocol, SearchProvider, Thoughts, Transport,
};

/// The table below which the operator's own providers stand.
pub(crate) const PROVIDERS: &str = "models.providers";

section! {
    /// The HTTP server.
    Server in "server" {
        /// The address and port to listen on; a bare port means 127.0.0.1, port 0 takes a free one.
        listen: Listen { default "127.0.0.1:8080"; flag "listen"; env "OPENCLAW_LISTEN", "PORT"; }
        /// The folder for everything durable: database, workspaces, sandboxes. Default: `$STATE_DIRECTORY`, which
        /// service managers set, else `./data`.
        data_dir: Option<PathBuf> { flag "data-dir"; env "OPENCLAW_DATA_DIR"; }
        /// The token that API callers must present; without one, every caller may do everything.
        api_token: Option<SecretString> { env "OPENCLAW_API_TOKEN"; }
        /// A file with the token that API callers must present.
        api_token_file: Option<PathBuf> { flag "api-token-file"; env "OPENCLAW_API_TOKEN_FILE"; }
        /// Further host names under which the server may be addressed when it needs no token, `*` for any; loopback
        /// names and IP addresses always may be used, because a foreign web page can't take one for its own name.
        allowed_hosts: List<String> { flag "allowed-hosts"; env "OPENCLAW_ALLOWED_HOSTS"; }
        /// Whether the server may listen beyond the loopback interface without a token. Whoever reaches it then
        /// runs commands on this machine and spends on its model keys.
        allow_unauthenticated_remote: bool {
            default "false"; flag "allow-unauthenticated-remote"; env "OPENCLAW_ALLOW_UNAUTHENTICATED_REMOTE";
        }
        /// Origins (`https://example.org`) whose web pages may change things here when the server needs no token.
        allowed_origins: List<String> { env "OPENCLAW_ALLOWED_ORIGINS"; }
        /// The longest that a chat completion may take before its turn is stopped.
        run_timeout: Duration { default "10m"; between "1s", "1d"; env "OPENCLAW_RUN_TIMEOUT_MS"; }
        /// The longest JSON body of a request.
        max_body: Bytes { default "32MiB"; between "64KiB", "1GiB"; env "OPENCLAW_MAX_BODY"; }
        /// The longest file of a workspace that can be read or written at once.
        max_file: Bytes { default "64MiB"; between "64KiB", "4GiB"; env "OPENCLAW_MAX_FILE"; }
        /// The longest file that may be uploaded, and that is kept of what a session makes.
        max_upload: Bytes { default "500MiB"; between "64KiB", "64GiB"; env "OPENCLAW_MAX_UPLOAD"; }
        /// What all uploaded and kept files of a workspace may have in all.
        max_stored: Bytes { default "10GiB"; between "1MiB", "1024TiB"; env "OPENCLAW_MAX_STORED"; }
        /// How long a client may pause while it sends a body.
        body_idle_timeout: Duration { default "30s"; between "100ms", "1h"; env "OPENCLAW_BODY_IDLE_TIMEOUT_MS"; }
        /// How long a body may take in all.
        body_timeout: Duration { default "5m"; between "1s", "1d"; env "OPENCLAW_BODY_TIMEOUT_MS"; }
        /// The most event streams that are open at once.
        max_streams: usize { default "10000"; between "1", "1000000"; env "OPENCLAW_MAX_STREAMS"; }
        /// The most event streams that are open at once with one API key. The operator's own token has no such bound.
        max_streams_per_key: usize { default "1000"; between "1", "1000000"; env "OPENCLAW_MAX_STREAMS_PER_KEY"; }
        /// The most connections that are open at once; further ones wait.
        max_connections: usize { default "12000"; between "1", "1000000"; env "OPENCLAW_MAX_CONNECTIONS"; }
        /// How many requests each API key may make in a minute, and as many at once; the same for each address that
        /// has shown no valid key. 0 for any number.
        rate_limit_rpm: u32 { default "1200"; between "0", "1000000"; env "OPENCLAW_RATE_LIMIT_RPM"; }
        /// Reverse proxies (networks or addresses) whose `X-Forwarded-For` is believed.
        trusted_proxies: List<IpNet> { env "OPENCLAW_TRUSTED_PROXIES"; }
        /// For how many days the audit trail keeps an entry; 0 for ever.
        audit_retention_days: u32 { default "30"; between "0", "36500"; env "OPENCLAW_AUDIT_RETENTION_DAYS"; }
        /// The source revision that `/healthz` names.
        commit: Option<String> { env "OPENCLAW_COMMIT"; }
    }
}

section! {
    /// The engine, which runs the sessions' turns.
    Engine in "engine" {
        /// The most turns at work at once; others wait, first come first served.
        max_turns: usize { default "64"; between "1", "10000"; flag "max-turns"; env "OPENCLAW_MAX_TURNS"; }
        /// The most model requests in one turn.
        max_requests_per_turn: u32 { default "250"; between "1", "100000"; env "OPENCLAW_MAX_REQUESTS_PER_TURN"; }
        /// How long a stop waits for turns to end; meanwhile the server answers, and refuses new work. Turns that have
        /// not ended go on after the next start.
        drain_timeout: Duration {
            default "10s"; between "0s", "1h"; flag "drain-timeout"; env "OPENCLAW_DRAIN_TIMEOUT_MS";
        }
        /// How long an ephemeral session (a chat completion without a session key) stays after its last event.
        ephemeral_age: Duration { default "10m"; between "1s", "30d"; env "OPENCLAW_IDLE_TIMEOUT_MS"; }
        /// How long an `Idempotency-Key` is remembered.
        idempotency_age: Duration { default "1d"; between "1m", "30d"; env "OPENCLAW_IDEMPOTENCY_AGE_MS"; }
        /// How long a compaction that a client asks for may take.
        compact_timeout: Duration { default "3m"; between "1s", "1h"; env "OPENCLAW_COMPACT_TIMEOUT_MS"; }
        /// How far the runs of scheduled deployments may be put off, so that not all begin at the same moment. A
        /// deployment is always put off by the same time, at most 15 % of the time between two of its runs.
        schedule_jitter: Duration { default "5s"; between "0s", "9m"; env "OPENCLAW_SCHEDULE_JITTER_MS"; }
        /// The most skills that a workspace may have.
        max_skills: u32 { default "1000"; between "1", "1000000"; env "OPENCLAW_MAX_SKILLS"; }
        /// The most versions that all skills of a workspace may have in all.
        max_skill_versions: u32 { default "10000"; between "1", "10000000"; env "OPENCLAW_MAX_SKILL_VERSIONS"; }
        /// The most memory stores that a workspace may have, archived ones included.
        max_memory_stores: u32 { default "1000"; between "1", "1000000"; env "OPENCLAW_MAX_MEMORY_STORES"; }
    }
}

section! {
    /// Sandboxes, where the agents' commands run.
    Sandbox in "sandbox" {
        /// What they are made of: `local` are this machine's own namespaces with its own programs, `docker` containers
        /// of any image, made by Docker's engine or one that speaks its language. Workspaces are the same for both.
        backend: Backend { default "local"; flag "sandbox-backend"; env "OPENCLAW_SANDBOX_BACKEND"; }
        /// `docker` only: the image of sandboxes. The engine has to have it; no image of ours is needed, and it needs
        /// neither `bash` nor a C library.
        image: String { default "debian:bookworm"; flag "sandbox-image"; env "OPENCLAW_SANDBOX_IMAGE"; }
        /// `docker` only: where the engine listens: the path of a Unix socket, or `tcp://host:port` without TLS. It has
        /// to be on this machine.
        engine: String { default "/var/run/docker.sock"; env "OPENCLAW_SANDBOX_ENGINE", "DOCKER_HOST"; }
        /// `docker` only: the engine's OCI runtime; its default one without it.
        runtime: Option<String> { env "OPENCLAW_SANDBOX_RUNTIME"; }
        /// `docker` only: how the server talks to what runs in its containers. `socket` needs a runtime that runs them on
        /// this machine's kernel, as runc and crun do; `exec` goes through the engine, as runtimes with a kernel of their
        /// own need it; `auto` is `exec` for those that are known by their names (gVisor's `runsc`, Kata), and else `socket`.
        transport: Transport { default "auto"; env "OPENCLAW_SANDBOX_TRANSPORT"; }
        /// `docker` only: how long an engine that does not answer, for it may be restarting, is waited for.
        engine_timeout: Duration { default "30s"; between "10ms", "10m"; env "OPENCLAW_SANDBOX_ENGINE_TIMEOUT_MS"; }
        /// How limits are enforced: `auto` is control groups for root and rlimits for others. What is configured
        /// but impossible on this machine is an error, never a weaker sandbox.
        enforcement: Enforcement { default "auto"; flag "sandbox-enforcement"; env "OPENCLAW_SANDBOX_ENFORCEMENT"; }
        /// The most sandboxes that live at once; others wait, and idle ones give way.
        max_live: usize { default "32"; between "1", "10000"; flag "max-sandboxes"; env "OPENCLAW_MAX_ACTIVE_CONTAINERS"; }
        /// How long a sandbox lives without work. Its workspace stays.
        idle_timeout: Duration { default "10m"; between "1s", "7d"; env "OPENCLAW_SANDBOX_IDLE_TIMEOUT_MS"; }
        /// The most sandboxes that are started before anybody needs them, for sessions that have none yet; 0 starts
        /// none. They count among `max_live`, and are the first to give way.
        max_warm: usize { default "0"; between "0", "10000"; env "OPENCLAW_MAX_WARM_CONTAINERS"; }
        /// How long such sandboxes are kept after anybody has asked for one like them.
        warm_timeout: Duration { default "30m"; between "1s", "7d"; env "OPENCLAW_WARM_IDLE_TIMEOUT_MS"; }
        /// Where saved states of workspaces are: a folder, which may be on another disk, or `s3://BUCKET/PREFIX`, a bucket of
        /// the store of the section `s3`. Without it, `checkpoints` in the data folder.
        checkpoints: Option<Place> { env "OPENCLAW_CHECKPOINTS", "OPENCLAW_CHECKPOINTS_DIR"; }
        /// How long a turn waits for a free sandbox.
        wait_timeout: Duration { default "2m"; between "1s", "1h"; env "OPENCLAW_SANDBOX_WAIT_TIMEOUT_MS"; }
        /// Memory of all processes of a sandbox together, its `/tmp` included. The default is half of the machine's
        /// memory where that is less.
        memory: Bytes { default "2GiB"; between "32MiB", "16TiB"; env "OPENCLAW_SANDBOX_MEMORY"; }
        /// Processes and threads of a sandbox.
        processes: u32 { default "512"; between "16", "100000"; env "OPENCLAW_SANDBOX_PROCESSES"; }
        /// Processors of a sandbox; 1.5 is one and a half. Enforced by control groups only.
        cpus: f64 { default "2"; between "0.05", "1024"; env "OPENCLAW_SANDBOX_CPUS"; }
        /// Bytes of a workspace.
        disk: Bytes { default "4GiB"; between "1MiB", "1000TiB"; env "OPENCLAW_SANDBOX_DISK"; }
        /// Files, folders and links of a workspace.
        inodes: u64 { default "500000"; between "100", "1000000000"; env "OPENCLAW_SANDBOX_INODES"; }
        /// What stays free of the file system below the workspaces, whatever their quotas say.
        disk_floor: Bytes { default "1GiB"; between "0", "1000TiB"; env "OPENCLAW_SANDBOX_DISK_FLOOR"; }
        /// Bytes of a sandbox's private `/tmp`.
        tmp: Bytes { default "512MiB"; between "1MiB", "16TiB"; env "OPENCLAW_SANDBOX_TMP"; }
        /// Open files of one process.
        open_files: u64 { default "4096"; between "64", "1048576"; env "OPENCLAW_SANDBOX_OPEN_FILES"; }
        /// How long a command runs when its call names no time.
        command_timeout: Duration { default "2m"; between "1s", "1d"; env "OPENCLAW_COMMAND_TIMEOUT_MS"; }
        /// The longest time that a call may ask for.
        max_command_timeout: Duration { default "30m"; between "1s", "7d"; env "OPENCLAW_MAX_COMMAND_TIMEOUT_MS"; }
        /// The most output of one command that is kept.
        command_output: Bytes { default "8MiB"; between "1KiB", "256MiB"; env "OPENCLAW_COMMAND_OUTPUT"; }
        /// Characters of a tool's result that the model is shown at once; a longer one goes to a file of the
        /// workspace, with a preview in its place.
        inline_result_chars: usize { default "100000"; between "1000", "1000000"; env "OPENCLAW_INLINE_RESULT_CHARS"; }
        /// As root: the first of the host's user ids that sandboxes run under. None of them should have an account.
        first_uid: u32 { default "200000"; between "1000", "4000000000"; env "OPENCLAW_SANDBOX_FIRST_UID"; }
        /// As root: how many such user ids there are.
        uids: u32 { default "65536"; between "1", "100000000"; env "OPENCLAW_SANDBOX_UIDS"; }
        /// The control group below which sandboxes get theirs; without it the server's own, or the container engine's.
        cgroup_parent: Option<PathBuf> { env "OPENCLAW_SANDBOX_CGROUP_PARENT"; }
        /// Further folders of the host that sandboxes may read.
        readable: List<PathBuf> { env "OPENCLAW_SANDBOX_READABLE"; }
        /// Sandboxes reach public hosts, as far as their environments allow, through the server; without this they have
        /// no network, and environments with `limited` networking are refused.
        egress: bool { default "true"; env "OPENCLAW_SANDBOX_EGRESS"; }
        /// What sandboxes may reach although it is not public, or not at port 80 or 443, where their environments allow
        /// it; notated as `tools.dial_allow`, which does not count here.
        egress_allow: List<Rule> { env "OPENCLAW_SANDBOX_EGRESS_ALLOW"; }
        /// Addresses of hosts for sandboxes, before the machine's own resolver is asked: `NAME=ADDRESS`. One that is
        /// not public has to be in `egress_allow` as well.
        egress_hosts: List<HostAddress> { env "OPENCLAW_SANDBOX_EGRESS_HOSTS"; }
        /// Further hosts that `allowPackageManagers` means, such as mirrors: `host` or `*.host`.
        registries: List<String> { env "OPENCLAW_SANDBOX_REGISTRIES"; }
        /// `docker` only: the images that environments may name beside the configured one. The engine has to have them.
        images: List<String> { env "OPENCLAW_SANDBOX_IMAGES"; }
        /// How long installing an environment's packages and running its setup script may take, together.
        build_timeout: Duration { default "30m"; between "1s", "1d"; env "OPENCLAW_SANDBOX_BUILD_TIMEOUT_MS"; }
        /// Environments that are built at once; others wait.
        builds: usize { default "2"; between "1", "100"; env "OPENCLAW_SANDBOX_BUILDS"; }
        /// What a build may put on the disk, with all that it needs only for a while.
        build_disk: Bytes { default "8GiB"; between "1MiB", "1000TiB"; env "OPENCLAW_SANDBOX_BUILD_DISK"; }
        /// Variables of builds, such as those that name mirrors to installers. Sessions don't have them; what an
        /// environment installs and its setup script can read them.
        build_variables: List<Variable> { env "OPENCLAW_SANDBOX_BUILD_VARIABLES"; }
        /// Files that builds see, such as an installer's configuration, and sessions don't; what an environment
        /// installs and its setup script can read them.
        build_files: List<BuildFile> { env "OPENCLAW_SANDBOX_BUILD_FILES"; }
        /// How long what was built is kept after its last use.
        layers_age: Duration { default "30d"; between "10m", "3650d"; env "OPENCLAW_SANDBOX_LAYERS_AGE_MS"; }
        /// What all that was built may take of the disk; beyond that the longest unused goes.
        layers_size: Bytes { default "20GiB"; between "1MiB", "1000TiB"; env "OPENCLAW_SANDBOX_LAYERS_SIZE"; }
        /// What may be of one workspace of that; beyond it the longest unused of the workspace goes, and nothing more is
        /// built for it while the rest is in use.
        layers_share: Bytes { default "10GiB"; between "1MiB", "1000TiB"; env "OPENCLAW_SANDBOX_LAYERS_SHARE"; }
        /// How long a sandbox with a command under way outlives its server, so that a restarted one finds it.
        orphan_timeout: Duration { default "1h"; between "1s", "7d"; env "OPENCLAW_SANDBOX_ORPHAN_TIMEOUT_MS"; }
        /// How long making a sandbox may take.
        launch_timeout: Duration { default "20s"; between "1s", "10m"; env "OPENCLAW_SPAWN_TIMEOUT_MS"; }
    }
}

section! {
    /// The S3-compatible store of objects for what other settings name as `s3://BUCKET/PREFIX`.
    S3 in "s3" {
        /// The store's address, `https://host`; Amazon's for the region without it.
        endpoint: Option<String> { env "OPENCLAW_S3_ENDPOINT"; }
        /// The region that requests are signed for. Many stores don't care.
        region: String { default "us-east-1"; env "OPENCLAW_S3_REGION"; }
        /// Whether the bucket's name is in the path of addresses, and not in the host. Default: only where there is an
        /// `endpoint`.
        path_style: Option<bool> { env "OPENCLAW_S3_PATH_STYLE"; }
        /// The id of the access key.
        access_key_id: Option<SecretString> { env "OPENCLAW_S3_ACCESS_KEY_ID"; }
        /// The access key's secret.
        secret_access_key: Option<SecretString> { env "OPENCLAW_S3_SECRET_ACCESS_KEY"; }
        /// A file with the access key's secret.
        secret_access_key_file: Option<PathBuf> { env "OPENCLAW_S3_SECRET_ACCESS_KEY_FILE"; }
    }
}

section! {
    /// Language models. The well-known providers need only their usual variables, see below. Amazon Bedrock also
    /// takes `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, with `AWS_REGION`; Anthropic also
    /// `ANTHROPIC_AUTH_TOKEN`.
    Models in "models" {
        /// How long a provider may send nothing before the request counts as stalled; local servers (Ollama, vLLM,
        /// LM Studio) get ten minutes, because they may have to load the model first.
        stall_timeout: Duration { default "90s"; between "1s", "1h"; env "OPENCLAW_MODEL_STALL_TIMEOUT_MS"; }
        /// How long connecting to a provider may take.
        connect_timeout: Duration { default "10s"; between "100ms", "5m"; env "OPENCLAW_MODEL_CONNECT_TIMEOUT_MS"; }
        /// A TOML file with prices that count more than the built-in catalogue's: a table `["provider/model"]` per
        /// model, with `input`, `output`, `cache_read` and `cache_write` in US dollars per million tokens.
        price_file: Option<PathBuf> { env "OPENCLAW_PRICE_FILE"; }
        /// The model that grades the work towards outcomes, `provider/model`; the session's own otherwise.
        grader: Option<String> { env "OPENCLAW_GRADER_MODEL"; }
    }
}

section! {
    /// A provider: agents name its models `<name>/<model>`. A well-known one needs no such table; with one, what
    /// stands here counts more than its variables. Its HTTP headers stand in `models.providers.<name>.headers`.
    Provider in "models.providers.<name>" {
        /// The wire protocol that it speaks; must be set unless the provider is well known.
        protocol: Option<Protocol> {}
        /// Where it is, up to what the protocol's own paths are appended to; must be set unless the provider is
        /// well known.
        base_url: Option<String> {}
        /// The environment variable that holds its key; none for a provider without keys.
        api_key_env: Option<String> {}
        /// The context window of its models in tokens, where their own tables don't say.
        context_window: Option<u64> { between "1024", "1000000000"; }
        /// The most output tokens of a request.
        max_output_tokens: Option<u32> { between "1", "100000000"; }
        /// Replaces `models.stall_timeout`.
        stall_timeout: Option<Duration> { between "1s", "1h"; }
        /// The provider whose prices it charges, by its name in the price catalogue (`anthropic`, `openai`, …). A
        /// well-known one behind another address, and one that is not well known, has no prices without it.
        catalogue: Option<String> {}
        /// How it is told how hard to think, if it speaks Chat Completions; `reasoning_effort` unless it is well
        /// known.
        effort: Option<EffortForm> {}
        /// What of its models' thoughts it wants back, if it speaks Chat Completions; `never` unless it is well
        /// known.
        reasoning_back: Option<Thoughts> {}
        /// The models to list.
        models: List<String> {}
    }
}

section! {
    /// A model of a provider, by its id there, which is quoted where it has other characters than letters, digits,
    /// `-` and `_`: `[models.providers.local.model."qwen3:8b"]`. It is listed.
    Model in "models.providers.<name>.model.<id>" {
        /// A name for people.
        name: Option<String> {}
        /// Its context window in tokens. When the context is about to reach it, the history is summarised.
        context_window: Option<u64> { between "1024", "1000000000"; }
        /// What it takes besides text, for the list of models: `image`, `document`.
        input: List<Input> {}
    }
}

section! {
    /// The agents' tools that run in the server.
    Tools in "tools" {
        /// The provider of the `web_search` tool; without one there is no such tool.
        search_provider: Option<SearchProvider> { env "OPENCLAW_SEARCH_PROVIDER"; }
        /// The search provider's key (Brave, Tavily).
        search_api_key: Option<SecretString> { env "OPENCLAW_SEARCH_API_KEY"; }
        /// The search provider's address; needed for SearXNG.
        search_url: Option<String> { env "OPENCLAW_SEARCH_URL"; }
        /// How long a fetch may take.
        fetch_timeout: Duration { default "30s"; between "1s", "10m"; env "OPENCLAW_FETCH_TIMEOUT_MS"; }
        /// The largest body that is fetched.
        fetch_max_bytes: Bytes { default "10MiB"; between "1KiB", "256MiB"; env "OPENCLAW_FETCH_MAX_BYTES"; }
        /// What tools may reach although it is not public, or not at port 80 or 443: networks (`10.0.0.0/8`),
        /// addresses (`10.1.2.3:8080`), hosts (`intranet.example`, `*.corp.example:8443`).
        dial_allow: List<Rule> { env "OPENCLAW_DIAL_ALLOW"; }
    }
}

section! {
    /// Vaults, which hold the credentials that MCP servers are called with.
    Vault in "vault" {
        /// The master key of the vaults: 32 bytes as 64 hexadecimal digits, base64 or base64url.
        key: Option<SecretString> { env "OPENCLAW_VAULT_KEY"; }
        /// A file with the master key. Without this and without a key, a key is generated into `vault.key` in the
        /// data folder, where a backup of the folder has both the vaults and their key.
        key_file: Option<PathBuf> { env "OPENCLAW_VAULT_KEY_FILE"; }
    }
}

section! {
    /// MCP servers that agents name. What may be dialled is `tools.dial_allow`'s.
    Mcp in "mcp" {
        /// How long a model request waits for servers that are being connected, all at once. One that takes longer
        /// goes on being connected, and its tools are offered to the next request.
        connect_wait: Duration { default "10s"; between "0s", "5m"; env "OPENCLAW_MCP_CONNECT_WAIT_MS"; }
        /// How long connecting a server may take.
        connect_timeout: Duration { default "1m"; between "100ms", "1h"; env "OPENCLAW_MCP_CONNECT_TIMEOUT_MS"; }
        /// How long a call may take.
        call_timeout: Duration { default "5m"; between "100ms", "1d"; env "OPENCLAW_MCP_CALL_TIMEOUT_MS"; }
        /// How long the connections of a session without work are kept.
        idle_timeout: Duration { default "5m"; between "0s", "7d"; env "OPENCLAW_MCP_IDLE_TIMEOUT_MS"; }
        /// How many sessions without work may keep connections.
        max_idle: usize { default "128"; between "0", "100000"; env "OPENCLAW_MCP_MAX_IDLE"; }
    }
}

section! {
    /// Signing up: off unless turned on here, and only on servers with an API token. Whoever signs up gets a workspace of
    /// their own and an API key of the scope `write` for it.
    Signup in "signup" {
        /// Whether anybody may sign up anonymously.
        anonymous: bool { default "false"; env "OPENCLAW_SIGNUP_ANONYMOUS"; }
        /// How long anonymous users stay; then everything of theirs is removed.
        anonymous_lifetime: Duration { default "1d"; between "1s", "365d"; env "OPENCLAW_SIGNUP_ANONYMOUS_LIFETIME_MS"; }
        /// The most anonymous users at once.
        anonymous_max_users: u32 { default "1000"; between "1", "1000000"; env "OPENCLAW_SIGNUP_ANONYMOUS_MAX_USERS"; }
        /// The most sessions of an anonymous user.
        anonymous_max_sessions: u32 {
            default "20"; between "1", "1000000"; env "OPENCLAW_SIGNUP_ANONYMOUS_MAX_SESSIONS";
        }
        /// The most tokens of an anonymous user in a month.
        anonymous_max_tokens: u64 {
            default "1000000"; between "1", "1000000000000"; env "OPENCLAW_SIGNUP_ANONYMOUS_MAX_TOKENS";
        }
        /// US dollars that the model requests of an anonymous user may cost in a month.
        anonymous_max_cost_usd: f64 {
            default "1"; between "0.000001", "1000000"; env "OPENCLAW_SIGNUP_ANONYMOUS_MAX_COST_USD";
        }
        /// Whether anybody with a GitHub account may sign in. Needs the three settings that follow.
        github: bool { default "false"; env "OPENCLAW_SIGNUP_GITHUB"; }
        /// The id of the GitHub OAuth app.
        github_client_id: Option<String> { env "GITHUB_CLIENT_ID"; }
        /// The secret of the GitHub OAuth app.
        github_client_secret: Option<SecretString> { env "GITHUB_CLIENT_SECRET"; }
        /// Where GitHub leads browsers back: this server's address as browsers reach it, with the path
        /// `/auth/github/callback`. Over https, unless it is a loopback address.
        github_redirect_url: Option<String> { env "OPENCLAW_GITHUB_REDIRECT_URL"; }
        /// Where GitHub is; an enterprise server's address otherwise. `tools.dial_allow` must allow a private one.
        github_url: String { default "https://github.com"; env "OPENCLAW_GITHUB_URL"; }
        /// Where GitHub's API is.
        github_api_url: String { default "https://api.github.com"; env "OPENCLAW_GITHUB_API_URL"; }
        /// The most users who signed in with GitHub.
        github_max_users: u32 { default "10000"; between "1", "1000000"; env "OPENCLAW_SIGNUP_GITHUB_MAX_USERS"; }
        /// The most sessions of such a user.
        github_max_sessions: u32 { default "200"; between "1", "1000000"; env "OPENCLAW_SIGNUP_GITHUB_MAX_SESSIONS"; }
        /// The most tokens of such a user in a month.
        github_max_tokens: u64 {
            default "10000000"; between "1", "1000000000000"; env "OPENCLAW_SIGNUP_GITHUB_MAX_TOKENS";
        }
        /// US dollars that the model requests of such a user may cost in a month.
        github_max_cost_usd: f64 {
            default "10"; between "0.000001", "1000000"; env "OPENCLAW_SIGNUP_GITHUB_MAX_COST_USD";
        }
    }
}

section! {
    /// The log, which goes to the standard error stream.
    Log in "log" {
        /// What is logged: `off`, `error`, `warn`, `info`, `debug`, `trace`, or directives such as
        /// `info,oma_engine=debug`. `debug` and `trace` are for the server's own modules: libraries log what they
        /// carry, credentials included, and have to be named.
        level: LogLevel { default "info"; flag "log-level"; env "OPENCLAW_LOG_LEVEL"; }
        /// What a line looks like: `auto` is text on a terminal and JSON elsewhere.
        format: LogFormat { default "auto"; flag "log-format"; env "OPENCLAW_LOG_FORMAT"; }
    }
}

/// A section as the flags and the reference see it.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Its table's key.
    pub(crate) key: &'static str,
    /// What it is about.
    pub(crate) doc: &'static str,
    /// Its settings.
    pub(crate) settings: &'static [Setting],
}

fn listed<S: Section>() -> Listed {
    Listed {
        key: S::KEY,
        doc: S::DOC,
        settings: S::SETTINGS,
    }
}

/// All sections, in the order of the reference.
pub(crate) fn all() -> impl Iterator<Item = Listed> {
    [
        listed::<Server>(),
        listed::<Engine>(),
        listed::<Sandbox>(),
        listed::<S3>(),
        listed::<Models>(),
        listed::<Provider>(),
        listed::<Model>(),
        listed::<Tools>(),
        listed::<Vault>(),
        listed::<Mcp>(),
        listed::<Signup>(),
        listed::<Log>(),
    ]
    .into_iter()
}

/// What the reference says after the sections.
pub(crate) const ELSEWHERE: &str = "
## Variables without effect

Other variables that begin with `OPENCLAW_`, those of the older container-based service among them, have no effect; the
server names each of them in a warning when it starts.

## OpenTelemetry

A binary that was built with `--features otel` exports traces, metrics and logs over OTLP (HTTP with protobuf) once
`OTEL_EXPORTER_OTLP_ENDPOINT`, or the variable of one signal such as `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, names a collector.
The other standard variables hold as well: `OTEL_SDK_DISABLED`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
`OTEL_EXPORTER_OTLP_HEADERS` and `_TIMEOUT`, `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` and `OTEL_LOGS_EXPORTER` (`otlp` or
`none`), `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, `OTEL_BLRP_*`, `OTEL_METRIC_EXPORT_INTERVAL`. What users, models and tools say is
never exported in spans or metrics; the log's lines are exported as they are.

## Client commands

`oma chat`, `oma agent`, `oma session` and the other client commands read none of the above. They take the server's
address from `--url` or `OPENCLAW_URL` (default `http://127.0.0.1:8080`) and the token from `--token-file`,
`OPENCLAW_API_TOKEN_FILE` or `OPENCLAW_API_TOKEN`; a token is never an argument, because others could see it in the
list of processes.
";

use std::ffi::OsString;
use std::path::Path;

use secrecy::ExposeSecret as _;

use super::*;
use crate::config::reader::Origin;
use crate::config::sections::{EffortForm, Input, Protocol, Thoughts};

struct Given<'a> {
    flags: &'a [(&'static str, &'a str)],
    env: &'a [(&'a str, &'a str)],
    file: Option<&'a str>,
}

const NOTHING: Given<'_> = Given {
    flags: &[],
    env: &[("HOME", "/home/ada")],
    file: None,
};

impl Given<'_> {
    fn load(&self) -> Result<Config, Error> {
        let env = self
            .env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)));
        Config::from_sources(&Sources {
            flags: self
                .flags
                .iter()
                .map(|(flag, text)| (*flag, (*text).to_owned()))
                .collect(),
            env: env
                .chain([("HOME".to_owned(), OsString::from("/home/ada"))])
                .collect(),
            file: self
                .file
                .map(|text| File::parse(Path::new("oma.toml"), text).expect("TOML")),
        })
    }

    fn problems(&self) -> Vec<String> {
        match self.load() {
            Err(Error::Settings(problems)) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("expected problems, got {other:?}"),
        }
    }
}

#[test]
fn defaults_are_legal() {
    let config = NOTHING.load().expect("the defaults are legal");
    assert_eq!(config.server.listen.0.to_string(), "127.0.0.1:8080");
    assert!(config.data_dir.is_absolute());
    // As much as Claude Managed Agents show.
    assert_eq!(config.sandbox.inline_result_chars, 100_000);
    assert!(
        config
            .effective
            .iter()
            .all(|effective| effective.origin == Origin::Default)
    );
}

#[test]
fn a_flag_counts_more_than_the_environment_than_the_file() {
    let file = Some("[server]\nlisten = \"127.0.0.1:1\"\n");
    let variables = [("PORT", "2"), ("OPENCLAW_LISTEN", "127.0.0.1:3")];
    let flags = [("listen", "127.0.0.1:4")];
    let cases: [(Given<'_>, &str, Origin); 4] = [
        (
            Given { file, ..NOTHING },
            "127.0.0.1:1",
            Origin::File("oma.toml:2".into()),
        ),
        (
            Given {
                file,
                env: &variables[..1],
                ..NOTHING
            },
            "127.0.0.1:2",
            Origin::Environment("PORT".into()),
        ),
        (
            Given {
                file,
                env: &variables,
                ..NOTHING
            },
            "127.0.0.1:3",
            Origin::Environment("OPENCLAW_LISTEN".into()),
        ),
        (
            Given {
                file,
                env: &variables,
                flags: &flags,
            },
            "127.0.0.1:4",
            Origin::Flag("listen"),
        ),
    ];
    for (given, listen, origin) in cases {
        let config = given.load().expect("legal");
        assert_eq!(config.server.listen.0.to_string(), listen);
        let effective = config
            .effective
            .iter()
            .find(|effective| effective.key == "server.listen");
        assert_eq!(effective.expect("listed").origin, origin);
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let config = Given {
        env: &[("PORT", ""), ("OPENCLAW_API_TOKEN", "")],
        ..NOTHING
    }
    .load()
    .expect("legal");
    assert_eq!(config.server.listen.0.port(), 8080);
    assert!(config.server.api_token.is_none());
}

#[test]
fn millisecond_variables_hold_plain_numbers() {
    let config = Given {
        env: &[("OPENCLAW_IDLE_TIMEOUT_MS", "1500")],
        ..NOTHING
    }
    .load()
    .expect("legal");
    assert_eq!(config.engine.ephemeral_age.as_millis(), 1500);
    let problems = Given {
        env: &[("OPENCLAW_IDLE_TIMEOUT_MS", "10s")],
        ..NOTHING
    }
    .problems();
    assert_eq!(
        problems,
        ["engine.ephemeral_age ($OPENCLAW_IDLE_TIMEOUT_MS): `10s` is not a whole number of milliseconds"]
    );
}

#[test]
fn the_data_folder_follows_the_environment() {
    let here = std::env::current_dir().expect("a current folder");
    for (env, folder) in [
        (&[][..], here.join("data")),
        (
            &[("STATE_DIRECTORY", "/var/lib/oma:/var/lib/other")],
            PathBuf::from("/var/lib/oma"),
        ),
        (
            &[
                ("OPENCLAW_DATA_DIR", "there"),
                ("STATE_DIRECTORY", "/var/lib/oma"),
            ],
            here.join("there"),
        ),
    ] {
        let config = Given { env, ..NOTHING }.load().expect("legal");
        assert_eq!(config.data_dir, folder);
    }
}

#[test]
fn mistakes_are_reported_together_with_their_places() {
    let given = Given {
        flags: &[("log-format", "yaml")],
        env: &[("OPENCLAW_MAX_TURNS", "many")],
        file: Some("[engine]\nmax_requests_per_turn = 0\nmax_trns = 3\n[colour]\nname = \"red\"\n"),
    };
    assert_eq!(
        given.problems(),
        [
            "engine.max_turns ($OPENCLAW_MAX_TURNS): `many` is not a whole number from 0 to 18446744073709551615",
            "engine.max_requests_per_turn (oma.toml:2): it must be from 1 to 100000",
            "log.format (--log-format): `yaml` is none of: auto, json, text",
            "colour.name (oma.toml:5): there is no such setting",
            "engine.max_trns (oma.toml:3): there is no such setting; did you mean `engine.max_turns`?",
        ]
    );
}

#[test]
fn an_open_address_needs_a_token_or_a_word() {
    let listen = [("listen", "0.0.0.0:8080")];
    let problems = Given {
        flags: &listen,
        ..NOTHING
    }
    .problems();
    assert!(
        problems[0].starts_with("server.listen (--listen): anybody who reaches this address"),
        "{problems:?}"
    );
    let with_word = [
        ("listen", "0.0.0.0:8080"),
        ("allow-unauthenticated-remote", "true"),
    ];
    for given in [
        Given {
            flags: &listen,
            env: &[("OPENCLAW_API_TOKEN", "secret")],
            ..NOTHING
        },
        Given {
            flags: &listen,
            env: &[("OPENCLAW_API_TOKEN_FILE", "/run/token")],
            ..NOTHING
        },
        Given {
            flags: &with_word,
            ..NOTHING
        },
        Given {
            flags: &[("listen", "[::1]:8080")],
            ..NOTHING
        },
    ] {
        given.load().expect("legal");
    }
}

#[test]
fn secrets_are_read_and_never_shown() {
    let given = Given {
        env: &[("OPENCLAW_API_TOKEN", "hunter2")],
        file: Some(
            "[tools]\nsearch_provider = \"brave\"\nsearch_api_key = \"brave-key\"\n\
             [models.providers.corp]\nbase_url = \"https://models.example/v1\"\n\
             [models.providers.corp.headers]\nx-key = \"corp-key\"\n",
        ),
        ..NOTHING
    };
    let config = given.load().expect("legal");
    assert_eq!(
        config
            .server
            .api_token
            .as_ref()
            .map(|token| token.expose_secret()),
        Some("hunter2")
    );
    assert_eq!(
        config.providers["corp"].headers["x-key"].expose_secret(),
        "corp-key"
    );
    let shown = format!("{:?}", config.effective);
    for secret in ["hunter2", "brave-key", "corp-key"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn providers_are_read_by_name() {
    let config = Given {
        file: Some(
            "[models.providers.local]\nbase_url = \"http://127.0.0.1:8000/v1\"\n\
             [models.providers.claude-eu]\nprotocol = \"anthropic\"\nbase_url = \"https://eu.example\"\napi_key_env = \"EU_KEY\"\n",
        ),
        ..NOTHING
    }
    .load()
    .expect("legal");
    assert_eq!(
        config.providers.keys().collect::<Vec<_>>(),
        ["claude-eu", "local"]
    );
    assert_eq!(
        config.providers["claude-eu"].settings.protocol,
        Some(Protocol::Anthropic)
    );
    assert_eq!(
        config.providers["claude-eu"].settings.api_key_env.as_deref(),
        Some("EU_KEY")
    );

    // A model's id may have dots and colons; its own table counts more than its provider's.
    let config = Given {
        file: Some(
            "[models.providers.local]\ncontext_window = 8192\neffort = \"none\"\nreasoning_back = \"content\"\n\
             catalogue = \"openai\"\nmodels = [\"llama3.1:8b\", \"plain\"]\n\
             [models.providers.local.model.\"llama3.1:8b\"]\ncontext_window = 131072\ninput = [\"image\"]\n\
             [models.providers.local.model.\"org/qwen2.5\"]\n\
             [models.providers.local.model.small]\nname = \"The small one\"\n",
        ),
        ..NOTHING
    }
    .load()
    .expect("legal");
    let local = &config.providers["local"];
    assert_eq!(local.settings.catalogue.as_deref(), Some("openai"));
    assert_eq!(local.settings.effort, Some(EffortForm::None));
    assert_eq!(local.settings.reasoning_back, Some(Thoughts::Content));
    assert_eq!(
        local.models.keys().collect::<Vec<_>>(),
        ["llama3.1:8b", "org/qwen2.5", "small"]
    );
    assert_eq!(local.models["llama3.1:8b"].context_window, Some(131_072));
    assert_eq!(local.models["llama3.1:8b"].input.0, [Input::Image]);
    assert_eq!(local.models["small"].name.as_deref(), Some("The small one"));
    let file = Some(
        "[models.providers.local.model.\"a.b\"]\ncontext = 4096\n[models.providers.local.model.c]\ninput = [\"smell\"]\n",
    );
    assert_eq!(
        Given { file, ..NOTHING }.problems(),
        [
            "models.providers.local.model.c.input (oma.toml:4): `smell` is none of: image, document",
            "models.providers.local.model.a.b.context (oma.toml:2): there is no such setting",
        ]
    );

    // What a provider needs, the registry of models knows; here only the kinds of values are checked.
    let file = Some("[models.providers.local]\nprotocol = \"telepathy\"\ncontext_window = 12\n");
    assert_eq!(
        Given { file, ..NOTHING }.problems(),
        [
            "models.providers.local.protocol (oma.toml:2): `telepathy` is none of: anthropic, openai_chat, \
             openai_responses, gemini, bedrock",
            "models.providers.local.context_window (oma.toml:3): it must be from 1024 to 1000000000",
        ]
    );
}

#[test]
fn every_declaration_is_consistent() {
    let mut flags = std::collections::BTreeSet::new();
    let mut variables = std::collections::BTreeSet::new();
    for section in sections::all() {
        for setting in section.settings {
            let name = format!("{}.{}", section.key, setting.name);
            assert!(
                !setting.doc.trim().is_empty() && setting.doc.trim().ends_with('.'),
                "{name} is documented"
            );
            assert!(
                setting.flag.is_none_or(|flag| flags.insert(flag)),
                "{name}: the flag is taken"
            );
            for variable in setting.env {
                assert!(variables.insert(variable), "{name}: {variable} is taken");
            }
            let secret = setting.notation == <secrecy::SecretString as value::Value>::NOTATION;
            assert!(
                !secret || setting.flag.is_none(),
                "{name}: a secret has no flag, others could see it"
            );
            if let Some((least, greatest)) = setting.between {
                assert!(least != greatest, "{name}");
            }
        }
    }
}

#[test]
fn the_reference_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    crate::reference::assert_current(path, &document::markdown());
}

#[test]
fn containers_need_an_engine_that_can_be_reached_and_an_image() {
    let docker = |env: &[(&str, &str)]| {
        let all = [&[("OPENCLAW_SANDBOX_BACKEND", "docker")], env].concat();
        Given { env: &all, ..NOTHING }.problems()
    };
    for (env, problem) in [
        (("DOCKER_HOST", "ssh://elsewhere"), "sandbox.engine"),
        (("OPENCLAW_SANDBOX_ENGINE", "relative.sock"), "sandbox.engine"),
        (("OPENCLAW_SANDBOX_IMAGE", " "), "sandbox.image"),
    ] {
        let problems = docker(&[env]);
        assert!(
            problems.iter().any(|found| found.contains(problem)),
            "{env:?}: {problems:?}"
        );
    }
    // Without containers nobody asks for an engine.
    let local = Given {
        env: &[("DOCKER_HOST", "ssh://elsewhere")],
        ..NOTHING
    };
    local.load().expect("legal");
}

#[test]
fn checkpoints_are_in_a_folder_or_in_a_bucket() {
    let place = |text: &str| {
        let env: &[(&str, &str)] = &[
            ("OPENCLAW_CHECKPOINTS_DIR", text),
            ("OPENCLAW_S3_ACCESS_KEY_ID", "canary-id"),
            ("OPENCLAW_S3_SECRET_ACCESS_KEY", "canary-secret"),
        ];
        Given { env, ..NOTHING }.load().map(|config| {
            assert!(!format!("{config:?}").contains("canary"), "{config:?}");
            config.sandbox.checkpoints
        })
    };
    let bucket = |name: &str, prefix: &str| {
        Some(value::Place::Bucket {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        })
    };
    for (text, expected) in [
        ("/srv/saved", Some(value::Place::Folder("/srv/saved".into()))),
        ("s3:/saved", Some(value::Place::Folder("s3:/saved".into()))),
        ("s3://saved", bucket("saved", "")),
        ("s3://saved/", bucket("saved", "")),
        ("s3://my.bucket/a/b-1/", bucket("my.bucket", "a/b-1")),
    ] {
        assert_eq!(place(text).expect("legal"), expected, "{text}");
    }
    for text in [
        "s3://",
        "s3://ab",
        "s3://a@b.example/x",
        "s3://saved//x",
        "s3://saved/../x",
        "s3://saved/a b",
        "s3://saved/x?y",
        "gs://saved/x",
    ] {
        place(text).expect_err(text);
    }
}

#[test]
fn a_bucket_needs_a_key() {
    let given = |env: &[(&str, &str)]| {
        let all = [&[("OPENCLAW_CHECKPOINTS", "s3://saved/x")], env].concat();
        Given { env: &all, ..NOTHING }.problems()
    };
    let missing = [
        "s3.access_key_id: must be set when `sandbox.checkpoints` is a bucket",
        "s3.secret_access_key: must be set, or come from `s3.secret_access_key_file`, when `sandbox.checkpoints` is a \
         bucket",
    ];
    assert_eq!(given(&[]), missing);
    let id = ("OPENCLAW_S3_ACCESS_KEY_ID", "id");
    let secret = ("OPENCLAW_S3_SECRET_ACCESS_KEY", "secret");
    assert_eq!(given(&[id]), missing[1..]);
    let both = given(&[id, secret, ("OPENCLAW_S3_SECRET_ACCESS_KEY_FILE", "/x")]);
    assert_eq!(
        both,
        [
            "s3.secret_access_key_file ($OPENCLAW_S3_SECRET_ACCESS_KEY_FILE): `s3.secret_access_key` is set as well; set \
             only one of them"
        ]
    );
    let region = given(&[id, secret, ("OPENCLAW_S3_REGION", "eu west")]);
    assert_eq!(
        region,
        ["s3.region ($OPENCLAW_S3_REGION): must be letters, digits, `-` and `_`"]
    );
    // Without a bucket nobody asks for a key.
    NOTHING.load().expect("legal");
}

//! What the command line accepts, refuses and writes, without any server.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The binary, with an environment that holds nothing of the developer's own.
pub(crate) fn oma(arguments: &[&str]) -> Command {
    let home = std::env::temp_dir().join("oma-tests-no-such-home");
    let mut command = Command::new(env!("CARGO_BIN_EXE_oma"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .env("OPENCLAW_CONFIG", "")
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    oma(arguments).output().expect("the binary runs")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn wrong_usage_exits_with_2_and_says_why() {
    for (arguments, said) in [
        (&[][..], "Usage: oma"),
        (&["fly"], "unrecognized subcommand 'fly'"),
        (&["serve", "--listen"], "a value is required"),
        (&["serve", "--unknown"], "unexpected argument '--unknown'"),
        (&["agent", "create"], "--model"),
        (
            &["agent", "create", "--model", "a/b", "--permission", "sometimes"],
            "always-allow",
        ),
        (
            &["agent", "create", "--model", "a/b", "--thinking", "hard"],
            "possible values: off",
        ),
        (
            &["session", "logs", "ses_1", "--tail", "0"],
            "0 is not in 1..=10000",
        ),
        (
            &["session", "confirm", "ses_1", "evt_1", "maybe"],
            "possible values: allow, deny",
        ),
        (
            &["chat", "hello"],
            "--agent <ID>|--model <PROVIDER/MODEL>|--session <ID>",
        ),
        (
            &["chat", "--agent", "a", "--model", "b/c", "hello"],
            "cannot be used with",
        ),
        (&["agent", "list", "--url", "not an address"], "invalid value"),
        (&["health", "--timeout", "soon"], "is not a duration"),
        (
            &["environment", "create", "e", "--package", "numpy"],
            "names no package manager",
        ),
        (
            &[
                "session",
                "files",
                "get",
                "ses_1",
                "../up",
                "--url",
                "http://127.0.0.1:1",
            ],
            "error",
        ),
    ] {
        let output = run(arguments);
        let expected = if arguments.contains(&"../up") { 1 } else { 2 };
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(said),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn with_json_an_error_is_json_on_standard_error_and_nothing_is_on_standard_output() {
    for (arguments, code) in [
        (&["--json", "agent", "create"][..], "usage"),
        (&["--json", "fly"], "usage"),
        (&["--json", "serve", "--listen", "nowhere"], "configuration"),
        (
            &["agent", "list", "--url", "http://127.0.0.1:1", "--json"],
            "unreachable",
        ),
        (&["agent", "list", "--url", "ftp://127.0.0.1", "--json"], "usage"),
    ] {
        let output = run(arguments);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        let error: Value = serde_json::from_str(stderr(&output).trim()).expect("one JSON document");
        assert_eq!(error["error"], code, "{arguments:?}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{arguments:?}"
        );
    }
}

#[test]
fn with_json_standard_output_is_json_only() {
    for arguments in [
        &["--json", "version"][..],
        &["config", "--json"],
        &["config", "--table", "--json"],
        &["completions", "bash", "--json"],
    ] {
        let output = run(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        serde_json::from_str::<Value>(stdout(&output).trim()).expect("one JSON document");
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["version"],
        &["session", "files", "--help"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(
            !stdout(&output).is_empty() && stderr(&output).is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn completions_are_written_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("oma"), "{shell}");
    }
}

#[test]
fn settings_come_from_flag_environment_and_file_and_secrets_stay_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("oma.toml");
    std::fs::write(&file, "[engine]\nmax_turns = 7\n[log]\nlevel = \"warn\"\n").expect("written");
    let output = oma(&["config", "--json", "--log-level", "debug", "--config"])
        .arg(&file)
        .env("OPENCLAW_API_TOKEN", "hunter2")
        .env("PORT", "9999")
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stdout(&output).contains("hunter2"));
    let shown: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    for (setting, value, source) in [
        ("engine.max_turns", "7", format!("{}:2", file.display())),
        ("log.level", "\"debug\"", "--log-level".to_owned()),
        ("server.listen", "\"127.0.0.1:9999\"", "$PORT".to_owned()),
        (
            "server.api_token",
            "\"[redacted]\"",
            "$OPENCLAW_API_TOKEN".to_owned(),
        ),
        ("engine.drain_timeout", "\"10s\"", "default".to_owned()),
    ] {
        assert_eq!(
            shown["settings"][setting]["value"].to_string(),
            value,
            "{setting}"
        );
        assert_eq!(shown["settings"][setting]["source"], source, "{setting}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_every_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("oma.toml");
    std::fs::write(
        &file,
        "[engine]\nmax_turns = \"many\"\n[server]\nlisten = \"0.0.0.0:8080\"\n",
    )
    .expect("written");
    for command in ["serve", "config", "doctor"] {
        let output = oma(&[command, "--config"])
            .arg(&file)
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(1), "{command}");
        let said = stderr(&output);
        assert!(
            said.contains("engine.max_turns") && said.contains("oma.toml:2"),
            "{said}"
        );
        assert!(
            said.contains("server.listen") && said.contains("OPENCLAW_API_TOKEN"),
            "{said}"
        );
    }
    let output = oma(&["config", "--config", "/no/such/file.toml"])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("/no/such/file.toml"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = oma(&["config", "--table"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn the_doctor_says_what_it_found_and_exits_by_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let output = oma(&[
        "doctor",
        "--json",
        "--sandbox-enforcement",
        "rlimit",
        "--data-dir",
    ])
    .arg(&data)
    .env("ANTHROPIC_API_KEY", "hunter2")
    .output()
    .expect("the binary runs");
    let found: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(
        output.status.code(),
        Some(if found["ok"] == true { 0 } else { 1 }),
        "{found}"
    );
    let checks = found["checks"].as_array().expect("a list");
    for name in [
        "data folder",
        "access",
        "anthropic",
        "kernel",
        "a sandbox",
        "network",
    ] {
        assert!(
            checks.iter().any(|check| check["name"] == name),
            "{name}: {found}"
        );
    }
    let fails = checks.iter().any(|check| check["status"] == "fail");
    assert_eq!(found["ok"], !fails);
    assert!(!stdout(&output).contains("hunter2"));
    assert!(!data.exists(), "the doctor makes nothing");

    // What the server would refuse, with what mends it: others may write there, or sandboxes can read it.
    let open = folder.path().join("open");
    std::fs::create_dir(&open).expect("made");
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("set");
    let chmod = format!("chmod 700 {}", open.display());
    for (path, readable, said) in [
        (&open, None, chmod.as_str()),
        (&data, Some(folder.path()), "every sandbox can read"),
    ] {
        let output = oma(&["doctor", "--data-dir"])
            .arg(path)
            .envs(readable.map(|path| ("OPENCLAW_SANDBOX_READABLE", path)))
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains(said), "{said}: {}", stdout(&output));
    }

    std::fs::write(&data, "").expect("written");
    let output = oma(&["doctor", "--data-dir"])
        .arg(&data)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("is not a folder"), "{}", stdout(&output));
}

/// Root without the right to change its user could start no proxy.
#[test]
fn the_doctor_sees_that_sandboxes_would_have_no_way_out() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else has to change the user.
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let found = |arguments: &[&str]| {
        let output = std::process::Command::new("setpriv")
            .args(arguments)
            .arg(env!("CARGO_BIN_EXE_oma"))
            .args([
                "doctor",
                "--json",
                "--sandbox-enforcement",
                "rlimit",
                "--data-dir",
            ])
            .arg(folder.path().join("data"))
            .output()
            .expect("setpriv runs");
        let found: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        let mut checks = found["checks"].as_array().expect("a list").iter();
        let network = checks.rfind(|check| check["name"] == "network");
        network.expect("it is looked at").clone()
    };
    assert_eq!(found(&["--inh-caps=-all"])["status"], "ok");
    let without = found(&["--bounding-set=-setuid,-setgid"]);
    assert_eq!(without["status"], "fail", "{without}");
    let detail = without["detail"].as_str().expect("text");
    assert!(detail.contains("becoming another user than root"), "{detail}");
    assert!(without["remedy"].as_str().expect("text").contains("CAP_SETUID"));
}

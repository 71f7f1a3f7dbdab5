//! Vaults over the real binary: commands, restarts, wrong keys, and a master key that changes.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::command_line::{oma, stderr};
use crate::system::{Data, Options, Server, soon};

const CANARY: &str = "canary-static-token-5b1c";

/// Runs a client command against a server, with `input` on standard input.
fn client(server: &Server, arguments: &[&str], input: &str) -> Output {
    let mut child = oma(arguments)
        .arg("--json")
        .args(["--url", server.client.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn good(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

async fn on(server: &Server, arguments: &[&str], input: &str) -> Value {
    // The server runs in another process, so this thread may wait.
    tokio::task::block_in_place(|| good(&client(server, arguments, input)))
}

fn rekey(data: &Data, more: &[&str], variables: &[(&str, &str)]) -> Output {
    oma(&["--json", "vault", "rekey", "--data-dir"])
        .arg(data.path())
        .args(more)
        .envs(variables.iter().copied())
        .output()
        .expect("the binary runs")
}

/// Starts a server that is going to refuse, and returns what it said.
fn refuses(data: &Data, options: &Options) -> String {
    let output = options.command(&data.path()).output().expect("the binary runs");
    assert!(!output.status.success());
    format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output))
}

fn contains(data: &Data, needle: &str) -> bool {
    let log = data.log();
    let files = std::fs::read_dir(data.path()).expect("a folder");
    log.contains(needle)
        || files
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_file())
            .any(|path| {
                let content = std::fs::read(path).expect("readable");
                content
                    .windows(needle.len())
                    .any(|window| window == needle.as_bytes())
            })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_restarts_and_keys() {
    let (data, options) = (Data::new(), Options::default());
    let server = Server::start(&data, &options).await;
    let vault = on(&server, &["vault", "create", "mine", "--user-id", "user-1"], "").await;
    let id = vault["vault_id"].as_str().expect("an id").to_owned();
    let url = "https://mcp.example/";
    let add = ["vault", "add-bearer", &id, "--name", "n", "--match-url", url];
    let fixed = on(&server, &add, &format!("{CANARY}\n")).await;
    let secrets = json!({"accessToken": CANARY, "refreshToken": CANARY, "clientSecret": CANARY});
    let add = [
        "vault",
        "add-oauth",
        &id,
        "--name",
        "o",
        "--match-url",
        url,
        "--token-endpoint",
        "https://id.example/token",
        "--client-id",
        "c",
        "--expires-at",
        "1900000000000",
        "--scope",
        "a",
    ];
    let oauth = on(&server, &add, &secrets.to_string()).await;
    assert_eq!(oauth["scopes"], json!(["a"]));
    let add = [
        "vault",
        "add-variable",
        &id,
        "--name",
        "v",
        "--variable",
        "API_TOKEN",
        "--host",
        "api.example",
        "--host",
        "*.cdn.example",
        "--in",
        "query",
        "--in",
        "body",
    ];
    let variable = on(&server, &add, &format!("{CANARY}\n")).await;
    let hosts = json!({"type": "limited", "allowed_hosts": ["api.example", "*.cdn.example"]});
    let places = json!({"header": false, "query": true, "body": true});
    assert_eq!(
        (
            &variable["secret_name"],
            &variable["networking"],
            &variable["injection_location"]
        ),
        (&json!("API_TOKEN"), &hosts, &places)
    );
    let credential = fixed["credential_id"].as_str().expect("an id").to_owned();
    let update = [
        "vault",
        "update",
        &id,
        &credential,
        "--name",
        "m",
        "--token-from",
        "-",
    ];
    assert_eq!(on(&server, &update, CANARY).await["name"], "m");
    assert_eq!(
        on(&server, &["vault", "rename", &id, "ours"], "").await["name"],
        "ours"
    );
    let list = on(&server, &["vault", "list", "--user-id", "user-1"], "").await;
    assert_eq!(list["count"], 1);
    let before = on(&server, &["vault", "get", &id], "").await;
    assert_eq!(before["credentials"].as_array().map(Vec::len), Some(3));
    let agent = server.client.agent(json!({"model": "scripted/echo"})).await;
    let body = json!({"agentId": agent, "vaultId": id});
    let session = server.client.post("/v1/sessions", &body).await.good();

    // A running server keeps the folder.
    let refused = tokio::task::block_in_place(|| rekey(&data, &[], &[]));
    assert!(
        stderr(&refused).contains("stop the server first"),
        "{}",
        stderr(&refused)
    );
    assert!(data.log().contains("NO VAULT KEY IS SET"));
    server.kill().await;

    let path = data.path().join("vault.key");
    let old = std::fs::read_to_string(&path).expect("the generated key");
    let changed = good(&rekey(&data, &[], &[]));
    assert_eq!(
        (&changed["vaults"], &changed["changed"]),
        (&json!(1), &json!(true))
    );
    assert_ne!(std::fs::read_to_string(&path).expect("the new key"), old);
    let wrong = Options::default().set("OPENCLAW_VAULT_KEY", old.trim());
    let said = refuses(&data, &wrong);
    assert!(said.contains("not the master key of the vaults"), "{said}");
    assert!(!said.contains(old.trim()));
    for nonsense in ["short", &"z".repeat(64)] {
        let said = refuses(&data, &Options::default().set("OPENCLAW_VAULT_KEY", nonsense));
        assert!(
            said.contains("OPENCLAW_VAULT_KEY") && said.contains("64 hexadecimal digits"),
            "{said}"
        );
    }

    // To a key of the operator's own, and again as after a crash.
    let own = data.beside("own.key");
    std::fs::write(&own, format!("{}\n", "ab".repeat(32))).expect("written");
    let file = own.to_str().expect("UTF-8");
    let more = ["--new-key-file", file];
    assert_eq!(good(&rekey(&data, &more, &[]))["changed"], true);
    assert_eq!(good(&rekey(&data, &more, &[]))["changed"], false);
    let said = refuses(&data, &options);
    assert!(said.contains("not the master key of the vaults"), "{said}");
    let given = "ab".repeat(32);
    let refused = rekey(&data, &[], &[("OPENCLAW_VAULT_KEY", &given)]);
    assert!(
        stderr(&refused).contains("--new-key-file"),
        "{}",
        stderr(&refused)
    );
    let server = Server::start(&data, &Options::default().set("OPENCLAW_VAULT_KEY_FILE", file)).await;
    assert_eq!(on(&server, &["vault", "get", &id], "").await, before);
    let path = format!("/v1/sessions/{}", session["session_id"].as_str().expect("an id"));
    assert_eq!(server.client.get(&path).await.good()["vault_ids"], json!([id]));
    assert!(!contains(&data, CANARY), "a secret is on the disk or in the log");
    let removed = on(&server, &["vault", "remove", &id, &credential], "").await;
    assert_eq!(removed["deleted"], true);
    assert_eq!(on(&server, &["vault", "delete", &id], "").await["deleted"], true);
    soon("the stop", server.terminate()).await;
}

#[test]
fn a_secret_is_no_argument() {
    for (action, from) in [("add-bearer", "--token-from"), ("add-variable", "--secret-from")] {
        let help = oma(&["vault", action, "--help"])
            .output()
            .expect("the binary runs");
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(text.contains(from), "{text}");
        assert!(
            !text.contains("--token ") && !text.contains("--secret "),
            "{text}"
        );
    }
}

//! Secrets that a session has not had from the start, and such as it can't have.

use super::*;
use crate::system::Server;

/// A sandbox that has no variable of a secret trusts nobody, so nothing of it is opened.
async fn is_left_alone(chat: &Chat, upstream: &Upstream) {
    let shown = run(chat, "printf '%s;' \"$API_KEY\" \"$CURL_CA_BUNDLE\"").await;
    assert_eq!(shown, ";;");
    let told = run(chat, "curl -sS https://good.test/").await;
    assert!(told.contains("certificate"), "{told}");
    let issuer = run(chat, "curl -skv https://good.test/ 2>&1 | grep -i issuer:").await;
    assert!(
        issuer.contains("issuer:") && !issuer.contains("OpenClaw"),
        "{issuer}"
    );
    canary::absent("what the host got", upstream.heard().as_bytes());
}

#[tokio::test]
async fn a_secret_that_is_added_later_is_the_next_sandbox_s() {
    let World { system, upstream, .. } = World::start(limited()).await;
    let (vault, path) = vault(system.client()).await;
    let chat = session(system.client(), &vault).await;
    run(&chat, "touch /tmp/here").await;
    let added = credential("API_KEY", KEY, limited());
    system.client().post(&path, &added).await.good();
    is_left_alone(&chat, &upstream).await;
    // It is known of the sandbox, whatever is in the vault by now.
    let system = system.crash().await;
    let chat = chat.at(system.client());
    assert_eq!(run(&chat, "ls /tmp/here").await.trim(), "/tmp/here");
    is_left_alone(&chat, &upstream).await;

    let System {
        server,
        provider,
        data,
        options,
    } = system;
    server.terminate().await;
    let server = Server::start(&data, &options).await;
    let chat = chat.at(&server.client);
    let told = run(
        &chat,
        "ls /tmp/here; curl -sS -H \"X-Key: $API_KEY\" https://good.test/",
    )
    .await;
    assert!(told.contains("No such file"), "it is another one: {told}");
    assert!(told.contains("oma_placeholder_"), "{told}");
    assert!(upstream.heard().contains(&format!("x-key: {KEY}\n")));
    server.terminate().await;
    provider.assert_clean();
}

#[tokio::test]
async fn a_session_is_told_of_secrets_that_it_can_t_use() {
    let system = System::start_with(|options| options).await;
    let client = system.client();
    let (vault, path) = vault(client).await;
    // One more than there is room for, in 256 KiB.
    for number in 0..33_u32 {
        let digits: String = (number * 10_000..)
            .map(|number| number.to_string())
            .take(3_000)
            .collect();
        let value = format!("canary-{}", &digits[..8_185]);
        let added = credential(&format!("KEY_{number:02}"), &value, limited());
        client.post(&path, &added).await.good();
    }
    let chat = session(client, &vault).await;
    run(&chat, "true").await;
    run(&chat, "true").await;
    let told = async || {
        let events = chat.events().await;
        let told = events
            .iter()
            .filter(|event| event["error_type"] == "secrets_left_out_error");
        told.filter_map(|event| Some(event["content"].as_str()?.to_owned()))
            .collect::<Vec<_>>()
    };
    let once = told().await;
    assert_eq!(once.len(), 1, "{once:?}");
    assert!(
        once[0].starts_with("The sandbox can't use KEY_32: a session uses at most 200 secrets, and 256 KiB"),
        "{once:?}"
    );

    // What could not be looked for is none to begin with.
    let refused = client
        .post(&path, &credential("KEY", &"canary-".repeat(40), limited()))
        .await;
    assert_eq!(refused.status, 400);
    let error = refused.text();
    assert!(
        error.contains("secretValue") && error.contains("over and over"),
        "{error}"
    );
    system.stop().await;
}

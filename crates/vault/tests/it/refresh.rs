//! Refreshing access tokens against an issuer on loopback.

use std::future::Future;
use std::pin::pin;
use std::task::Context;
use std::time::Duration;

use oma_domain::VaultId;
use oma_domain::vault::Kind;
use oma_vault::{Bearer, ClientSecret, CredentialChange, Error, Expiry, NewSecret, RefreshFailure, Vaults};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinSet;
use url::Url;

use crate::issuer::{Issuer, access, refresh};
use crate::setup::{Setup, oauth, soon};

async fn bearer(setup: &Setup, vault: &VaultId) -> Result<Bearer, Error> {
    let url = Url::parse("https://mcp.example/x").unwrap();
    let found = setup
        .vaults
        .bearer_for(&setup.workspace, std::slice::from_ref(vault), &url)
        .await;
    found.map(|bearer| bearer.unwrap())
}

async fn token(setup: &Setup, vault: &VaultId) -> String {
    let bearer = bearer(setup, vault).await.unwrap();
    bearer.token.expose_secret().to_owned()
}

#[tokio::test]
async fn a_token_is_refreshed_a_minute_before_it_ends() {
    // What is left, for how long the token has been known, both in seconds.
    for (seconds, age, refreshed) in [
        (3600, 0, false),
        (90, 3600, false),
        (30, 3600, true),
        (30, 31, true),
        // A token that lives for a minute is used for half of it.
        (30, 10, false),
        (0, 0, true),
        (-3600, 0, true),
    ] {
        let (setup, issuer) = (Setup::new().await, Issuer::start().await);
        let vault = setup.vault().await;
        let id = setup.add(&vault, oauth(&issuer.url(), seconds)).await;
        setup.age(&vault, &id, age).await;
        let expected = u64::from(refreshed);
        assert_eq!(token(&setup, &vault).await, access(expected), "{seconds}");
        assert_eq!(token(&setup, &vault).await, access(expected), "{seconds}");
        assert_eq!(issuer.with(|issued| issued.count), expected);
        let credential = setup
            .vaults
            .credential(&setup.workspace, &vault, &id)
            .await
            .unwrap();
        let Kind::McpOauth {
            expires_at: Some(end),
            ..
        } = credential.spec.kind
        else {
            panic!("OAuth");
        };
        let left = end.0 - soon(0).0;
        let expected = if refreshed { 3600 } else { seconds } * 1000;
        assert!(
            (expected - 60_000..=expected).contains(&left),
            "{seconds}: {left}"
        );
    }
}

#[tokio::test]
async fn the_request_is_what_oauth_wants() {
    let post = ClientSecret::Post(SecretString::from("s"));
    let basic = ClientSecret::Basic(SecretString::from("s"));
    for (client_secret, client_id, secret, header) in [
        (post, Some("client"), Some("s"), None),
        (ClientSecret::None, Some("client"), None, None),
        (basic, None, None, Some("Basic Y2xpZW50OnM=")),
    ] {
        let (setup, issuer) = (Setup::new().await, Issuer::start().await);
        let vault = setup.vault().await;
        let mut new = oauth(&issuer.url(), 0);
        if let NewSecret::McpOauth {
            refresh: Some(refresh),
            ..
        } = &mut new.secret
        {
            refresh.client_secret = client_secret;
        }
        setup.add(&vault, new).await;
        assert_eq!(token(&setup, &vault).await, access(1));
        let request = issuer.with(|issued| issued.requests[0].clone());
        let field = |name: &str| request.get(name).map(String::as_str);
        assert_eq!(field("grant_type"), Some("refresh_token"));
        assert_eq!(field("refresh_token"), Some(refresh(0).as_str()));
        assert_eq!(field("scope"), Some("read write"));
        assert_eq!(
            (field("client_id"), field("client_secret"), field("authorization")),
            (client_id, secret, header)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_the_same_time_make_one_refresh() {
    let (setup, issuer) = (Setup::new().await, Issuer::start().await);
    let vault = setup.vault().await;
    setup.add(&vault, oauth(&issuer.url(), 0)).await;
    issuer.hold().await;
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (vaults, workspace, vault): (Vaults, _, _) =
            (setup.vaults.clone(), setup.workspace.clone(), vault.clone());
        callers.spawn(async move {
            let url = Url::parse("https://mcp.example/").unwrap();
            let bearer = vaults.bearer_for(&workspace, &[vault], &url).await.unwrap();
            bearer.unwrap().token.expose_secret().to_owned()
        });
    }
    issuer.asked().await;
    issuer.release();
    while let Some(token) = callers.join_next().await {
        assert_eq!(token.unwrap(), access(1));
    }
    assert_eq!(issuer.with(|issued| issued.requests.len()), 1);
}

#[tokio::test]
async fn a_refused_token_is_refreshed_once() {
    let (setup, issuer) = (Setup::new().await, Issuer::start().await);
    let vault = setup.vault().await;
    setup.add(&vault, oauth(&issuer.url(), 3600)).await;
    let first = bearer(&setup, &vault).await.unwrap();
    for _ in 0..3 {
        let next = setup
            .vaults
            .refused(&setup.workspace, &first)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(next.token.expose_secret(), access(1));
        assert_eq!(next.credential(), first.credential());
    }
    assert_eq!(issuer.with(|issued| issued.count), 1);
    let second = bearer(&setup, &vault).await.unwrap();
    let third = setup
        .vaults
        .refused(&setup.workspace, &second)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(third.token.expose_secret(), access(2));

    let fixed = crate::setup::bearer("https://fixed.example/", "one");
    let id = setup.add(&vault, fixed).await;
    let url = Url::parse("https://fixed.example/").unwrap();
    let vaults = [vault.clone()];
    let found = setup.vaults.bearer_for(&setup.workspace, &vaults, &url).await;
    let found = found.unwrap().unwrap();
    assert!(
        setup
            .vaults
            .refused(&setup.workspace, &found)
            .await
            .unwrap()
            .is_none()
    );
    let change = CredentialChange {
        token: Some(SecretString::from("two")),
        ..Default::default()
    };
    setup
        .vaults
        .update_credential(&setup.workspace, &vault, &id, &change)
        .await
        .unwrap();
    let next = setup
        .vaults
        .refused(&setup.workspace, &found)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next.token.expose_secret(), "two");
    setup
        .vaults
        .delete_credential(&setup.workspace, &vault, &id)
        .await
        .unwrap();
    assert!(
        setup
            .vaults
            .refused(&setup.workspace, &next)
            .await
            .unwrap()
            .is_none()
    );
}

/// Lets what is remembered of failures be forgotten.
async fn forget() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn failures_name_the_credential_and_no_secret() {
    let (setup, issuer) = (Setup::new().await, Issuer::start().await);
    let vault = setup.vault().await;
    let id = setup.add(&vault, oauth(&issuer.url(), -1)).await;
    let echo = format!("your token {} is bad", refresh(0));
    for (status, body, text) in [
        (
            400,
            r#"{"error":"invalid_grant"}"#,
            "answered 400 (invalid_grant)",
        ),
        (500, echo.as_str(), "answered 500"),
        (302, "", "answered 302"),
        (200, "<html>", "has no access token"),
    ] {
        issuer.with(|issued| issued.failure = Some((status, body.into())));
        let error = bearer(&setup, &vault).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(text), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(matches!(&error, Error::Refresh { credential, .. } if *credential == id));
        forget().await;
    }
    // It goes on by itself once the issuer does.
    issuer.with(|issued| issued.failure = None);
    assert_eq!(token(&setup, &vault).await, access(1));
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_moment_or_until_the_credential_changes() {
    let (setup, issuer) = (Setup::new().await, Issuer::start().await);
    let vault = setup.vault().await;
    let id = setup.add(&vault, oauth(&issuer.url(), -1)).await;
    issuer.with(|issued| issued.failure = Some((503, String::new())));
    let asked = || issuer.with(|issued| issued.requests.len());
    for _ in 0..5 {
        let error = bearer(&setup, &vault).await.unwrap_err().to_string();
        assert!(error.contains("answered 503"), "{error}");
    }
    assert_eq!(asked(), 1);
    forget().await;
    bearer(&setup, &vault).await.unwrap_err();
    assert_eq!(asked(), 2);
    issuer.with(|issued| issued.failure = None);
    let change = CredentialChange {
        refresh_token: Some(SecretString::from(refresh(0))),
        ..Default::default()
    };
    let changed = setup
        .vaults
        .update_credential(&setup.workspace, &vault, &id, &change);
    changed.await.unwrap();
    assert_eq!(token(&setup, &vault).await, access(1));
    assert_eq!(asked(), 3);
}

#[tokio::test]
async fn a_token_that_is_still_good_outlives_a_failure() {
    for status in [503, 400] {
        let (setup, issuer) = (Setup::new().await, Issuer::start().await);
        let vault = setup.vault().await;
        let id = setup.add(&vault, oauth(&issuer.url(), 30)).await;
        setup.age(&vault, &id, 3600).await;
        issuer.with(|issued| issued.failure = Some((status, String::new())));
        assert_eq!(token(&setup, &vault).await, access(0), "{status}");
        assert_eq!(issuer.with(|issued| issued.requests.len()), 1);
    }
}

#[tokio::test]
async fn a_token_of_no_life_is_not_refreshed_by_every_request() {
    let (setup, issuer) = (Setup::new().await, Issuer::start().await);
    issuer.with(|issued| issued.life = 0);
    let vault = setup.vault().await;
    setup.add(&vault, oauth(&issuer.url(), 0)).await;
    for _ in 0..3 {
        assert_eq!(token(&setup, &vault).await, access(1));
    }
}

#[tokio::test]
async fn another_access_token_is_used_although_the_one_before_has_expired() {
    let (setup, issuer) = (Setup::new().await, Issuer::start().await);
    let vault = setup.vault().await;
    let id = setup.add(&vault, oauth(&issuer.url(), -1)).await;
    let change = CredentialChange {
        access_token: Some(SecretString::from("theirs")),
        ..Default::default()
    };
    let changed = setup
        .vaults
        .update_credential(&setup.workspace, &vault, &id, &change);
    changed.await.unwrap();
    assert_eq!(token(&setup, &vault).await, "theirs");
    assert_eq!(issuer.with(|issued| issued.requests.len()), 0);
}

#[tokio::test]
async fn an_expired_token_without_a_refresh_token_is_an_error() {
    let setup = Setup::new().await;
    let vault = setup.vault().await;
    let mut new = oauth("https://id.example/", -1);
    if let NewSecret::McpOauth { refresh, .. } = &mut new.secret {
        *refresh = None;
    }
    setup.add(&vault, new).await;
    let error = bearer(&setup, &vault).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refresh { reason, .. } if matches!(**reason, RefreshFailure::NoRefreshToken)),
        "{error}"
    );
}

#[tokio::test]
async fn a_caller_who_goes_away_cuts_nothing_off() {
    let (setup, issuer) = (Setup::new().await, Issuer::start().await);
    let vault = setup.vault().await;
    setup.add(&vault, oauth(&issuer.url(), 0)).await;
    issuer.hold().await;
    {
        let mut call = pin!(bearer(&setup, &vault));
        let mut asked = pin!(issuer.asked());
        // The call is driven until its request has come, and dropped then.
        std::future::poll_fn(|context| {
            assert!(
                call.as_mut().poll(context).is_pending(),
                "the answer is held back"
            );
            asked.as_mut().poll(context)
        })
        .await;
    }
    issuer.release();
    setup.vaults.close().await;
    let shown = format!("{:?}", bearer(&setup, &vault).await.unwrap());
    assert!(!shown.contains("canary"), "{shown}");
    assert_eq!(token(&setup, &vault).await, access(1));
    assert_eq!(issuer.with(|issued| issued.requests.len()), 1);
}

/// Starts a refresh that the issuer holds back, has a change made meanwhile, and lets the refresh end.
async fn changed_meanwhile(change: CredentialChange) -> (String, String, Setup, VaultId, Issuer) {
    let (setup, issuer) = (Setup::new().await, Issuer::start().await);
    let vault = setup.vault().await;
    let id = setup.add(&vault, oauth(&issuer.url(), 0)).await;
    issuer.hold().await;
    let mut call = Box::pin(bearer(&setup, &vault));
    let arrivals = issuer.clone();
    let mut asked = pin!(arrivals.asked());
    std::future::poll_fn(|context: &mut Context<'_>| {
        assert!(call.as_mut().poll(context).is_pending());
        asked.as_mut().poll(context)
    })
    .await;
    let changed = setup
        .vaults
        .update_credential(&setup.workspace, &vault, &id, &change);
    changed.await.unwrap();
    issuer.release();
    let token = call.await.unwrap().token.expose_secret().to_owned();
    let credential = setup.vaults.credential(&setup.workspace, &vault, &id);
    let name = credential.await.unwrap().spec.name;
    (token, name, setup, vault, issuer)
}

#[tokio::test]
async fn a_change_during_a_refresh_is_kept() {
    let (token, name, ..) = changed_meanwhile(CredentialChange {
        name: Some("renamed".into()),
        ..Default::default()
    })
    .await;
    assert_eq!((token.as_str(), name.as_str()), ("canary-access-1", "renamed"));

    let theirs = CredentialChange {
        access_token: Some(SecretString::from("theirs")),
        refresh_token: Some(SecretString::from("their-refresh")),
        expires_at: Expiry::At(soon(3600)),
        ..Default::default()
    };
    let (found, _, setup, vault, issuer) = changed_meanwhile(theirs).await;
    assert_eq!(found, "theirs");
    assert_eq!(self::token(&setup, &vault).await, "theirs");
    assert_eq!(issuer.with(|issued| issued.requests.len()), 1);
}

#[tokio::test]
async fn what_was_issued_is_kept_beside_what_the_user_changed() {
    // The issuer has replaced the refresh token, so the one from before would be worth nothing.
    let (found, _, setup, vault, issuer) = changed_meanwhile(CredentialChange {
        client_secret: Some(SecretString::from("another")),
        ..Default::default()
    })
    .await;
    assert_eq!(found, access(1));
    let first = bearer(&setup, &vault).await.unwrap();
    let next = setup.vaults.refused(&setup.workspace, &first).await.unwrap();
    assert_eq!(next.unwrap().token.expose_secret(), access(2));
    let secrets = issuer.with(|issued| {
        let secret = |form: &std::collections::BTreeMap<String, String>| form["client_secret"].clone();
        issued.requests.iter().map(secret).collect::<Vec<_>>()
    });
    assert_eq!(secrets, ["canary-client-secret", "another"]);

    let (found, _, setup, vault, _) = changed_meanwhile(CredentialChange {
        access_token: Some(SecretString::from("theirs")),
        ..Default::default()
    })
    .await;
    assert_eq!(found, "theirs");
    let first = bearer(&setup, &vault).await.unwrap();
    let next = setup.vaults.refused(&setup.workspace, &first).await.unwrap();
    assert_eq!(next.unwrap().token.expose_secret(), access(2));
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way_and_lets_nothing_begin() {
    let (setup, issuer) = (Setup::new().await, Issuer::start().await);
    let vault = setup.vault().await;
    setup.add(&vault, oauth(&issuer.url(), 0)).await;
    issuer.hold().await;
    {
        let mut call = pin!(bearer(&setup, &vault));
        let mut asked = pin!(issuer.asked());
        std::future::poll_fn(|context| {
            assert!(call.as_mut().poll(context).is_pending());
            asked.as_mut().poll(context)
        })
        .await;
    }
    let mut close = pin!(setup.vaults.close());
    let mut polled = std::future::poll_fn(|context| std::task::Poll::Ready(close.as_mut().poll(context)));
    assert!((&mut polled).await.is_pending());
    // Longer than the store alone would ever take.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(20)).await;
    tokio::time::resume();
    assert!(polled.await.is_pending(), "the issuer has not answered yet");
    let other = setup.vault().await;
    setup.add(&other, oauth(&issuer.url(), 0)).await;
    let error = bearer(&setup, &other).await.unwrap_err();
    assert!(error.to_string().contains("stopping"), "{error}");
    issuer.release();
    close.await;
    assert_eq!(token(&setup, &vault).await, access(1));
    assert_eq!(issuer.with(|issued| issued.requests.len()), 1);
}

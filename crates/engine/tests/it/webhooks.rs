//! Webhooks: what is sent, and how often.

use std::sync::Arc;

use oma_domain::webhook::{Disabled, Topic};
use oma_egress::{Guard, Policy};
use oma_engine::{Config, EndpointChange, Engine, Error, NewEndpoint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::puppet::{Stage, spec};

/// An endpoint on this machine that answers with these statuses, one after the other, and with 204 then. Gives what it
/// is sent, headers and all.
async fn receiver(statuses: &'static [u16]) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::unbounded_channel();
    let mut statuses = statuses.iter().copied();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // A request is whole when its body is: a JSON object at the end.
            while !request.ends_with(b"}") {
                let read = stream.read(&mut buffer).await.unwrap();
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&buffer[..read]);
            }
            let status = statuses.next().unwrap_or(204);
            let location = if status == 302 { "location: /x\r\n" } else { "" };
            let answer =
                format!("HTTP/1.1 {status} X\r\n{location}content-length: 0\r\nconnection: close\r\n\r\n");
            // Whoever asked may have gone.
            let _gone = stream.write_all(answer.as_bytes()).await;
            if sender.send(String::from_utf8(request).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, requests)
}

fn permissive() -> Arc<Guard> {
    let allow = vec!["127.0.0.1".parse().unwrap()];
    Arc::new(Guard::new(Policy { allow }))
}

async fn stage(folder: &std::path::Path) -> Stage {
    Stage::dialling(folder, Config::default(), permissive()).await
}

fn keep(engine: &Engine) {
    let engine = engine.clone();
    tokio::spawn(async move { engine.keep_webhooks().await });
}

fn endpoint(url: &str) -> NewEndpoint {
    NewEndpoint {
        url: url.into(),
        name: String::new(),
        description: String::new(),
        topics: vec![Topic::AgentCreated],
    }
}

fn id(request: &str) -> &str {
    let line = request.lines().find(|line| line.starts_with("webhook-id: "));
    line.unwrap()
}

#[tokio::test]
async fn a_notice_that_a_stop_kept_back_is_sent_by_the_next_server() {
    let folder = tempfile::tempdir().unwrap();
    let (url, mut requests) = receiver(&[]).await;
    let agent = {
        let stage = stage(folder.path()).await;
        let made = stage.engine.create_webhook(&stage.ws, endpoint(&url), None);
        made.await.unwrap();
        // Nobody sends anything here.
        let agent = stage.engine.create_agent(&stage.ws, spec(), None).await.unwrap();
        stage.engine.stop().await;
        agent.id
    };
    let stage = stage(folder.path()).await;
    keep(&stage.engine);
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /hook HTTP/1.1"), "{request}");
    for part in [
        "webhook-id: whe_",
        "webhook-timestamp: 1",
        "webhook-signature: v1,",
        agent.as_str(),
    ] {
        assert!(request.contains(part), "{part}: {request}");
    }
    // It is told once.
    stage.engine.create_agent(&stage.ws, spec(), None).await.unwrap();
    let next = requests.recv().await.unwrap();
    assert_ne!(id(&next), id(&request));
    stage.engine.stop().await;
}

#[tokio::test]
async fn what_fails_is_tried_again_and_an_endpoint_that_hangs_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let stage = stage(folder.path()).await;
    keep(&stage.engine);
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = format!("http://{}/", silent.local_addr().unwrap());
    let (url, mut requests) = receiver(&[]).await;
    for url in [&hanging, &url] {
        let made = stage.engine.create_webhook(&stage.ws, endpoint(url), None);
        made.await.unwrap();
    }
    for _ in 0..20 {
        stage.engine.create_agent(&stage.ws, spec(), None).await.unwrap();
    }
    for _ in 0..20 {
        requests.recv().await.unwrap();
    }
    stage.engine.stop().await;
}

#[tokio::test]
async fn redirects_and_addresses_that_may_not_be_dialled_disable_an_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (url, mut requests) = receiver(&[302]).await;
    let id;
    {
        let stage = stage(folder.path()).await;
        keep(&stage.engine);
        let made = stage.engine.create_webhook(&stage.ws, endpoint(&url), None);
        id = made.await.unwrap().0.id;
        stage.engine.create_agent(&stage.ws, spec(), None).await.unwrap();
        requests.recv().await.unwrap();
        let disabled = loop {
            let found = stage.engine.webhook(&stage.ws, &id).await.unwrap();
            if let Some(reason) = found.disabled {
                break reason;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(disabled, Disabled::Redirect);
        let enable = EndpointChange {
            enabled: Some(true),
            ..EndpointChange::default()
        };
        let enabled = stage.engine.update_webhook(&stage.ws, &id, enable).await.unwrap();
        assert_eq!(enabled.disabled, None);
        stage.engine.stop().await;
    }
    // The operator allows it no more.
    let stage = Stage::over(folder.path(), Config::default()).await;
    keep(&stage.engine);
    stage.engine.create_agent(&stage.ws, spec(), None).await.unwrap();
    let disabled = loop {
        let found = stage.engine.webhook(&stage.ws, &id).await.unwrap();
        if let Some(reason) = found.disabled {
            break reason;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(disabled, Disabled::AddressNotAllowed);
    stage.engine.stop().await;
}

#[tokio::test]
async fn urls_that_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::over(folder.path(), Config::default()).await;
    for url in [
        "x",
        "ftp://a.example/",
        "http://a.example/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "http://localhost/",
        "https://a.example:8443/",
    ] {
        let made = stage.engine.create_webhook(&stage.ws, endpoint(url), None).await;
        assert!(
            matches!(made, Err(Error::Unsupported { field: "url", .. })),
            "{url}: {:?}",
            made.map(|(endpoint, _)| endpoint)
        );
    }
    let good = stage
        .engine
        .create_webhook(&stage.ws, endpoint("https://a.example/hook?key=1"), None)
        .await;
    assert!(good.is_ok());
}

//! The engine's interface, as far as tests need it beside what they test.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

/// How long the engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The way to an engine.
#[derive(Debug, Clone)]
pub struct Api {
    socket: String,
}

impl Api {
    /// To the one at this socket.
    #[must_use]
    pub fn new(socket: impl Into<String>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Asks one question, and gives the status and the body of the answer.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // With this version of HTTP the answer ends with the connection, and has no chunks.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
    }

    /// What the engine says in JSON; `None` when it has no such thing.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        match self.ask("GET", path, &[]).unwrap() {
            (200, body) => Some(serde_json::from_str(&body).unwrap()),
            (404, _) => None,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Makes an image from a tar archive, with these lines of a Dockerfile.
    ///
    /// # Panics
    /// When the engine does not.
    pub fn import(&self, name: &str, tar: &[u8], lines: &[&str]) {
        let (repository, tag) = name.rsplit_once(':').unwrap();
        let changes: String = lines
            .iter()
            .map(|line| format!("&changes={}", line.replace(' ', "%20")))
            .collect();
        let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}{changes}");
        let (status, said) = self.ask("POST", &path, tar).unwrap();
        assert!(status == 200 && !said.contains("errorDetail"), "{status} {said}");
        // Podman takes no notice of the tag.
        let last: Value = serde_json::from_str(said.trim().lines().last().unwrap_or_default()).unwrap();
        let id = last["status"].as_str().unwrap();
        let path = format!("/images/{id}/tag?repo={repository}&tag={tag}");
        let (status, said) = self.ask("POST", &path, &[]).unwrap();
        assert_eq!(status, 201, "{said}");
    }

    /// The ids of all images that have this label, whatever its value.
    #[must_use]
    pub fn images(&self, label: &str) -> Vec<String> {
        let all = self.get(&format!(
            "/images/json?filters=%7B%22label%22%3A%5B%22{label}%22%5D%7D"
        ));
        let ids = all.as_ref().and_then(Value::as_array).into_iter().flatten();
        ids.filter_map(|one| one["Id"].as_str().map(str::to_owned))
            .collect()
    }

    /// The ids of all containers, in any state, that have this label (`name=value`), or of all.
    #[must_use]
    pub fn containers(&self, label: &str) -> Vec<String> {
        let filters = if label.is_empty() {
            String::new()
        } else {
            // What stands in our labels needs no escapes in a query, but for these.
            format!(
                "&filters=%7B%22label%22%3A%5B%22{}%22%5D%7D",
                label.replace('=', "%3D")
            )
        };
        let all = self.get(&format!("/containers/json?all=true{filters}"));
        let ids = all.as_ref().and_then(Value::as_array).into_iter().flatten();
        ids.filter_map(|one| one["Id"].as_str().map(str::to_owned))
            .collect()
    }

    /// How many volumes there are.
    #[must_use]
    pub fn volumes(&self) -> usize {
        let all = self.get("/volumes");
        let all = all.as_ref().and_then(|all| all["Volumes"].as_array());
        all.map_or(0, Vec::len)
    }

    /// The host's pid of a container's first process; `None` when there is no such container, or it does not run.
    #[must_use]
    pub fn pid(&self, container: &str) -> Option<i32> {
        let found = self.get(&format!("/containers/{container}/json"))?;
        let pid = i32::try_from(found["State"]["Pid"].as_i64()?).ok()?;
        (pid > 0).then_some(pid)
    }
}

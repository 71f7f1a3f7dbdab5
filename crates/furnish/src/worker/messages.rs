//! What the server and the proxy of a session say to each other: frames of JSON, over a local socket that nobody else
//! has. What is dialled comes over a second one, a datagram for each connection, with the connection.

use std::io;
use std::time::Duration;

use oma_egress::Error;
use oma_egress::proxy::secrets::{Placeholder, Places, Secret};
use oma_egress::proxy::{Allowed, Denial, Protocol};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest frame of the server's, in bytes: all secrets of a session, or a long list of hosts.
pub(super) const MAX_FRAME: usize = 8 << 20;
/// The longest frame of the proxy's, whom nobody need believe: two texts of the longest, escaped.
pub(super) const MAX_REPORT: usize = 64 << 10;
/// The longest datagram, in bytes.
pub(super) const MAX_DATAGRAM: usize = 32 << 10;
/// The longest text of an error, a host or a list of variables.
pub(super) const MAX_TEXT: usize = 4 << 10;

/// From the server, first. The doors come over the other socket.
#[derive(Serialize, Deserialize)]
pub(super) struct Begin {
    /// What the session may reach.
    pub(super) allowed: Allowed,
    /// The ports of the doors that are passed, in this order.
    pub(super) ports: Vec<u16>,
    /// Where the session has secrets, what its authority is made of.
    pub(super) authority: Option<Seed>,
}

/// What a session's authority is made of.
#[derive(Serialize, Deserialize)]
pub(super) struct Seed {
    /// For people.
    pub(super) name: String,
    /// In hexadecimal digits.
    #[serde(serialize_with = "exposed")]
    pub(super) seed: SecretString,
}

/// From the server.
#[derive(Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Order {
    /// Other rules hold from now on.
    Allow {
        /// They.
        allowed: Allowed,
    },
    /// The answer to `Admit` and `LookUp`.
    Checked {
        /// The question.
        id: u64,
        /// What stands against it.
        trouble: Option<Trouble>,
    },
    /// The answer to `Secrets`.
    Secrets {
        /// The question.
        id: u64,
        /// They.
        answer: Given,
    },
}

/// The secrets of a session.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Given {
    /// Those of before.
    Unchanged,
    /// They can't be read.
    Unavailable,
    /// These.
    These {
        /// What tells them from those of another time.
        version: u64,
        /// They.
        secrets: Vec<Sealed>,
    },
}

/// A secret on its way.
#[derive(Serialize, Deserialize)]
pub(super) struct Sealed {
    name: String,
    placeholder: Placeholder,
    #[serde(serialize_with = "exposed")]
    value: SecretString,
    hosts: Allowed,
    places: Places,
}

fn exposed<S: Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose_secret())
}

impl From<Secret> for Sealed {
    fn from(secret: Secret) -> Self {
        let Secret {
            name,
            placeholder,
            value,
            hosts,
            places,
        } = secret;
        Self {
            name,
            placeholder,
            value,
            hosts,
            places,
        }
    }
}

impl From<Sealed> for Secret {
    fn from(sealed: Sealed) -> Self {
        let Sealed {
            name,
            placeholder,
            value,
            hosts,
            places,
        } = sealed;
        Self {
            name,
            placeholder,
            value,
            hosts,
            places,
        }
    }
}

/// From the proxy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Report {
    /// Something was decided.
    Decided {
        /// How it was asked.
        protocol: Protocol,
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What became of it.
        verdict: Said,
        /// The variables whose secrets were in it.
        secrets: String,
        /// How many decisions before this one could not be told.
        untold: u64,
    },
    /// Whether a host may be dialled, as far as that shows without a lookup. Answered by `Checked`.
    Admit {
        /// Names the question.
        id: u64,
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// Whether a name leads anywhere that may be dialled. Answered by `Checked`.
    LookUp {
        /// Names the question.
        id: u64,
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
    /// Connect to a host. Answered by [`Dialled`].
    Dial {
        /// Names the question.
        id: u64,
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// The secrets of now. Answered by `Secrets`.
    Secrets {
        /// Names the question.
        id: u64,
        /// The version of those that are known already.
        known: Option<u64>,
    },
}

/// The answer to `Dial`, over the other socket, with the connection where there is one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Dialled {
    /// The question.
    pub(super) id: u64,
    /// Why there is none.
    pub(super) trouble: Option<Trouble>,
}

/// A verdict. Of what failed it is enough to know that.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// It was reached.
    Allowed,
    /// It may not be.
    Denied(Denial),
    /// It may be, and could not.
    Failed,
}

/// Why something was not dialled.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Trouble {
    /// It may not be.
    Refused,
    /// Its name leads nowhere.
    Unresolved(String),
    /// Not in time, in milliseconds.
    Timeout(u64),
    /// Something else.
    Failed(String),
}

impl Trouble {
    pub(super) fn of(error: Error) -> Self {
        match error {
            Error::Refused { .. } => Self::Refused,
            Error::Unresolved { reason, .. } => Self::Unresolved(short(reason)),
            Error::Timeout(after) => Self::Timeout(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            Error::Failed(what) => Self::Failed(short(what)),
            other => Self::Failed(short(other.to_string())),
        }
    }

    /// The error about this host.
    pub(super) fn about(self, host: String) -> Error {
        match self {
            Self::Refused => Error::Refused {
                host,
                reason: "it is not public, or on no port of the web",
            },
            Self::Unresolved(reason) => Error::Unresolved { host, reason },
            Self::Timeout(after) => Error::Timeout(Duration::from_millis(after)),
            Self::Failed(what) => Error::Failed(what),
        }
    }
}

/// As much of a text as anybody wants to read.
pub(super) fn short(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or_default());
    text
}

/// As much of a text as anybody wants to read, with nothing in it that a log or a terminal would take for its own.
pub(super) fn plain(text: &str) -> String {
    let shown = text.chars().take(MAX_TEXT);
    short(
        shown
            .map(|each| {
                if each.is_control() {
                    char::REPLACEMENT_CHARACTER
                } else {
                    each
                }
            })
            .collect(),
    )
}

/// The frame of a message: its length (four bytes, big endian) and that many bytes of JSON.
pub(super) fn frame(message: &impl Serialize) -> io::Result<Zeroizing<Vec<u8>>> {
    let json = Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::other("a frame is too long"))?;
    let mut frame = Zeroizing::new(Vec::with_capacity(4 + json.len()));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&json);
    Ok(frame)
}

/// Writes what comes of frames, until there are no more.
pub(super) async fn write_all(
    mut to: impl AsyncWrite + Unpin,
    mut frames: tokio::sync::mpsc::Receiver<Zeroizing<Vec<u8>>>,
) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        to.write_all(&frame).await?;
    }
    Ok(())
}

/// Reads the next message, of at most so many bytes; `None` at the end. What waits must not be dropped and begun anew.
pub(super) async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> io::Result<Option<T>> {
    let length = match from.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(length).ok().filter(|length| *length <= most);
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut json = Zeroizing::new(Vec::new());
    // As much memory as has come, whatever is claimed.
    (&mut *from).take(length as u64).read_to_end(&mut json).await?;
    if json.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // What is wrong would be told in words of whoever has sent it, and these are for a log.
    let message = serde_json::from_slice(&json);
    Ok(Some(message.map_err(|_| io::ErrorKind::InvalidData)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(mut bytes: &[u8]) -> io::Result<Option<Report>> {
        read(&mut bytes, MAX_REPORT).await
    }

    fn framed(json: &[u8]) -> Vec<u8> {
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        [&length, json].concat()
    }

    #[tokio::test]
    async fn messages_come_one_after_the_other() {
        let mut bytes = Vec::new();
        for id in 1..=3 {
            bytes.extend_from_slice(&frame(&Report::Secrets { id, known: None }).unwrap());
        }
        let mut from = &bytes[..];
        for expected in 1..=3 {
            let Some(Report::Secrets { id, known: None }) = read(&mut from, MAX_REPORT).await.unwrap() else {
                panic!("something else");
            };
            assert_eq!(id, expected);
        }
        assert!(read::<Report>(&mut from, MAX_REPORT).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused_without_its_words() {
        for json in [
            &b""[..],
            b"{",
            b"null",
            b"[]",
            b"\xff\xfe",
            br#"{"op":"a line\nof my own"}"#,
            br#"{"op":"dial","id":-1,"host":"a.test","port":80}"#,
            br#"{"op":"dial","id":1,"host":"a.test","port":65536}"#,
            br#"{"op":"dial","id":1,"port":80}"#,
            br#"{"op":"secrets","id":1,"known":null} {}"#,
        ] {
            let error = heard(&framed(json)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!(
                error.to_string(),
                io::Error::from(io::ErrorKind::InvalidData).to_string()
            );
        }
        let nested = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
        assert!(heard(&framed(&nested)).await.is_err());
    }

    #[tokio::test]
    async fn what_is_too_long_or_cut_off_is_refused() {
        // Refused by what it claims: none of it is waited for.
        let (mut near, far) = tokio::io::duplex(16);
        let most = u32::try_from(MAX_REPORT).unwrap();
        for claimed in [most + 1, u32::MAX] {
            near.write_u32(claimed).await.unwrap();
        }
        let mut far = far;
        for _ in 0..2 {
            let refused = read::<Report>(&mut far, MAX_REPORT).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        }
        let whole = frame(&Report::Secrets {
            id: 1,
            known: Some(7),
        })
        .unwrap();
        for cut in 4..whole.len() {
            let error = heard(&whole[..cut]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        assert!(frame(&"x".repeat(MAX_FRAME)).is_err());
    }

    #[tokio::test]
    async fn the_longest_decision_fits() {
        // Each of these bytes is six in JSON.
        let text = || short("\u{1}".repeat(2 * MAX_TEXT));
        let decided = Report::Decided {
            protocol: Protocol::Dns,
            host: text(),
            port: 65_535,
            verdict: Said::Denied(Denial::NotListed),
            secrets: text(),
            untold: u64::MAX,
        };
        let framed = frame(&decided).unwrap();
        assert!(heard(&framed).await.unwrap().is_some());
    }

    #[test]
    fn texts_are_shown_plainly() {
        assert_eq!(plain("a.test\n\u{1b}[2Jb"), "a.test\u{fffd}\u{fffd}[2Jb");
        assert!(plain(&"é".repeat(MAX_TEXT)).len() <= MAX_TEXT);
    }
}

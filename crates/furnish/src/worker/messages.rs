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

/// The longest frame, in bytes: all secrets of a session, or a long list of hosts.
const MAX_FRAME: usize = 8 << 20;
/// The longest datagram, in bytes.
pub(super) const MAX_DATAGRAM: usize = 32 << 10;
/// The longest text of an error, a host or a list of variables.
const MAX_TEXT: usize = 4 << 10;

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

/// Reads the next message; `None` at the end. What waits must not be dropped and begun anew.
pub(super) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let length = match from.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut json = Zeroizing::new(Vec::new());
    // As much memory as has come, whatever is claimed.
    (&mut *from).take(length as u64).read_to_end(&mut json).await?;
    if json.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&json)?))
}

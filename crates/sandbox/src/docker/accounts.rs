//! The names of users and groups in a container: those of its image, and the session's own.
//!
//! A session's user is a number that no image knows, and many programs are lost without a name for themselves. So the
//! image's files are read once, and each container shows them with one more line.

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::body::INSTALLATION;
use super::connection::{Connection, is_absent};
use super::container::{REMOVAL_TIMEOUT, remove};
use super::image::Image;
use crate::Error;
use crate::hand::launch::WORKSPACE;

/// The longest archive that is read of a container, in bytes.
const MAX_ARCHIVE: usize = 1 << 20;

/// The size of a block of a tar archive.
const BLOCK: usize = 512;

/// What an image has for names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Accounts {
    users: String,
    groups: String,
}

impl Accounts {
    /// Reads those of an image, by a container that never runs.
    ///
    /// # Errors
    /// [`Error`] when the engine does not let it be read.
    pub(super) async fn read(connection: &Connection, image: &Image, instance: &str) -> Result<Self, Error> {
        // What is left after a crash goes by its label.
        let name = format!("oma-{instance}-accounts");
        remove(connection, &name).await?;
        let what = "looking into the image of sandboxes";
        let create = || {
            let options = CreateContainerOptionsBuilder::new().name(&name).build();
            let body = ContainerCreateBody {
                image: Some(image.id.clone()),
                // Some images name no command, and without one there is no container.
                cmd: Some(vec!["/none".to_owned()]),
                labels: Some([(INSTALLATION.to_owned(), instance.to_owned())].into()),
                ..ContainerCreateBody::default()
            };
            connection.docker().create_container(Some(options), body)
        };
        connection.get(what, create).await?;
        let read = async {
            Ok(Self {
                users: file(connection, &name, "/etc/passwd").await?,
                groups: file(connection, &name, "/etc/group").await?,
            })
        };
        let read: Result<Self, Error> = read.await;
        remove(connection, &name).await?;
        read
    }

    /// What a container shows as its users, of which one is this.
    pub(super) fn users(&self, user: u32, group: u32) -> String {
        let others = others(&self.users, "agent", user);
        format!("{others}agent:x:{user}:{group}:agent:{WORKSPACE}:/bin/sh\n")
    }

    /// What a container shows as its groups.
    pub(super) fn groups(&self, group: u32) -> String {
        let others = others(&self.groups, "agent", group);
        format!("{others}agent:x:{group}:\n")
    }
}

/// The lines that are about another name and another number, each whole.
fn others(text: &str, name: &str, number: u32) -> String {
    let number = number.to_string();
    let is_other = |line: &&str| {
        let mut fields = line.split(':');
        fields.next() != Some(name) && fields.nth(1) != Some(&number)
    };
    text.lines()
        .filter(is_other)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// A file of a container; nothing when it has no such file.
async fn file(connection: &Connection, container: &str, path: &str) -> Result<String, Error> {
    let what = "looking into the image of sandboxes";
    let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
    let reading = async {
        let mut parts = std::pin::pin!(
            connection
                .docker()
                .download_from_container(container, Some(options))
        );
        let mut archive = Vec::new();
        while let Some(part) = parts.next().await {
            match part {
                Ok(part) => archive.extend_from_slice(&part),
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(connection.failed(what, &error)),
            }
            if archive.len() > MAX_ARCHIVE {
                return Err(Error::Engine(format!(
                    "has an image with more than {MAX_ARCHIVE} bytes in {path}"
                )));
            }
        }
        Ok(Some(archive))
    };
    let read = timeout(REMOVAL_TIMEOUT, reading).await;
    let archive = read.map_err(|_| Error::Timeout(REMOVAL_TIMEOUT))??;
    Ok(archive.as_deref().and_then(first_file).unwrap_or_default())
}

/// The text of the file that a tar archive begins with; `None` when it begins with something else.
fn first_file(archive: &[u8]) -> Option<String> {
    let header = archive.get(..BLOCK)?;
    let is_file = matches!(header[156], b'0' | 0);
    let size = std::str::from_utf8(&header[124..136]).ok()?;
    let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).ok()?;
    let bytes = archive.get(BLOCK..BLOCK.checked_add(size)?)?;
    is_file.then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(kind: u8, size: &str, text: &str) -> Vec<u8> {
        let mut archive = vec![0; BLOCK];
        archive[124..124 + size.len()].copy_from_slice(size.as_bytes());
        archive[156] = kind;
        archive.extend_from_slice(text.as_bytes());
        archive
    }

    #[test]
    fn only_whole_files_are_read() {
        for (archive, text) in [
            (archive(b'0', "00000000005\0", "root:more"), Some("root:")),
            (archive(0, "5", "root:"), Some("root:")),
            (archive(b'2', "0", ""), None),
            (archive(b'0', "00000000006", "root:"), None),
            (archive(b'0', "77777777777", "root:"), None),
            (archive(b'0', "x", "root:"), None),
            (vec![0; 3], None),
        ] {
            assert_eq!(first_file(&archive).as_deref(), text, "{archive:?}");
        }
    }

    #[test]
    fn the_session_has_a_name_and_nobody_else_its_number() {
        let accounts = Accounts {
            users: "root:x:0:0::/root:/bin/sh\nagent:x:7:7::/:/bin/sh\nx:x:2000:1::/:/bin/sh\nlast:x:9:9::/:/bin/sh"
                .to_owned(),
            groups: "root:x:0:\n".to_owned(),
        };
        assert_eq!(
            accounts.users(2000, 3000),
            "root:x:0:0::/root:/bin/sh\nlast:x:9:9::/:/bin/sh\nagent:x:2000:3000:agent:/workspace:/bin/sh\n"
        );
        assert_eq!(accounts.groups(3000), "root:x:0:\nagent:x:3000:\n");
        assert_eq!(Accounts::default().groups(1), "agent:x:1:\n");
    }
}

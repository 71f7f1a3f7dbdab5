//! Layers as images: what a build leaves in its container is committed, and containers of sessions are made of that.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::ContainerConfig;
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, InspectContainerOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use tokio::time::timeout;

use super::body::INSTALLATION;
use super::connection::{Connection, is_absent, is_conflict};
use crate::Error;
use crate::files::usage;
use crate::host::engine::Committed;
use crate::layers::{Layer, Size};

/// What images of ours are labelled with, beside the data folder's instance.
pub(super) const LAYER: &str = "oma.layer";

/// What engines call it when they keep what a container has written in a folder, and how they name that folder.
const OVERLAY: &str = "overlay2";
const UPPER: &str = "UpperDir";

/// How long the engine may take to make an image of a container.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(600);

/// Makes an image of a container that runs.
pub(super) async fn commit(
    connection: &Connection,
    instance: &str,
    container: &str,
    layer: &Layer,
) -> Result<Committed, Error> {
    let what = "keeping what was built";
    let before = built(connection, container, 0).await?;
    let options = CommitContainerOptionsBuilder::new()
        .container(container)
        .repo(&format!("oma-layer-{instance}"))
        .tag(layer.as_str())
        .pause(true)
        .build();
    let config = ContainerConfig {
        labels: Some(
            [
                (INSTALLATION.to_owned(), instance.to_owned()),
                (LAYER.to_owned(), layer.as_str().to_owned()),
            ]
            .into(),
        ),
        ..ContainerConfig::default()
    };
    let docker = connection.docker().clone().with_timeout(COMMIT_TIMEOUT);
    let committed = timeout(COMMIT_TIMEOUT, docker.commit_container(options, config)).await;
    let committed = committed
        .map_err(|_| Error::Timeout(COMMIT_TIMEOUT))?
        .map_err(|error| connection.failed(what, &error))?;
    Ok(Committed {
        image: Some(committed.id),
        bytes: before.bytes,
    })
}

/// What is written in a container. Files are counted where the engine keeps them in a folder that can be seen from here.
pub(super) async fn built(connection: &Connection, container: &str, most_inodes: u64) -> Result<Size, Error> {
    let options = InspectContainerOptionsBuilder::new().size(true).build();
    let look = || {
        let options = Some(options.clone());
        connection.docker().inspect_container(container, options)
    };
    let found = connection.get("measuring a build", look).await?;
    // Without a number there would be no bound.
    let bytes = found
        .size_rw
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| Error::Engine("does not say what a container takes of the disk".to_owned()))?;
    let driver = found.graph_driver.filter(|driver| driver.name == OVERLAY);
    let upper = driver.and_then(|driver| driver.data.get(UPPER).map(PathBuf::from));
    let inodes = match upper {
        Some(upper) => {
            let counted = tokio::task::spawn_blocking(move || usage::measure(&upper, most_inodes)).await;
            counted.map_or(0, |counted| counted.map_or(0, |counted| counted.inodes))
        }
        None => 0,
    };
    Ok(Size { bytes, inodes })
}

/// Whether there is such an image.
pub(super) async fn has(connection: &Connection, image: &str) -> Result<bool, Error> {
    let what = "looking for a layer";
    match connection
        .ask(what, || connection.docker().inspect_image(image))
        .await?
    {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(connection.failed(what, &error)),
    }
}

/// Removes an image of ours, unless a container is made of it.
pub(super) async fn discard(connection: &Connection, image: &str) -> Result<bool, Error> {
    let what = "removing a layer";
    let options = RemoveImageOptionsBuilder::new().force(false).build();
    let remove = || {
        let options = Some(options.clone());
        connection.docker().remove_image(image, options, None)
    };
    match connection.ask(what, remove).await? {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(true),
        Err(error) if is_conflict(&error) => Ok(false),
        Err(error) => Err(connection.failed(what, &error)),
    }
}

/// Removes the images of this data folder that are no layer any more, or never became one.
pub(super) async fn sweep(connection: &Connection, instance: &str, kept: &[String]) -> Result<(), Error> {
    let labels = vec![format!("{INSTALLATION}={instance}"), LAYER.to_owned()];
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let list = || connection.docker().list_images(Some(options.clone()));
    for image in connection.get("listing layers", list).await? {
        if !kept.contains(&image.id) {
            tracing::info!(image = image.id, "a layer that nothing is known of is removed");
            discard(connection, &image.id).await?;
        }
    }
    Ok(())
}

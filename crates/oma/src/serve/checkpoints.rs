//! From the configuration to the archives of checkpoints.

use oma_checkpoint::Archives;
use oma_checkpoint::s3::{Bucket, Settings};
use oma_sandbox::local;
use reqwest::Url;
use secrecy::SecretString;

use crate::config::Config;
use crate::config::value::{Place, Value as _};
use crate::print::Failure;

/// Opens them. A bucket is not asked for anything: where it is away, everything else works.
///
/// # Errors
/// What is wrong with the folder, or with the settings of the bucket.
pub(crate) fn open(config: &Config) -> Result<Archives, Failure> {
    let ours = || config.data_dir.join("checkpoints");
    let folder = match &config.sandbox.checkpoints {
        Some(Place::Folder(folder)) => folder.clone(),
        Some(Place::Bucket { .. }) | None => ours(),
    };
    if let Some(shown) = local::exposed(&folder, &config.sandbox.readable.0) {
        return Err(Failure::Other(format!(
            "every sandbox can read {}, and the checkpoints in {} lie there; put them somewhere else",
            shown.display(),
            folder.display()
        )));
    }
    let floor = config.sandbox.disk_floor.0;
    let opened = match bucket(config)? {
        Some(bucket) => Archives::in_bucket(bucket, &folder, floor),
        None => Archives::open(&folder, floor),
    };
    opened.map_err(|error| Failure::Other(format!("the checkpoints in {}: {error}", folder.display())))
}

/// The bucket, where checkpoints are in one.
///
/// # Errors
/// What is wrong with its settings.
pub(crate) fn bucket(config: &Config) -> Result<Option<Bucket>, Failure> {
    let Some(Place::Bucket { name, prefix }) = &config.sandbox.checkpoints else {
        return Ok(None);
    };
    let s3 = &config.s3;
    let wrong = |reason: String| Failure::Other(format!("the bucket of checkpoints (s3): {reason}"));
    let endpoint = match &s3.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => format!("https://s3.{}.amazonaws.com", s3.region),
    };
    let endpoint =
        Url::parse(&endpoint).map_err(|error| wrong(format!("the endpoint is not a URL: {error}")))?;
    // The configuration has been checked.
    let missing = || wrong("there is no access key".to_owned());
    let settings = Settings {
        endpoint,
        region: s3.region.clone(),
        path_style: s3.path_style.unwrap_or(s3.endpoint.is_some()),
        bucket: name.clone(),
        prefix: prefix.clone(),
        access_key_id: s3.access_key_id.clone().ok_or_else(missing)?,
        secret_access_key: secret(config)?.ok_or_else(missing)?,
    };
    Bucket::new(settings)
        .map(Some)
        .map_err(|unusable| wrong(unusable.to_string()))
}

/// The access key's secret, from its setting or its file.
fn secret(config: &Config) -> Result<Option<SecretString>, Failure> {
    let Some(path) = &config.s3.secret_access_key_file else {
        return Ok(config.s3.secret_access_key.clone());
    };
    let wrong =
        |reason: String| Failure::Other(format!("s3.secret_access_key_file: {}: {reason}", path.display()));
    let text = crate::commands::read_text(path).map_err(|error| wrong(error.to_string()))?;
    SecretString::parse(&text).map(Some).map_err(wrong)
}

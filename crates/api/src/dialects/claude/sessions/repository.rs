//! Repositories to give to sessions.

use oma_domain::resource::Checkout;
use oma_engine::files::NewRepository;
use secrecy::SecretString;
use serde_json::Value;

use super::resources::MOUNT_PATH;
use crate::dialects::claude::body::{nullable, only};
use crate::limits;
use crate::validate::checks::{discriminator, text};
use crate::validate::{Object, Tree};

/// The longest name of a branch, in characters.
const BRANCH: usize = 255;

pub(crate) fn repository(object: &mut Object<'_>) -> Option<NewRepository> {
    only(
        object,
        &["type", "url", "authorization_token", "checkout", "mount_path"],
    );
    let url = object.required("url", url);
    let token = nullable(object, "authorization_token", token);
    let checkout = nullable(object, "checkout", checkout);
    let mount_path = nullable(object, "mount_path", text(1, MOUNT_PATH));
    Some(NewRepository {
        url: url?,
        token: token?,
        checkout: checkout?,
        mount_path: mount_path?,
    })
}

/// The address of a repository on any host that serves git over HTTP. Whether it can be dialled is not looked at here.
fn url(value: &Value, issues: &mut Tree) -> Option<String> {
    let given = text(1, limits::MATCH_URL)(value, issues)?;
    let is_good = |url: &url::Url| {
        let is_bare = url.username().is_empty() && url.password().is_none();
        let is_place = url.query().is_none() && url.fragment().is_none() && url.path().len() > 1;
        matches!(url.scheme(), "https" | "http") && is_bare && is_place
    };
    let is_plain = !given.chars().any(|c| c.is_whitespace() || c.is_control());
    if !is_plain || url::Url::parse(&given).ok().filter(is_good).is_none() {
        issues.push("Must be an https:// address of a repository, without credentials, query and fragment");
        return None;
    }
    Some(given)
}

/// What a host asks for. It is never part of an answer.
pub(super) fn token(value: &Value, issues: &mut Tree) -> Option<SecretString> {
    let token = text(1, limits::SECRET)(value, issues)?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        issues.push("Must have visible ASCII characters only");
        return None;
    }
    Some(SecretString::from(token))
}

fn checkout(value: &Value, issues: &mut Tree) -> Option<Checkout> {
    let mut object = Object::of(value, issues)?;
    let is_plain = |name: &str| {
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c);
        !name.starts_with('-') && !name.contains("..") && !name.contains("@{") && !name.contains(is_odd)
    };
    if discriminator(&mut object, &["branch", "commit"])? == "branch" {
        only(&mut object, &["type", "name"]);
        let name = object.required("name", |value, issues| {
            let name = text(1, BRANCH)(value, issues)?;
            if !is_plain(&name) {
                issues.push("Is no name of a branch");
                return None;
            }
            Some(name)
        });
        return Some(Checkout::Branch { name: name? });
    }
    only(&mut object, &["type", "sha"]);
    let sha = object.required("sha", |value, issues| {
        let sha = text(7, 64)(value, issues)?;
        if !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            issues.push("Must have hexadecimal digits only");
            return None;
        }
        Some(sha)
    });
    Some(Checkout::Commit { sha: sha? })
}

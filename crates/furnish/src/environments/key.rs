//! The name of a layer: the hash of all that decides what is in it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use oma_domain::WorkspaceId;
use oma_domain::environment::{Manager, Networking, Packages, Spec};
use oma_sandbox::layers::Layer;
use sha2::{Digest as _, Sha256};

/// Changes when what is done for the same words does.
const FORMAT: &str = "oma-layer-2";

/// Feeds words to a hash, each with its length, so that no two lists of words look the same.
fn add(hash: &mut Sha256, word: &str) {
    hash.update((word.len() as u64).to_le_bytes());
    hash.update(word);
}

/// What an environment reaches, and the registries that its packages come from.
pub(super) fn with_registries(networking: &Networking) -> Networking {
    match networking {
        Networking::Unrestricted => Networking::Unrestricted,
        Networking::Limited { allowed_hosts, .. } => Networking::Limited {
            allowed_hosts: allowed_hosts.clone(),
            allow_mcp_servers: false,
            allow_package_managers: true,
        },
    }
}

/// Names what the operator gives to builds: variables, and files with what is in them.
///
/// # Errors
/// When a file can't be read.
pub(super) fn given(variables: &[(String, String)], files: &[(PathBuf, PathBuf)]) -> io::Result<String> {
    let mut hash = Sha256::new();
    for (name, value) in variables {
        add(&mut hash, name);
        add(&mut hash, value);
    }
    for (source, target) in files {
        add(&mut hash, &target.to_string_lossy());
        let mut content = Sha256::new();
        let mut file = File::open(source)?;
        // What is no file has no content to go by.
        if file.metadata()?.is_file() {
            let mut chunk = vec![0; 1 << 16];
            loop {
                match file.read(&mut chunk)? {
                    0 => break,
                    read => content.update(&chunk[..read]),
                }
            }
        } else {
            add(&mut content, &source.to_string_lossy());
        }
        hash.update(content.finalize());
    }
    Ok(hex::encode(hash.finalize()))
}

/// The layer of an environment of this workspace over this ground, with what the operator gives. Workspaces share none: what a script leaves
/// depends on what it could reach, and how long a build takes tells who else has had it.
pub(super) fn layer(workspace: &WorkspaceId, ground: &str, given: &str, spec: &Spec) -> Option<Layer> {
    let mut hash = Sha256::new();
    let mut add = |word: &str| add(&mut hash, word);
    [FORMAT, workspace.as_str(), ground, given]
        .into_iter()
        .for_each(&mut add);
    let none = Packages::default();
    let packages = spec.packages.as_ref().unwrap_or(&none);
    for manager in Manager::ALL {
        let mut names: Vec<&str> = packages.of(manager).iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        add(manager.as_str());
        add(&names.len().to_string());
        names.into_iter().for_each(&mut add);
    }
    // What a build can't reach it can't have.
    if !packages.is_empty() {
        reach(&with_registries(&spec.networking), &mut add);
    }
    if let Some(script) = &spec.setup_script {
        add(script);
        reach(&spec.networking, &mut add);
        // The script has them, so what it leaves may depend on them.
        for (name, value) in &spec.variables {
            add(name);
            add(value);
        }
    }
    Layer::parse(&hex::encode(hash.finalize()))
}

/// Tells what is reached, in whatever order it was said.
fn reach(networking: &Networking, mut add: impl FnMut(&str)) {
    match networking {
        Networking::Unrestricted => add("unrestricted"),
        Networking::Limited {
            allowed_hosts,
            // A build has no servers.
            allow_mcp_servers: _,
            allow_package_managers,
        } => {
            add("limited");
            add(&allow_package_managers.to_string());
            let hosts: BTreeSet<&str> = allowed_hosts.iter().map(String::as_str).collect();
            add(&hosts.len().to_string());
            hosts.into_iter().for_each(add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(hosts: &[&str], allow_package_managers: bool) -> Networking {
        Networking::Limited {
            allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            allow_mcp_servers: false,
            allow_package_managers,
        }
    }

    #[test]
    fn what_the_operator_gives_is_told_by_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pip.conf");
        let files = [(file.clone(), PathBuf::from("/etc/pip.conf"))];
        std::fs::write(&file, "one").unwrap();
        let variables = [("A".to_owned(), "b".to_owned())];
        let first = given(&variables, &files).unwrap();
        assert_eq!(given(&variables, &files).unwrap(), first);
        assert_ne!(given(&[], &files).unwrap(), first);
        std::fs::write(&file, "two").unwrap();
        assert_ne!(given(&variables, &files).unwrap(), first);
        std::fs::remove_file(&file).unwrap();
        assert!(given(&variables, &files).is_err());
    }

    #[test]
    fn what_decides_what_is_in_a_layer_decides_its_name_and_nothing_else() {
        let workspace = WorkspaceId::generate();
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let of = |packages: Packages, change: fn(&mut Spec)| {
            let mut spec = Spec::named("e");
            spec.packages = Some(packages);
            change(&mut spec);
            layer(&workspace, "ground", "given", &spec).unwrap()
        };
        let pip = |list: &[&str]| Packages {
            pip: names(list),
            ..Packages::default()
        };
        let same = of(pip(&["a", "b"]), |_| {});
        assert_eq!(
            of(pip(&["b", "a", "b"]), |_| {}),
            same,
            "in any order, once or twice"
        );
        assert_eq!(of(pip(&["a", "b"]), |spec| spec.name = "other".to_owned()), same);
        let variable = |spec: &mut Spec| {
            spec.variables.insert("A".to_owned(), "b".to_owned());
        };
        assert_eq!(
            of(pip(&["a", "b"]), variable),
            same,
            "no script, so nobody reads it"
        );
        let script = |spec: &mut Spec| spec.setup_script = Some("true".to_owned());
        let with_script = of(pip(&["a", "b"]), script);
        let with_both = of(pip(&["a", "b"]), |spec| {
            spec.setup_script = Some("true".to_owned());
            spec.variables.insert("A".to_owned(), "b".to_owned());
        });
        assert_eq!(
            of(pip(&["a"]), |spec| spec.networking =
                limited(&["y.test", "x.test"], true)),
            of(pip(&["a"]), |spec| {
                spec.networking = limited(&["x.test", "y.test"], false);
            }),
            "packages come from registries, in any order of hosts"
        );
        let npm = Packages {
            npm: names(&["a", "b"]),
            ..Packages::default()
        };
        let others = [
            of(pip(&["ab"]), |_| {}),
            of(pip(&["a"]), |_| {}),
            of(npm, |_| {}),
            with_script,
            with_both,
            layer(&WorkspaceId::generate(), "ground", "given", &Spec::named("e")).unwrap(),
            layer(&workspace, "other", "given", &Spec::named("e")).unwrap(),
            layer(&workspace, "ground", "given", &Spec::named("e")).unwrap(),
            layer(&workspace, "ground", "other", &Spec::named("e")).unwrap(),
            of(pip(&["a", "b"]), |spec| {
                spec.networking = limited(&["x.test"], false)
            }),
            of(pip(&["a", "b"]), |spec| {
                spec.networking = limited(&["x.test", "y.test"], false);
            }),
            same,
        ];
        let distinct: std::collections::BTreeSet<_> = others.iter().collect();
        assert_eq!(distinct.len(), others.len());
    }
}

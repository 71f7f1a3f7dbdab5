//! The name of a layer: the hash of all that decides what is in it.

use oma_domain::WorkspaceId;
use oma_domain::environment::{Manager, Packages, Spec};
use oma_sandbox::layers::Layer;
use sha2::{Digest as _, Sha256};

/// Changes when what is done for the same words does.
const FORMAT: &str = "oma-layer-1";

/// The layer of an environment of this workspace over this ground. Workspaces share none: what a script leaves
/// depends on what it could reach, and how long a build takes tells who else has had it.
pub(super) fn layer(workspace: &WorkspaceId, ground: &str, spec: &Spec) -> Option<Layer> {
    let mut hash = Sha256::new();
    // Each word with its length, so that no two lists of words look the same.
    let mut add = |word: &str| {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word);
    };
    [FORMAT, workspace.as_str(), ground]
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
    if let Some(script) = &spec.setup_script {
        add(script);
        // The script has them, so what it leaves may depend on them.
        for (name, value) in &spec.variables {
            add(name);
            add(value);
        }
    }
    Layer::parse(&hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_what_is_in_a_layer_decides_its_name_and_nothing_else() {
        let workspace = WorkspaceId::generate();
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let of = |packages: Packages, change: fn(&mut Spec)| {
            let mut spec = Spec::named("e");
            spec.packages = Some(packages);
            change(&mut spec);
            layer(&workspace, "ground", &spec).unwrap()
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
            layer(&WorkspaceId::generate(), "ground", &Spec::named("e")).unwrap(),
            layer(&workspace, "other", &Spec::named("e")).unwrap(),
            layer(&workspace, "ground", &Spec::named("e")).unwrap(),
            same,
        ];
        let distinct: std::collections::BTreeSet<_> = others.iter().collect();
        assert_eq!(distinct.len(), others.len());
    }
}

//! No case of the contract is left out: what is written there is in the list that tests are made of.

use std::collections::BTreeSet;
use std::path::Path;

/// How each case begins.
const BEGINNING: &str = "pub async fn ";
/// What each case takes, and nothing else.
const PARAMETERS: &str = "(store: Arc<dyn Store>)";

/// The cases that are written in a file or a folder, each with its module.
fn written(module: &str, path: &Path, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            written(module, &entry.unwrap().path(), found);
        }
        return;
    }
    let text = std::fs::read_to_string(path).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix(BEGINNING)) {
        if let Some((case, _)) = line.split_once(PARAMETERS) {
            found.insert(format!("{module}::{case}"));
        }
    }
}

#[test]
fn every_case_is_listed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/contract");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        written(&module, &path, &mut found);
    }
    let text = std::fs::read_to_string(folder.join("mod.rs")).unwrap();
    let (_, list) = text.split_once("@cases $open;").unwrap();
    let (list, _) = list.split_once('}').unwrap();
    let modules = list.split(';').filter_map(|line| line.split_once(':'));
    let listed: BTreeSet<String> = modules
        .flat_map(|(module, cases)| {
            let cases = cases.split(',').map(str::trim);
            cases.map(move |case| format!("{}::{case}", module.trim()))
        })
        .collect();
    assert!(listed.len() > 100, "{listed:?}");
    assert_eq!(found, listed);
}

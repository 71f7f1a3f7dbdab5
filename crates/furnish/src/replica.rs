//! A session's copy of a memory store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use oma_domain::memory::{Access, Attachment, Content, Item, MAX_CONTENT, Path, Sha};
use oma_domain::{Actor, MemoryId, MemoryVersionId, Timestamp};
use oma_sandbox::files::{Error as FileError, Workspace};
use oma_sandbox::{Error, Spec};
use oma_store::memories::{Change, MemoryFilter, Outcome, Written};
use oma_store::{Error as StoreError, Store};

use crate::failed;
use crate::scan::{Mark, scan};

/// How fresh a file may be for its size and time to say nothing yet: clocks of file systems are coarse. In milliseconds.
const FRESH: f64 = 50.0;
/// The memories that are read from the store at once.
const PAGE: u32 = 500;

/// A copy, with what is known of it.
pub(crate) struct Replica {
    attached: Attachment,
    folder: Arc<dyn Workspace>,
    /// What was at each path when the copy and the store were last the same.
    base: BTreeMap<Path, Sha>,
    /// How the files looked that were last found to be as `base` says, or that were refused.
    seen: HashMap<String, Mark>,
    /// Files that the store does not take, by path.
    refused: HashMap<String, Mark>,
    /// Where the store stood when the copy was last brought up to date.
    revision: Option<i64>,
    /// Whether the copy has been looked at since the server started.
    looked: bool,
    /// What has been said about the copy as a whole.
    said: Option<&'static str>,
}

impl Replica {
    /// Opens the copy of a store.
    pub(crate) async fn open(
        store: &dyn Store,
        spec: &Spec,
        attached: Attachment,
        folder: Arc<dyn Workspace>,
    ) -> Result<Self, Error> {
        let base = store
            .memory_copy(&spec.workspace, &spec.session, &attached.store)
            .await
            .map_err(|error| failed("reading what a copy of a memory store was", error))?;
        Ok(Self {
            attached,
            folder,
            base: base.into_iter().collect(),
            seen: HashMap::new(),
            refused: HashMap::new(),
            revision: None,
            looked: false,
            said: None,
        })
    }

    /// Brings what others changed. What the session wrote is taken back first; what there is to say of that comes back.
    pub(crate) async fn refresh(&mut self, store: &dyn Store, spec: &Spec) -> Result<Vec<String>, Error> {
        let revision = store
            .memory_revision(&spec.workspace, &self.attached.store)
            .await
            .map_err(|error| failed("looking at a memory store", error))?;
        // A store that is gone leaves its copy as it is.
        if self.looked && (revision.is_none() || revision == self.revision) {
            return Ok(Vec::new());
        }
        let notes = self.collect(store, spec).await?;
        self.looked = true;
        let whole = match revision {
            Some(_) => self.pull(store, spec).await?,
            None => true,
        };
        // What the collecting itself added is looked at once more the next time; that does no harm.
        self.revision = revision.filter(|_| whole);
        Ok(notes)
    }

    /// Brings what others changed; tells whether all of it was.
    async fn pull(&mut self, store: &dyn Store, spec: &Spec) -> Result<bool, Error> {
        let mut theirs = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let filter = MemoryFilter::default();
            let page = store
                .memories(
                    &spec.workspace,
                    &self.attached.store,
                    &filter,
                    after.as_deref(),
                    PAGE,
                )
                .await
                .map_err(|error| failed("reading a memory store", error))?;
            for item in page.rows {
                if let Item::Memory(memory) = item {
                    theirs.insert(memory.path, (memory.id, memory.sha));
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut whole = true;
        // What goes makes room: a file may have become a folder.
        let gone: Vec<Path> = self
            .base
            .keys()
            .filter(|path| !theirs.contains_key(*path))
            .cloned()
            .collect();
        let mut copied: Vec<(Path, Option<Sha>)> = Vec::new();
        for path in gone {
            if self.refused.contains_key(path.as_str()) {
                continue;
            }
            if !self.is_untouched(&path).await {
                whole = false;
                continue;
            }
            match self.folder.remove(inside(&path)).await {
                Ok(()) | Err(FileError::NotFound) => copied.push((path, None)),
                Err(error) => tracing::warn!(session_id = %spec.session, %error, "a memory stays in a copy"),
            }
        }
        for (path, (id, sha)) in theirs {
            let current = self.base.get(&path) == Some(&sha);
            if current || self.refused.contains_key(path.as_str()) {
                continue;
            }
            if !self.is_untouched(&path).await {
                whole = false;
                continue;
            }
            let memory = store
                .memory(&spec.workspace, &self.attached.store, &id, true)
                .await
                .map_err(|error| failed("reading a memory", error))?;
            // Changed once more since: the next time brings it.
            let Some(memory) = memory.filter(|memory| memory.path == path) else {
                whole = false;
                continue;
            };
            let text = memory.content.unwrap_or_default();
            match self.folder.write(inside(&path), Bytes::from(text)).await {
                Ok(()) => copied.push((path, Some(memory.sha))),
                Err(error) => {
                    whole = false;
                    tracing::warn!(session_id = %spec.session, %error, "a memory could not be put into a copy");
                }
            }
        }
        if copied.is_empty() {
            return Ok(whole);
        }
        // The files first, then what they are: a crash between the two finds files that are as the store says.
        store
            .copied_memories(&spec.workspace, &spec.session, &self.attached.store, &copied)
            .await
            .map_err(|error| failed("noting what a copy of a memory store is", error))?;
        for (path, sha) in copied {
            self.seen.remove(path.as_str());
            match sha {
                Some(sha) => self.base.insert(path, sha),
                None => self.base.remove(&path),
            };
        }
        Ok(whole)
    }

    /// Whether a file is still what the session is known to have there: something in the sandbox may be at work.
    async fn is_untouched(&self, path: &Path) -> bool {
        if self.attached.access == Access::ReadOnly {
            return true;
        }
        let base = self.base.get(path).copied();
        match self.folder.read(inside(path), MAX_CONTENT as u64).await {
            Ok(bytes) => base == Some(Sha::of(&bytes)),
            Err(FileError::NotFound) => base.is_none(),
            Err(_) => false,
        }
    }

    /// Takes back what the session wrote. What there is to say to the model comes back.
    pub(crate) async fn collect(&mut self, store: &dyn Store, spec: &Spec) -> Result<Vec<String>, Error> {
        if self.attached.access == Access::ReadOnly {
            return Ok(Vec::new());
        }
        let found = scan(&*self.folder)
            .await
            .map_err(|error| failed("looking at a copy of a memory store", error))?;
        let mut notes = Vec::new();
        if found.cut {
            self.say(
                "has more files, or deeper folders, than are looked at: what is beyond is not kept",
                &mut notes,
            );
        }
        let now = millis();
        let mut written = Vec::new();
        let mut marks = Vec::new();
        for (name, mark) in &found.files {
            if self.seen.get(name) == Some(mark) || self.refused.get(name) == Some(mark) {
                continue;
            }
            let content = match self.read(name, *mark).await {
                Ok(Some(content)) => content,
                // It has gone meanwhile.
                Ok(None) => continue,
                Err(problem) => {
                    self.refused.insert(name.clone(), *mark);
                    notes.push(self.note(name, &format!("was not kept: {problem}")));
                    continue;
                }
            };
            let (path, content) = content;
            self.refused.remove(name);
            // A file that was changed just now may be changed again without looking any different.
            if now - mark.changed > FRESH {
                marks.push((name.clone(), *mark));
            }
            let base = self.base.get(&path).copied();
            if base != Some(content.sha()) {
                written.push(write(path, base, Some(content)));
            }
        }
        if !found.cut {
            self.seen.retain(|name, _| found.files.contains_key(name));
            self.refused.retain(|name, _| found.files.contains_key(name));
            let missing = self
                .base
                .iter()
                .filter(|(path, _)| !found.files.contains_key(path.as_str()));
            written.extend(missing.map(|(path, sha)| write(path.clone(), Some(*sha), None)));
        }
        if written.is_empty() {
            self.seen.extend(marks);
            return Ok(notes);
        }
        let change = Change {
            workspace: spec.workspace.clone(),
            store: self.attached.store.clone(),
            author: Actor::Session(spec.session.clone()),
            at: timestamp(),
        };
        let outcomes = match store.write_back(&change, &written).await {
            Ok(outcomes) => outcomes,
            Err(StoreError::Archived) => {
                self.say("is archived: changes to it are not kept", &mut notes);
                return Ok(notes);
            }
            Err(StoreError::NotFound) => {
                self.say("was deleted: changes to it are not kept", &mut notes);
                return Ok(notes);
            }
            Err(error) => return Err(failed("writing memories back", error)),
        };
        self.seen.extend(marks);
        for (one, outcome) in written.into_iter().zip(outcomes) {
            self.settle(one, outcome, &found.files, &mut notes);
        }
        Ok(notes)
    }

    fn settle(
        &mut self,
        one: Written,
        outcome: Outcome,
        files: &BTreeMap<String, Mark>,
        notes: &mut Vec<String>,
    ) {
        let name = one.path.to_string();
        let refuse = |copy: &mut Self, problem: String, notes: &mut Vec<String>| {
            if let Some(mark) = files.get(&name) {
                copy.refused.insert(name.clone(), *mark);
            }
            notes.push(copy.note(&name, &problem));
        };
        match outcome {
            Outcome::Stored => {}
            Outcome::Replaced(version) => {
                let problem = format!(
                    "was changed by somebody else at the same time. Your text is the one that is kept now; theirs is in the version {version}."
                );
                notes.push(self.note(&name, &problem));
            }
            Outcome::Kept => {
                let problem =
                    "was not removed: somebody else has changed it at the same time. It will be there again.";
                notes.push(self.note(&name, problem));
                self.base.remove(&one.path);
                // It has to be brought again.
                self.revision = None;
                return;
            }
            Outcome::PathTaken(other) => {
                refuse(
                    self,
                    format!("was not kept: the memory {other} is in its way"),
                    notes,
                );
                return;
            }
            Outcome::TooMany(most) => {
                refuse(
                    self,
                    format!("was not kept: the store has {most} memories, the most that it may have"),
                    notes,
                );
                return;
            }
        }
        match one.content {
            Some(content) => self.base.insert(one.path, content.sha()),
            None => self.base.remove(&one.path),
        };
    }

    /// Reads a file as a memory; `None` when it has gone.
    async fn read(&self, name: &str, mark: Mark) -> Result<Option<(Path, Content)>, String> {
        let path = Path::parse(name).map_err(|invalid| format!("its path {invalid}"))?;
        let too_large = || format!("it has more than {MAX_CONTENT} bytes");
        if mark.size > MAX_CONTENT as u64 {
            return Err(too_large());
        }
        let bytes = match self.folder.read(inside(&path), MAX_CONTENT as u64).await {
            Ok(bytes) => bytes,
            Err(FileError::NotFound) => return Ok(None),
            Err(FileError::TooLarge(_)) => return Err(too_large()),
            Err(error) => return Err(error.to_string()),
        };
        let text = String::from_utf8(bytes.into()).map_err(|_| "it is not text in UTF-8".to_owned())?;
        if text.contains('\0') {
            return Err("it is not text: it has NUL characters".to_owned());
        }
        let content = Content::new(text).map_err(|_| too_large())?;
        Ok(Some((path, content)))
    }

    /// Something about a file, for the model.
    fn note(&self, name: &str, problem: &str) -> String {
        format!("{}{name} {problem}", self.attached.mount_path())
    }

    /// Something about the copy as a whole, which is said once.
    fn say(&mut self, problem: &'static str, notes: &mut Vec<String>) {
        if self.said.replace(problem) != Some(problem) {
            notes.push(format!("{} {problem}.", self.attached.mount_path()));
        }
    }
}

fn write(path: Path, base: Option<Sha>, content: Option<Content>) -> Written {
    Written {
        id: MemoryId::generate(),
        version: MemoryVersionId::generate(),
        path,
        base,
        content,
    }
}

/// The path within the folder.
fn inside(path: &Path) -> &str {
    path.as_str().trim_start_matches('/')
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Now, as file systems tell it: in milliseconds since the epoch.
fn millis() -> f64 {
    since_epoch().as_secs_f64() * 1_000.0
}

/// Now, as the store tells it.
fn timestamp() -> Timestamp {
    Timestamp(i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX))
}

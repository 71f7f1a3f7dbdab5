//! Whose build is next: workspaces take turns, and none has more than one build under way.

use std::collections::{BTreeSet, VecDeque};

use oma_domain::WorkspaceId;

/// The most builds of one workspace that wait.
pub(super) const MAX_WAITING: usize = 8;

/// Builds that wait, and the workspaces that have one under way.
pub(super) struct Queue<T> {
    at_once: usize,
    running: BTreeSet<WorkspaceId>,
    /// By workspace, the next one first.
    waiting: VecDeque<(WorkspaceId, VecDeque<T>)>,
}

/// Too many builds of the workspace wait already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<T> Queue<T> {
    /// An empty one, for so many builds at once.
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            at_once,
            running: BTreeSet::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Has a build wait.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn push(&mut self, workspace: &WorkspaceId, build: T) -> Result<(), Full> {
        match self.waiting.iter_mut().find(|(whose, _)| whose == workspace) {
            Some((_, builds)) if builds.len() >= MAX_WAITING => return Err(Full),
            Some((_, builds)) => builds.push_back(build),
            None => self
                .waiting
                .push_back((workspace.clone(), VecDeque::from([build]))),
        }
        Ok(())
    }

    /// The build whose turn it is, if one can begin; its workspace has it under way from now on.
    pub(super) fn begin(&mut self) -> Option<(WorkspaceId, T)> {
        if self.running.len() >= self.at_once {
            return None;
        }
        let is_free = |(whose, _): &(WorkspaceId, _)| !self.running.contains(whose);
        let at = self.waiting.iter().position(is_free)?;
        let (workspace, mut builds) = self.waiting.remove(at)?;
        let build = builds.pop_front()?;
        if !builds.is_empty() {
            self.waiting.push_back((workspace.clone(), builds));
        }
        self.running.insert(workspace.clone());
        Some((workspace, build))
    }

    /// Whether one of those that wait is such.
    pub(super) fn any(&self, is_it: impl Fn(&T) -> bool) -> bool {
        self.waiting.iter().any(|(_, builds)| builds.iter().any(&is_it))
    }

    /// Takes all that wait away.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.waiting)
            .into_iter()
            .flat_map(|(_, builds)| builds)
    }

    /// The workspace's build has ended.
    pub(super) fn end(&mut self, workspace: &WorkspaceId) {
        self.running.remove(workspace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_take_turns_and_have_one_build_under_way() {
        let (greedy, modest, late) = (
            WorkspaceId::generate(),
            WorkspaceId::generate(),
            WorkspaceId::generate(),
        );
        let mut queue = Queue::new(2);
        for n in 0..MAX_WAITING {
            queue.push(&greedy, n).unwrap();
        }
        assert_eq!(queue.push(&greedy, 99), Err(Full), "so many and no more");
        queue.push(&modest, 100).unwrap();
        assert!(queue.any(|build| *build == 100) && !queue.any(|build| *build == 200));
        queue.push(&late, 200).unwrap();

        assert_eq!(queue.begin(), Some((greedy.clone(), 0)));
        assert_eq!(
            queue.begin(),
            Some((modest.clone(), 100)),
            "not the second of the first"
        );
        assert_eq!(queue.begin(), None, "two at once");
        queue.end(&greedy);
        assert_eq!(
            queue.begin(),
            Some((late.clone(), 200)),
            "whoever had a turn is behind the others"
        );
        queue.end(&modest);
        assert_eq!(queue.begin(), Some((greedy.clone(), 1)));
        queue.end(&late);
        assert_eq!(queue.begin(), None, "one at a time, though there is a place");
        queue.end(&greedy);
        assert_eq!(queue.begin(), Some((greedy, 2)));
        assert_eq!(queue.clear().count(), MAX_WAITING - 3);
        assert_eq!(queue.begin(), None);
    }
}

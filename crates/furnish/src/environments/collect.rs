//! Room for layers: which of them go, and how much the next build may take.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use oma_domain::WorkspaceId;
use oma_sandbox::Error;
use oma_sandbox::layers::Kept;

use super::builds::Builds;

/// How long a layer stays at least once it was used, so that a sandbox that is about to show it finds it.
const GRACE: Duration = Duration::from_secs(600);

/// How much of the disk layers may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// All of them.
    pub all: u64,
    /// Those of one workspace.
    pub workspace: u64,
}

/// What a build may put on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// In bytes.
    pub(super) bytes: u64,
    /// Whether that is less than what a build may have, because of other layers.
    pub(super) is_rest: bool,
}

impl Builds {
    /// Removes layers that are too old, and the longest unused while those of a workspace, or all of them, are too large.
    pub(super) async fn collect(&self) -> Result<(), Error> {
        self.make_room(None).await
    }

    /// The same, and as many more as it takes that a build of this workspace may be as large as any.
    async fn make_room(&self, builds: Option<&WorkspaceId>) -> Result<(), Error> {
        // One after the other, so that none counts what another is removing.
        let _alone = self.collecting.lock().await;
        let settings = self.settings();
        let kept = self.layers.kept().await?;
        let wanted = builds.map(|workspace| (workspace, settings.limits.disk));
        for layer in surplus(kept, SystemTime::now(), settings.age, settings.share, wanted) {
            match self.layers.discard(&layer.layer).await {
                Ok(true) => {
                    self.forget(&layer.layer);
                    tracing::info!(
                        layer = layer.layer.as_str(),
                        bytes = layer.bytes,
                        "a layer was removed"
                    );
                    metrics::counter!("environment_layers_total", "outcome" => "removed").increment(1);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(layer = layer.layer.as_str(), %error, "a layer could not be removed");
                }
            }
        }
        let kept = self.layers.kept().await?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge takes no other number")]
        let bytes = kept.iter().map(|layer| layer.bytes).sum::<u64>() as f64;
        metrics::gauge!("environment_layers_bytes").set(bytes);
        Ok(())
    }

    /// What the next build of a workspace may put on the disk, after what can go has gone.
    ///
    /// # Errors
    /// Why it can't have anything, in words for the developer.
    pub(super) async fn room(&self, workspace: &WorkspaceId) -> Result<Room, String> {
        let unknown = |error: Error| {
            tracing::error!(%error, "the layers of environments can't be looked through");
            super::install::unsaid("the build could not begin")
        };
        // Else what nobody uses would keep builds from being as large as they may be, until it is too old.
        self.make_room(Some(workspace)).await.map_err(unknown)?;
        let kept = self.layers.kept().await.map_err(unknown)?;
        let settings = self.settings();
        rest(&kept, workspace, settings.share, settings.limits.disk)
    }
}

/// What is left for a build of a workspace beside these layers.
fn rest(kept: &[Kept], workspace: &WorkspaceId, share: Share, most: u64) -> Result<Room, String> {
    let bytes = |layers: &mut dyn Iterator<Item = &Kept>| layers.map(|layer| layer.bytes).sum::<u64>();
    let of_all = bytes(&mut kept.iter());
    let is_ours = |layer: &&Kept| layer.workspace.as_ref() == Some(workspace);
    let of_workspace = bytes(&mut kept.iter().filter(is_ours));
    if of_workspace >= share.workspace {
        return Err(format!(
            "what was built for this workspace takes {of_workspace} bytes of the disk, and may take {}; what sandboxes \
             have, and what was used within the last {} minutes, stays",
            share.workspace,
            GRACE.as_secs() / 60
        ));
    }
    if of_all >= share.all {
        return Err(
            "what was built for environments takes all of the disk that it may have; try again later"
                .to_owned(),
        );
    }
    let rest = (share.workspace - of_workspace).min(share.all - of_all);
    Ok(Room {
        bytes: rest.min(most),
        is_rest: rest < most,
    })
}

/// The layers that go, the longest unused first, so that a workspace has room for so many bytes more.
fn surplus(
    mut all: Vec<Kept>,
    now: SystemTime,
    age: Option<Duration>,
    share: Share,
    wanted: Option<(&WorkspaceId, u64)>,
) -> Vec<Kept> {
    all.sort_by_key(|layer| layer.used);
    let mut total: u64 = all.iter().map(|layer| layer.bytes).sum();
    let mut of_workspaces: BTreeMap<WorkspaceId, u64> = BTreeMap::new();
    for layer in &all {
        if let Some(workspace) = &layer.workspace {
            *of_workspaces.entry(workspace.clone()).or_default() += layer.bytes;
        }
    }
    all.retain(|layer| {
        // One of the future was used just now.
        let unused = now.duration_since(layer.used).unwrap_or_default();
        let of_workspace = layer.workspace.as_ref().and_then(|it| of_workspaces.get_mut(it));
        let more = wanted.map_or(0, |(_, bytes)| bytes);
        let more_of_ours = wanted
            .filter(|(workspace, _)| layer.workspace.as_ref() == Some(*workspace))
            .map_or(0, |(_, bytes)| bytes);
        let is_too_much = total.saturating_add(more) > share.all
            || of_workspace
                .as_ref()
                .is_some_and(|bytes| bytes.saturating_add(more_of_ours) > share.workspace);
        let goes = unused >= GRACE && (age.is_some_and(|age| unused > age) || is_too_much);
        if goes {
            total -= layer.bytes;
            if let Some(bytes) = of_workspace {
                *bytes -= layer.bytes;
            }
        }
        goes
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_sandbox::layers::Layer;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn layer(digit: char, hours: u32, workspace: Option<&WorkspaceId>) -> Kept {
        Kept {
            layer: Layer::parse(&digit.to_string().repeat(64)).unwrap(),
            workspace: workspace.cloned(),
            bytes: 10,
            used: SystemTime::now() - HOUR * hours,
        }
    }

    fn names(gone: &[Kept]) -> String {
        gone.iter().map(|kept| &kept.layer.as_str()[..1]).collect()
    }

    fn share(all: u64, workspace: u64) -> Share {
        Share { all, workspace }
    }

    #[test]
    fn old_layers_go_and_of_many_the_longest_unused() {
        let all = || {
            vec![
                layer('a', 1, None),
                layer('b', 30, None),
                layer('c', 3, None),
                layer('d', 0, None),
            ]
        };
        let goes = |age: Option<Duration>, size: u64| {
            names(&surplus(all(), SystemTime::now(), age, share(size, 0), None))
        };
        assert_eq!(goes(None, 40), "");
        assert_eq!(goes(Some(HOUR * 24), 40), "b");
        assert_eq!(goes(None, 39), "b");
        assert_eq!(goes(None, 20), "bc");
        assert_eq!(goes(Some(HOUR * 2), 20), "bc");
        assert_eq!(goes(None, 0), "bca", "one that was used just now stays");
    }

    #[test]
    fn a_workspace_has_its_share_and_no_more() {
        let (greedy, modest) = (WorkspaceId::generate(), WorkspaceId::generate());
        let all = vec![
            layer('a', 1, Some(&greedy)),
            layer('b', 2, Some(&greedy)),
            layer('c', 0, Some(&greedy)),
            layer('d', 9, Some(&modest)),
        ];
        let goes = |workspace| {
            names(&surplus(
                all.clone(),
                SystemTime::now(),
                None,
                share(100, workspace),
                None,
            ))
        };
        assert_eq!(goes(30), "");
        assert_eq!(goes(20), "b", "others' older ones stay");
        assert_eq!(goes(10), "ba");

        // A build of as much as it may be has room, as far as what can go is enough.
        let room_for = |workspace, bytes, share| {
            names(&surplus(
                all.clone(),
                SystemTime::now(),
                None,
                share,
                Some((workspace, bytes)),
            ))
        };
        assert_eq!(room_for(&greedy, 10, share(100, 40)), "");
        assert_eq!(room_for(&greedy, 11, share(100, 40)), "b");
        assert_eq!(room_for(&greedy, u64::MAX, share(1_000, 40)), "dba");
        assert_eq!(room_for(&modest, 30, share(100, 40)), "", "others keep theirs");
        assert_eq!(room_for(&modest, 61, share(100, 100)), "d");

        let rest = |workspace: &WorkspaceId, share, most| rest(&all, workspace, share, most);
        let room = |bytes, is_rest| Ok(Room { bytes, is_rest });
        assert_eq!(rest(&greedy, share(100, 50), 8), room(8, false));
        assert_eq!(rest(&greedy, share(100, 35), 8), room(5, true));
        assert_eq!(rest(&modest, share(43, 35), 8), room(3, true));
        let full = rest(&greedy, share(100, 30), 8).unwrap_err();
        assert!(
            full.starts_with("what was built for this workspace takes 30 bytes"),
            "{full}"
        );
        assert!(rest(&modest, share(40, 35), 8).is_err());
    }
}

//! Skills and their versions.

use std::sync::Arc;

use oma_domain::skill::{Skill, SkillVersion, Which};
use oma_domain::{SkillId, SkillVersionId, Timestamp, WorkspaceId};

use super::fixtures::{NOW, collect, once};
use crate::{Error, SkillBounds, Store, assert_refused};

const MANY: SkillBounds = SkillBounds {
    skills: 100,
    versions: 100,
};

fn skill(workspace: &WorkspaceId) -> (Skill, SkillVersion) {
    let id = SkillId::generate();
    let first = version(workspace, &id, 7);
    let skill = Skill {
        id,
        workspace: workspace.clone(),
        display_name: "Ёлка".into(),
        latest: Some((first.id.clone(), 7)),
        created_at: NOW,
        updated_at: NOW,
    };
    (skill, first)
}

fn version(workspace: &WorkspaceId, skill: &SkillId, number: u64) -> SkillVersion {
    SkillVersion {
        id: SkillVersionId::generate(),
        skill: skill.clone(),
        workspace: workspace.clone(),
        number,
        name: "pdf".into(),
        description: "Fills \"forms\"".into(),
        directory: "pdf-tools".into(),
        created_at: Timestamp(NOW.0 + 1),
    }
}

fn content(text: &str) -> Arc<[u8]> {
    Arc::from(text.as_bytes())
}

/// A skill is written with its first version, gets more of them, and goes when they are gone.
pub async fn life(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let (made, first) = skill(&workspace);
    let mark = once("skill.create", "k");
    store
        .create_skill(&made, &first, content("one"), MANY, Some(&mark))
        .await
        .unwrap();
    assert_refused!(
        store
            .create_skill(&made, &first, content("one"), MANY, Some(&mark))
            .await,
        Error::AlreadyDone(_)
    );
    assert_refused!(
        store
            .create_skill(&made, &first, content("one"), MANY, None)
            .await,
        Error::Conflict
    );
    assert_eq!(
        store.skill(&workspace, &made.id).await.unwrap(),
        Some(made.clone())
    );

    // Numbers grow, whatever the clock says.
    let second = version(&workspace, &made.id, 7);
    let scope = format!("skill_version.create:{}", made.id);
    let mark = once(&scope, "k");
    let second = store
        .add_skill_version(&second, content("two"), MANY, Some(&mark))
        .await
        .unwrap();
    assert_eq!(second.number, 8);
    assert_refused!(
        store
            .add_skill_version(&second, content("two"), MANY, Some(&mark))
            .await,
        Error::AlreadyDone(_)
    );
    assert_refused!(
        store.add_skill_version(&second, content("two"), MANY, None).await,
        Error::Conflict
    );
    let unknown = version(&workspace, &SkillId::generate(), 1);
    assert_refused!(
        store.add_skill_version(&unknown, content(""), MANY, None).await,
        Error::NotFound
    );
    let found = store.skill(&workspace, &made.id).await.unwrap().unwrap();
    assert_eq!(
        (found.latest, found.updated_at),
        (Some((second.id.clone(), 8)), second.created_at)
    );
    for (which, expected) in [
        (Which::Latest, Some(&second)),
        (Which::Id(first.id.clone()), Some(&first)),
        (Which::Number(7), Some(&first)),
        (Which::Number(8), Some(&second)),
        (Which::Number(9), None),
        (Which::Number(u64::MAX), None),
        (Which::Id(SkillVersionId::generate()), None),
    ] {
        let found = store.skill_version(&workspace, &made.id, &which).await;
        assert_eq!(found.unwrap().as_ref(), expected, "{which:?}");
    }
    let bytes = store.skill_content(&workspace, &made.id, &second.id).await;
    assert_eq!(bytes.unwrap().as_deref(), Some(&b"two"[..]));

    assert_refused!(store.delete_skill(&workspace, &made.id).await, Error::InUse(2));
    let later = Timestamp(NOW.0 + 9);
    let delete = |which: Which| {
        let (store, workspace, id) = (&store, &workspace, &made.id);
        async move { store.delete_skill_version(workspace, id, &which, later).await }
    };
    assert_eq!(delete(Which::Number(8)).await.unwrap(), Some(second.clone()));
    assert_eq!(delete(Which::Number(8)).await.unwrap(), None);
    let found = store.skill(&workspace, &made.id).await.unwrap().unwrap();
    assert_eq!(
        (found.latest, found.updated_at),
        (Some((first.id.clone(), 7)), later)
    );
    let bytes = store.skill_content(&workspace, &made.id, &second.id).await;
    assert_eq!(bytes.unwrap(), None);
    assert_eq!(delete(Which::Latest).await.unwrap(), Some(first.clone()));
    let found = store.skill(&workspace, &made.id).await.unwrap().unwrap();
    assert_eq!(found.latest, None);
    assert!(store.delete_skill(&workspace, &made.id).await.unwrap());
    assert!(!store.delete_skill(&workspace, &made.id).await.unwrap());
    assert!(store.done(&workspace, &scope, "k").await.unwrap().is_none());
}

/// Lists, newest first, at every size of page.
pub async fn lists(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (made, first) = skill(&workspace);
        store
            .create_skill(&made, &first, content(""), MANY, None)
            .await
            .unwrap();
        ids.insert(0, made.id);
    }
    let skill = &ids[1];
    let first = store
        .skill_version(&workspace, skill, &Which::Latest)
        .await
        .unwrap();
    let mut versions = vec![first.unwrap().id];
    for _ in 0..2 {
        let added = version(&workspace, skill, 1);
        store
            .add_skill_version(&added, content(""), MANY, None)
            .await
            .unwrap();
        versions.insert(0, added.id);
    }
    for limit in [1, 2, 10] {
        let (store, workspace) = (&store, &workspace);
        let found =
            collect(
                |after: Option<SkillId>| async move { store.skills(workspace, after.as_ref(), limit).await },
            );
        let found: Vec<_> = found.await.into_iter().map(|skill| skill.id).collect();
        assert_eq!(found, ids);
        let found = collect(|after: Option<SkillVersionId>| async move {
            store
                .skill_versions(workspace, skill, after.as_ref(), limit)
                .await
        });
        let found: Vec<_> = found.await.into_iter().map(|version| version.id).collect();
        assert_eq!(found, versions);
    }
    assert_refused!(
        store.skills(&workspace, Some(&SkillId::generate()), 1).await,
        Error::NotFound
    );
    let none = SkillVersionId::generate();
    assert_refused!(
        store.skill_versions(&workspace, skill, Some(&none), 1).await,
        Error::NotFound
    );
}

/// Nothing of a workspace's skills is visible from another, or can be changed from there.
pub async fn isolation(store: Arc<dyn Store>) {
    let theirs = WorkspaceId::generate();
    let (made, first) = skill(&theirs);
    store
        .create_skill(&made, &first, content("x"), MANY, None)
        .await
        .unwrap();
    let ours = WorkspaceId::generate();
    assert_eq!(store.skill(&ours, &made.id).await.unwrap(), None);
    assert!(store.skills(&ours, None, 10).await.unwrap().rows.is_empty());
    let found = store.skill_version(&ours, &made.id, &Which::Latest).await;
    assert_eq!(found.unwrap(), None);
    let found = store.skill_versions(&ours, &made.id, None, 10).await;
    assert!(found.unwrap().rows.is_empty());
    let found = store.skill_content(&ours, &made.id, &first.id).await;
    assert_eq!(found.unwrap(), None);
    let removed = store
        .delete_skill_version(&ours, &made.id, &Which::Latest, NOW)
        .await;
    assert_eq!(removed.unwrap(), None);
    assert!(!store.delete_skill(&ours, &made.id).await.unwrap());
    let forged = version(&ours, &made.id, 1);
    assert_refused!(
        store.add_skill_version(&forged, content(""), MANY, None).await,
        Error::NotFound
    );
    assert_eq!(store.skill(&theirs, &made.id).await.unwrap(), Some(made));
}

/// A workspace has so many skills and no more, and so many versions of all of them.
pub async fn bounds(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let few = SkillBounds {
        skills: 2,
        versions: 3,
    };
    let (one, first) = skill(&workspace);
    store
        .create_skill(&one, &first, content("x"), few, None)
        .await
        .unwrap();
    let mark = once("skill.create", "k");
    let (two, of_two) = skill(&workspace);
    store
        .create_skill(&two, &of_two, content("x"), few, Some(&mark))
        .await
        .unwrap();
    // What was done before is said before anything else.
    assert_refused!(
        store
            .create_skill(&two, &of_two, content("x"), few, Some(&mark))
            .await,
        Error::AlreadyDone(_)
    );
    let (three, of_three) = skill(&workspace);
    assert_refused!(
        store
            .create_skill(&three, &of_three, content("x"), few, None)
            .await,
        Error::TooMany(2)
    );
    let second = version(&workspace, &one.id, 8);
    store
        .add_skill_version(&second, content("x"), few, None)
        .await
        .unwrap();
    let third = version(&workspace, &one.id, 9);
    assert_refused!(
        store.add_skill_version(&third, content("x"), few, None).await,
        Error::Limit(3)
    );
    let more = SkillBounds { skills: 3, ..few };
    assert_refused!(
        store
            .create_skill(&three, &of_three, content("x"), more, None)
            .await,
        Error::Limit(3)
    );
    // Another workspace's are another matter, and what goes makes room.
    let (other, of_other) = skill(&WorkspaceId::generate());
    store
        .create_skill(&other, &of_other, content("x"), few, None)
        .await
        .unwrap();
    store
        .delete_skill_version(&workspace, &two.id, &Which::Latest, NOW)
        .await
        .unwrap();
    assert!(store.delete_skill(&workspace, &two.id).await.unwrap());
    store
        .create_skill(&three, &of_three, content("x"), few, None)
        .await
        .unwrap();
}

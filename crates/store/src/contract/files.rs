//! Files, and what sessions are given.

use std::sync::Arc;

use oma_domain::page::Order;
use oma_domain::resource::Spec;
use oma_domain::vault::Sealed;
use oma_domain::{File, FileId, Resource, ResourceId, SessionId, Timestamp, WorkspaceId};

use super::fixtures::{NOW, agent, new_session, stored_session};
use crate::{Error, FileFilter, Store, assert_refused};

/// As much as anybody may want.
const ROOM: u64 = 1 << 40;

fn file(workspace: &WorkspaceId) -> File {
    File {
        id: FileId::generate(),
        workspace: workspace.clone(),
        filename: "größe.csv".to_owned(),
        mime_type: "text/csv".to_owned(),
        size: 1_000,
        downloadable: false,
        created_at: NOW,
        expires_at: None,
        session: None,
    }
}

fn resource(file: &File) -> Resource {
    Resource {
        id: ResourceId::generate(),
        spec: Spec::File {
            file: file.id.clone(),
            mount_path: format!("/mnt/session/uploads/{}", file.id),
        },
        created_at: NOW,
        updated_at: NOW,
    }
}

/// Whether a file's bytes are to go.
async fn is_released(store: &Arc<dyn Store>, file: &File) -> bool {
    store.released_files(1_000).await.unwrap().contains(&file.id)
}

/// What was written is read back, in its workspace only, and goes.
pub async fn round_trip(store: Arc<dyn Store>) {
    let (workspace, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let file = File {
        expires_at: Some(Timestamp(NOW.0 + 1)),
        ..file(&workspace)
    };
    store.add_file(&file, ROOM, None).await.unwrap();
    assert_eq!(
        store.file(&workspace, &file.id).await.unwrap(),
        Some(file.clone())
    );
    assert_eq!(store.file(&other, &file.id).await.unwrap(), None);
    let ids = [file.id.clone(), FileId::generate()];
    assert_eq!(
        store.existing_files(&ids).await.unwrap(),
        std::slice::from_ref(&file.id)
    );

    assert!(!store.delete_file(&other, &file.id).await.unwrap());
    assert!(!is_released(&store, &file).await);
    assert!(store.delete_file(&workspace, &file.id).await.unwrap());
    assert!(!store.delete_file(&workspace, &file.id).await.unwrap());
    assert_eq!(store.file(&workspace, &file.id).await.unwrap(), None);
    assert!(is_released(&store, &file).await);
    store
        .forget_released(std::slice::from_ref(&file.id))
        .await
        .unwrap();
    assert!(!is_released(&store, &file).await);
}

/// Lists are paged in both directions, by session, and without what has expired.
pub async fn lists(store: Arc<dyn Store>) {
    let (workspace, session) = stored_session(&store).await;
    let mut ids = Vec::new();
    for number in 0..5_i64 {
        let file = File {
            expires_at: (number == 2).then_some(Timestamp(NOW.0 + 10)),
            ..file(&workspace)
        };
        store.add_file(&file, ROOM, None).await.unwrap();
        ids.push(file.id);
    }
    let made = File {
        session: Some(session.clone()),
        ..file(&workspace)
    };
    store.put_output(&made, &session, "a", "1", ROOM).await.unwrap();
    ids.push(made.id.clone());

    let at = |now| FileFilter {
        session: None,
        now: Timestamp(now),
    };
    let (before, after) = (at(NOW.0), at(NOW.0 + 10));
    let first = store
        .files(&workspace, &before, Order::Descending, None, 2)
        .await
        .unwrap();
    let listed: Vec<&FileId> = first.rows.iter().map(|file| &file.id).collect();
    assert_eq!(listed, [&ids[5], &ids[4]]);
    let rest = store
        .files(&workspace, &before, Order::Descending, first.next.as_ref(), 10)
        .await
        .unwrap();
    assert_eq!((rest.rows.len(), rest.next), (4, None));
    let later = store
        .files(&workspace, &after, Order::Ascending, Some(&ids[1]), 10)
        .await
        .unwrap();
    let listed: Vec<&FileId> = later.rows.iter().map(|file| &file.id).collect();
    assert_eq!(listed, [&ids[3], &ids[4], &ids[5]], "one has expired");

    let of_session = |session: &SessionId| FileFilter {
        session: Some(session.clone()),
        now: NOW,
    };
    let page = store
        .files(&workspace, &of_session(&session), Order::Ascending, None, 10)
        .await
        .unwrap();
    assert_eq!(page.rows, [made]);
    for (workspace, session) in [
        (&workspace, &SessionId::generate()),
        (&WorkspaceId::generate(), &session),
    ] {
        let page = store
            .files(workspace, &of_session(session), Order::Ascending, None, 10)
            .await
            .unwrap();
        assert!(page.rows.is_empty());
    }
    let unknown = FileId::generate();
    let refused = store
        .files(&workspace, &before, Order::Ascending, Some(&unknown), 10)
        .await;
    assert_refused!(refused, Error::NotFound);
}

/// A file that was added under an idempotency key is not added again.
pub async fn once(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let (first, second) = (file(&workspace), file(&workspace));
    let key = super::fixtures::once("file.create", "k");
    store.add_file(&first, ROOM, Some(&key)).await.unwrap();
    assert_refused!(
        store.add_file(&second, ROOM, Some(&key)).await,
        Error::AlreadyDone(_)
    );
    assert_eq!(store.file(&workspace, &second.id).await.unwrap(), None);
}

/// What all files of a workspace have is bounded, and what goes makes room.
pub async fn room(store: Arc<dyn Store>) {
    let (workspace, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let first = file(&workspace);
    store.add_file(&first, 2_500, None).await.unwrap();
    store.add_file(&file(&workspace), 2_500, None).await.unwrap();
    let third = file(&workspace);
    assert_refused!(store.add_file(&third, 2_500, None).await, Error::NoRoom(2_500));
    assert_eq!(store.file(&workspace, &third.id).await.unwrap(), None);
    store.add_file(&file(&other), 2_500, None).await.unwrap();
    store.delete_file(&workspace, &first.id).await.unwrap();
    store.add_file(&third, 2_500, None).await.unwrap();
}

/// What a session makes anew takes the place of what it had made under that path.
pub async fn outputs(store: Arc<dyn Store>) {
    let (workspace, session) = stored_session(&store).await;
    let made = || File {
        downloadable: true,
        session: Some(session.clone()),
        ..file(&workspace)
    };
    let (first, second, elsewhere) = (made(), made(), made());
    store
        .put_output(&first, &session, "a/b", "1", 2_500)
        .await
        .unwrap();
    store
        .put_output(&elsewhere, &session, "c", "1", 2_500)
        .await
        .unwrap();
    assert_refused!(
        store.put_output(&made(), &session, "d", "1", 2_500).await,
        Error::NoRoom(_)
    );
    store
        .put_output(&second, &session, "a/b", "2", 2_500)
        .await
        .unwrap();
    let outputs = store.outputs(&workspace, &session).await.unwrap();
    let outputs: Vec<_> = outputs
        .iter()
        .map(|made| (made.path.as_str(), made.stamp.as_str(), &made.file))
        .collect();
    assert_eq!(outputs, [("a/b", "2", &second.id), ("c", "1", &elsewhere.id)]);
    assert!(is_released(&store, &first).await && !is_released(&store, &second).await);
    assert_eq!(store.file(&workspace, &second.id).await.unwrap(), Some(second));
    let missing = store
        .put_output(&made(), &SessionId::generate(), "a", "1", ROOM)
        .await;
    assert_refused!(missing, Error::NotFound);
    assert!(
        store
            .outputs(&WorkspaceId::generate(), &session)
            .await
            .unwrap()
            .is_empty()
    );
}

/// Files whose time is over go, and are remembered for a while.
pub async fn expiry(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    // Before what other cases have.
    let long_ago = Timestamp(1_000);
    let short = File {
        expires_at: Some(long_ago),
        ..file(&workspace)
    };
    let lasting = file(&workspace);
    store.add_file(&short, ROOM, None).await.unwrap();
    store.add_file(&lasting, ROOM, None).await.unwrap();
    store.expire_files(Timestamp(999), 10).await.unwrap();
    assert!(store.file(&workspace, &short.id).await.unwrap().is_some());
    store.expire_files(long_ago, 10).await.unwrap();
    assert_eq!(store.file(&workspace, &short.id).await.unwrap(), None);
    assert!(store.file(&workspace, &lasting.id).await.unwrap().is_some());
    assert!(is_released(&store, &short).await);
    assert!(store.has_expired(&workspace, &short.id).await.unwrap());
    assert!(
        !store
            .has_expired(&WorkspaceId::generate(), &short.id)
            .await
            .unwrap()
    );
    assert!(!store.has_expired(&workspace, &lasting.id).await.unwrap());
    store.forget_expired(Timestamp(1_001)).await.unwrap();
    assert!(!store.has_expired(&workspace, &short.id).await.unwrap());
}

/// What a session is given comes and goes with its copy of the file.
pub async fn resources(store: Arc<dyn Store>) {
    let workspace = WorkspaceId::generate();
    let agent = Arc::new(agent(&workspace));
    let mut session = new_session(&workspace, &agent);
    let copy = || File {
        session: Some(session.id.clone()),
        ..file(&workspace)
    };
    let other = WorkspaceId::generate();
    let (first, second) = (copy(), copy());
    session.files = vec![first.clone()];
    session.resources = vec![resource(&first)];
    store.create_session(&session, None).await.unwrap();
    let id = &session.id;
    assert_eq!(
        store.file(&workspace, &first.id).await.unwrap(),
        Some(first.clone())
    );
    let given = resource(&second);
    store
        .add_resource(&workspace, id, &given, &second, 2, ROOM)
        .await
        .unwrap();
    let all = vec![session.resources[0].clone(), given.clone()];
    assert_eq!(store.resources(&workspace, id).await.unwrap(), all);
    assert_eq!(
        store.session(&workspace, id).await.unwrap().unwrap().resources,
        all
    );

    let changed = Resource {
        spec: Spec::Repository {
            url: "https://git.example/a".to_owned(),
            token: Some(Sealed::new("1.sealed".to_owned())),
            checkout: None,
            mount_path: "/workspace/a".to_owned(),
        },
        updated_at: Timestamp(given.updated_at.0 + 1),
        ..given.clone()
    };
    let stranger = Resource {
        id: ResourceId::generate(),
        ..changed.clone()
    };
    let others = [(&other, &changed), (&workspace, &stranger)];
    for (workspace, resource) in others {
        assert!(!store.update_resource(workspace, id, resource).await.unwrap());
    }
    assert_eq!(store.resources(&workspace, id).await.unwrap(), all);
    assert!(store.update_resource(&workspace, id, &changed).await.unwrap());
    assert_eq!(store.resources(&workspace, id).await.unwrap()[1], changed);
    assert!(store.update_resource(&workspace, id, &given).await.unwrap());

    let third = copy();
    let refused = store
        .add_resource(&workspace, id, &resource(&third), &third, 2, ROOM)
        .await;
    assert_refused!(refused, Error::TooMany(2));
    let refused = store
        .add_resource(&workspace, id, &resource(&third), &third, 9, 2_500)
        .await;
    assert_refused!(refused, Error::NoRoom(2_500));
    let refused = store
        .add_resource(&other, id, &resource(&third), &third, 9, ROOM)
        .await;
    assert_refused!(refused, Error::NotFound);
    assert_eq!(store.file(&workspace, &third.id).await.unwrap(), None);

    assert_eq!(store.remove_resource(&other, id, &given.id).await.unwrap(), None);
    assert!(store.resources(&other, id).await.unwrap().is_empty());
    assert_eq!(
        store.remove_resource(&workspace, id, &given.id).await.unwrap(),
        Some(given.clone())
    );
    assert_eq!(
        store.remove_resource(&workspace, id, &given.id).await.unwrap(),
        None
    );
    assert!(is_released(&store, &second).await);
    assert_eq!(store.resources(&workspace, id).await.unwrap(), all[..1]);
}

/// With a session go its copies and what it has made.
pub async fn deletion(store: Arc<dyn Store>) {
    let (workspace, session) = stored_session(&store).await;
    let uploaded = file(&workspace);
    store.add_file(&uploaded, ROOM, None).await.unwrap();
    let own = || File {
        session: Some(session.clone()),
        ..file(&workspace)
    };
    let (copy, made) = (own(), own());
    store
        .add_resource(&workspace, &session, &resource(&copy), &copy, 9, ROOM)
        .await
        .unwrap();
    store.put_output(&made, &session, "a", "1", ROOM).await.unwrap();
    assert!(store.delete_session(&workspace, &session).await.unwrap());
    for file in [&copy, &made] {
        assert_eq!(store.file(&workspace, &file.id).await.unwrap(), None);
        assert!(is_released(&store, file).await);
    }
    assert!(store.file(&workspace, &uploaded.id).await.unwrap().is_some());
    assert!(!is_released(&store, &uploaded).await);
    assert!(store.resources(&workspace, &session).await.unwrap().is_empty());
}

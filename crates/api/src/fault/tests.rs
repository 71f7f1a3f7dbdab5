use oma_domain::event::{Failure, FailureKind};
use oma_domain::quota::Exceeded;

use oma_engine::files::Error as Kept;

use super::*;

#[test]
fn every_error_has_its_status_and_code() {
    let failure = Failure {
        kind: FailureKind::ModelUnavailable,
        message: "no key".into(),
    };
    for (error, status, code) in [
        (Error::AgentNotFound, 404, "agent_not_found"),
        (Error::EnvironmentNotFound, 404, "environment_not_found"),
        (Error::SessionNotFound, 404, "session_not_found"),
        (Error::DeploymentNotFound, 404, "deployment_not_found"),
        (Error::DeploymentArchived, 409, "deployment_archived"),
        (Error::TooManyDeployments(1), 409, "too_many_deployments"),
        (Error::WebhookNotFound, 404, "webhook_not_found"),
        (Error::TooManyWebhooks(1), 409, "too_many_webhooks"),
        (Error::RunNotFound, 404, "deployment_run_not_found"),
        (Error::WorkspaceNotFound, 404, "workspace_not_found"),
        (Error::AuditNotFound, 404, "audit_not_found"),
        (Error::ApiKeyNotFound, 404, "key_not_found"),
        (Error::ApiKeyRevoked, 409, "key_revoked"),
        (Error::TooManyKeys(1), 409, "too_many_keys"),
        (Error::SecretShown, 409, "secret_shown"),
        (Error::TooManySessions(1), 429, "quota_exceeded"),
        (Error::TooManyUsers(1), 429, "signup_full"),
        (Error::UserExists, 409, "user_exists"),
        (Error::UserNotFound, 404, "user_not_found"),
        (
            Error::Vault(oma_vault::Error::VaultNotFound),
            404,
            "vault_not_found",
        ),
        (
            Error::Vault(oma_vault::Error::CredentialNotFound),
            404,
            "credential_not_found",
        ),
        (
            Error::Vault(oma_vault::Error::VaultArchived),
            409,
            "vault_archived",
        ),
        (
            Error::Vault(oma_vault::Error::CredentialArchived),
            409,
            "credential_archived",
        ),
        (
            Error::Vault(oma_vault::Error::CredentialExists),
            409,
            "credential_exists",
        ),
        (
            Error::Vault(oma_vault::Error::TooManyCredentials(100)),
            409,
            "too_many_credentials",
        ),
        (
            Error::Vault(oma_vault::Error::Store(oma_store::Error::Full)),
            507,
            "disk_full",
        ),
        (MemoryError::StoreNotFound.into(), 404, "memory_store_not_found"),
        (SkillError::NotFound.into(), 404, "skill_not_found"),
        (SkillError::VersionNotFound.into(), 404, "skill_version_not_found"),
        (SkillError::HasVersions(1).into(), 409, "skill_has_versions"),
        (SkillError::TooMany(1).into(), 409, "too_many_skills"),
        (
            SkillError::TooManyVersions(1).into(),
            409,
            "too_many_skill_versions",
        ),
        (MemoryError::NotFound.into(), 404, "memory_not_found"),
        (
            MemoryError::VersionNotFound.into(),
            404,
            "memory_version_not_found",
        ),
        (MemoryError::StoreArchived.into(), 409, "memory_store_archived"),
        (
            MemoryError::PreconditionFailed.into(),
            409,
            "memory_precondition_failed",
        ),
        (MemoryError::TooMany(1).into(), 409, "too_many_memories"),
        (
            MemoryError::TooManyStores(1).into(),
            409,
            "too_many_memory_stores",
        ),
        (MemoryError::VersionInUse.into(), 409, "memory_version_in_use"),
        (Error::AgentArchived, 409, "agent_archived"),
        (
            Error::VersionConflict {
                expected: 1,
                actual: 2,
            },
            409,
            "version_conflict",
        ),
        (Error::EnvironmentExists, 409, "environment_exists"),
        (Error::EnvironmentArchived, 409, "environment_archived"),
        (Error::EnvironmentInUse(2), 409, "environment_in_use"),
        (Error::SessionExists, 409, "session_exists"),
        (
            Error::Unsupported {
                field: "tools",
                message: "none".into(),
            },
            400,
            "unsupported",
        ),
        (
            Error::InvalidModel("there is no provider".into()),
            400,
            "invalid_model",
        ),
        (Error::Rejected(Rejection::NotRunning), 409, "session_not_running"),
        (Error::Rejected(Rejection::Busy), 409, "session_busy"),
        (
            Error::Rejected(Rejection::QuotaExceeded(Exceeded::Cost)),
            429,
            "quota_exceeded",
        ),
        (Error::Rejected(Rejection::QueueFull), 429, "queue_full"),
        (
            Error::Rejected(Rejection::NotAwaited),
            409,
            "tool_result_not_awaited",
        ),
        (
            Error::Rejected(Rejection::AwaitsAnswers(Vec::new())),
            409,
            "awaits_answers",
        ),
        (Error::Rejected(Rejection::Archived), 409, "session_archived"),
        (Error::Rejected(Rejection::NotAsking), 409, "confirm_tool_failed"),
        (
            Error::Rejected(Rejection::TooManyThreads),
            409,
            "too_many_threads",
        ),
        (
            Error::Rejected(Rejection::TooManyRuns),
            409,
            "too_many_workflow_runs",
        ),
        (Error::Rejected(Rejection::RunOpen), 409, "workflow_run_open"),
        (Error::Rejected(Rejection::NoThread), 404, "thread_not_found"),
        (Error::Rejected(Rejection::OfThread), 409, "session_is_a_thread"),
        (
            Error::Rejected(Rejection::NothingToCompact),
            409,
            "nothing_to_compact",
        ),
        (
            Error::Rejected(Rejection::TooManyChildren),
            409,
            "too_many_children",
        ),
        (Error::InvalidParentToken, 403, "invalid_parent_token"),
        (Error::AgentNotAllowed, 403, "agent_not_in_allowlist"),
        (Error::MaxDepth, 403, "max_subagent_depth_reached"),
        (Error::NotParentsEnvironment, 403, "forbidden"),
        (Error::KeyReused, 422, "idempotency_key_reused"),
        (Error::File(files::Error::NotFound), 404, "file_not_found"),
        (Error::Files(Kept::NotFound), 404, "file_not_found"),
        (Error::Files(Kept::Expired), 404, "file_expired"),
        (Error::Files(Kept::NotDownloadable), 400, "file_not_downloadable"),
        (Error::Files(Kept::TooLarge(1)), 413, "file_too_large"),
        (Error::Files(Kept::NoRoom(1)), 507, "storage_quota_exceeded"),
        (Error::Files(Kept::ResourceNotFound), 404, "resource_not_found"),
        (Error::Files(Kept::TooManyResources(1)), 409, "too_many_resources"),
        (
            Error::File(files::Error::InvalidPath("x".into())),
            400,
            "invalid_path",
        ),
        (Error::File(files::Error::TooLarge(1)), 413, "file_too_large"),
        (Error::File(files::Error::Full), 507, "workspace_full"),
        (
            Error::File(files::Error::Io(std::io::Error::other("/secret/path"))),
            500,
            "internal",
        ),
        (Error::CompactionFailed(failure), 502, "compact_failed"),
        (Error::Unavailable("stopping".into()), 503, "unavailable"),
        (Error::DiskFull, 507, "disk_full"),
        (Error::ReadOnly, 503, "read_only"),
        (Error::Internal("/secret/path".into()), 500, "internal"),
    ] {
        let name = format!("{error:?}");
        let fault = Fault::from(error);
        assert_eq!((fault.status().as_u16(), fault.code()), (status, code), "{name}");
        assert!(
            !fault.message().is_empty() && !fault.message().contains("/secret"),
            "{name}"
        );
    }
}

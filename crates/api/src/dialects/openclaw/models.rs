//! The models that agents may name. One answer serves both kinds of client: it has the native fields and those
//! of OpenAI's list, so that no client has to say what it is.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use oma_engine::ModelInfo;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use crate::AppState;
use crate::auth::Caller;
use crate::fault::{Fault, Result};
use crate::params::segment;

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// A model, as native clients read it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ModelView {
    /// `provider/model`.
    id: String,
    provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
    /// In tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    context_length: Option<u64>,
    /// For example `text`, `image`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    input_modalities: Vec<String>,
}

/// A model, as OpenAI's clients read it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OpenaiModel {
    /// `provider/model`.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// Always 0: when a model was made is not known.
    created: i64,
    /// The provider.
    owned_by: String,
}

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// Always `catalog`: the server's own list.
    source: &'static str,
    models: Vec<ModelView>,
    count: usize,
    /// Always `list`.
    object: &'static str,
    /// The same models for OpenAI's clients.
    data: Vec<OpenaiModel>,
}

/// One model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDetail {
    #[serde(flatten)]
    model: ModelView,
    /// Always `model`.
    object: &'static str,
    /// Always 0: when a model was made is not known.
    created: i64,
    /// The provider.
    owned_by: String,
}

impl ModelView {
    fn of(model: ModelInfo) -> Self {
        let ModelInfo {
            id,
            provider,
            name,
            context_window,
            input_modalities,
        } = model;
        Self {
            id,
            provider,
            name,
            context_length: context_window,
            input_modalities,
        }
    }
}

impl OpenaiModel {
    fn of(model: &ModelView) -> Self {
        Self {
            id: model.id.clone(),
            object: "model",
            created: 0,
            owned_by: model.provider.clone(),
        }
    }
}

/// List models.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, body = ModelList)))]
async fn list(State(state): State<AppState>, _: Caller) -> Json<ModelList> {
    let models: Vec<ModelView> = state.engine.models().into_iter().map(ModelView::of).collect();
    let data = models.iter().map(OpenaiModel::of).collect();
    Json(ModelList {
        source: "catalog",
        count: models.len(),
        models,
        object: "list",
        data,
    })
}

/// The model that the path names; it may have slashes.
struct ModelPath(String);

impl<S: Send + Sync> FromRequestParts<S> for ModelPath {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        segment(parts, "model", state).await.map(Self)
    }
}

/// Read a model.
#[utoipa::path(
    get, path = "/v1/models/{*model}", tag = "models",
    params(("model" = String, Path, description = "`provider/model`")),
    responses((status = 200, body = ModelDetail), (status = 404, body = ErrorBody)),
)]
async fn get(
    State(state): State<AppState>,
    _: Caller,
    ModelPath(id): ModelPath,
) -> Result<Json<ModelDetail>> {
    let found = state.engine.models().into_iter().find(|model| model.id == id);
    let model = found.map(ModelView::of).ok_or_else(|| {
        Fault::new(
            StatusCode::NOT_FOUND,
            "model_not_found",
            "No model of this server has this name",
        )
    })?;
    let owned_by = model.provider.clone();
    Ok(Json(ModelDetail {
        model,
        object: "model",
        created: 0,
        owned_by,
    }))
}

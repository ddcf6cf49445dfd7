//! What plugins may take, as it is and as an operator changes it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use jackfield_loader::Quotas;
use plugin_api::Error;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::plugins::board;
use crate::app::App;
use crate::body::read_json;
use crate::error::ApiError;
use crate::params::{Fields, read_one};
use crate::routes::responses::Errors;

/// What plugins from files may take. In a request, what is left out stays as it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaSettings {
    /// Native plugins that may be mapped.
    #[schema(maximum = 16_000)]
    native_mapped: Option<u32>,
    /// Most memory of one component, in MiB.
    #[schema(minimum = 1, maximum = 4096)]
    memory_mib: Option<u32>,
    /// How long one call of an untrusted component may take, in milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    call_ms: Option<u32>,
    /// How long making an untrusted component may take, in milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    create_ms: Option<u32>,
    /// How long an untrusted model source may take for a model, in milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    fetch_ms: Option<u32>,
    /// Instances of components at a time, of trusted and of untrusted ones each; not more than at the
    /// start.
    #[schema(minimum = 1)]
    instances: Option<u32>,
}

/// What may plugins take?
#[utoipa::path(
    get,
    path = "/quotas",
    tag = "Plugins",
    responses((status = 200, description = "All of it", body = QuotaSettings), Errors),
)]
pub(crate) async fn read(State(app): State<Arc<App>>) -> Result<Json<QuotaSettings>, ApiError> {
    Ok(Json(QuotaSettings::of(&board(&app)?.plugins.loader().quotas())))
}

/// Change what plugins may take, from their next call on, until the configuration changes it.
#[utoipa::path(
    post,
    path = "/quotas",
    tag = "Plugins",
    request_body = QuotaSettings,
    responses((status = 200, description = "As it is then", body = QuotaSettings), Errors),
)]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<QuotaSettings>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<QuotaSettings>);
    let (parts, body) = request.into_parts();
    let asked: QuotaSettings = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    asked.check()?;
    let plugins = board(&app)?.plugins;
    let loader = plugins.loader();
    loader.set_quotas(&asked.over(loader.quotas())).map_err(|error| match error {
        Error::Config { key, expected, found } => {
            let param = key.trim_start_matches("quotas.");
            ApiError::invalid(param, &expected, &found)
        }
        other => ApiError::failed(&other.to_string()),
    })?;
    Ok(Json(QuotaSettings::of(&loader.quotas())))
}

impl QuotaSettings {
    fn of(quotas: &Quotas) -> Self {
        let number = |n: usize| Some(u32::try_from(n).unwrap_or(u32::MAX));
        let ms = |time: Duration| Some(u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        Self {
            native_mapped: number(quotas.native_mapped),
            memory_mib: number(quotas.memory_bytes >> 20),
            call_ms: ms(quotas.call),
            create_ms: ms(quotas.create),
            fetch_ms: ms(quotas.fetch),
            instances: number(quotas.instances),
        }
    }

    /// Refuses what the description of the fields rules out.
    fn check(&self) -> Result<(), ApiError> {
        let ms = 1..=86_400_000;
        for (param, value, range) in [
            ("native_mapped", self.native_mapped, 0..=16_000),
            ("memory_mib", self.memory_mib, 1..=4096),
            ("call_ms", self.call_ms, ms.clone()),
            ("create_ms", self.create_ms, ms.clone()),
            ("fetch_ms", self.fetch_ms, ms),
        ] {
            if let Some(found) = value.filter(|value| !range.contains(value)) {
                let expected = format!("a number in {}..={}", range.start(), range.end());
                return Err(ApiError::invalid(param, &expected, &found.to_string()));
            }
        }
        Ok(())
    }

    fn over(&self, now: Quotas) -> Quotas {
        let number = |asked: Option<u32>, now: usize| asked.map_or(now, |n| n as usize);
        let ms = |asked: Option<u32>, now: Duration| {
            asked.map_or(now, |n| Duration::from_millis(n.into()))
        };
        Quotas {
            native_mapped: number(self.native_mapped, now.native_mapped),
            memory_bytes: self.memory_mib.map_or(now.memory_bytes, |mib| (mib as usize) << 20),
            call: ms(self.call_ms, now.call),
            create: ms(self.create_ms, now.create),
            fetch: ms(self.fetch_ms, now.fetch),
            instances: number(self.instances, now.instances),
        }
    }
}

//! The document, made once when a server is made.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web::{Bytes, Data},
};
use sha2::{Digest, Sha256};
use utoipa::openapi::{
    HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem, Paths, Response,
    path::OperationBuilder, tag::TagBuilder,
};

use super::doc::Tag;
use crate::http::{dto, error::Problem, table::Row};

/// The document as it is served.
pub(in crate::http) struct Described {
    text: Bytes,
    etag: String,
}

impl Described {
    /// Describes a table.
    ///
    /// # Errors
    /// The document can't be written as JSON.
    pub(in crate::http) fn of(table: &[Row]) -> serde_json::Result<Self> {
        let text = serde_json::to_vec(&describe(table))?;
        let hex: String = Sha256::digest(&text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { text: text.into(), etag: format!("\"{hex}\"") })
    }
}

/// Serves it.
pub(in crate::http) async fn openapi(
    request: HttpRequest,
    described: Data<Described>,
) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let etag = (header::ETAG, described.etag.as_str());
    let held = request.headers().get(header::IF_NONE_MATCH).and_then(|held| held.to_str().ok()).unwrap_or("");
    if held.split(',').any(|held| held.trim().trim_start_matches("W/") == described.etag) {
        return Ok(HttpResponse::NotModified().insert_header(etag).finish());
    }
    let mut response = HttpResponse::Ok();
    response.insert_header(etag).insert_header((header::CONTENT_TYPE, "application/json"));
    Ok(response.body(described.text.clone()))
}

fn describe(table: &[Row]) -> OpenApi {
    let license = LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build();
    let info = InfoBuilder::new()
        .title("Hivekeeper")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(env!("CARGO_PKG_DESCRIPTION")))
        .license(Some(license));
    let tags = Tag::ALL.map(|tag| TagBuilder::new().name(tag.word()).description(Some(tag.text())).build());
    let mut paths = Paths::new();
    for row in table {
        let Some(method) = method(&row.method) else { continue };
        let operation = OperationBuilder::new()
            .operation_id(Some(row.doc.id.as_str()))
            .tag(row.doc.tag.word())
            .summary(Some(row.doc.summary.as_str()))
            .response("default", Response::new("The answer."));
        match paths.paths.get_mut(&row.path) {
            Some(item) => item.merge_operations(PathItem::new(method, operation)),
            None => drop(paths.paths.insert(row.path.clone(), PathItem::new(method, operation))),
        }
    }
    OpenApiBuilder::new().info(info.build()).tags(Some(tags)).paths(paths).build()
}

fn method(method: &Method) -> Option<HttpMethod> {
    match *method {
        Method::GET => Some(HttpMethod::Get),
        Method::POST => Some(HttpMethod::Post),
        Method::PUT => Some(HttpMethod::Put),
        Method::DELETE => Some(HttpMethod::Delete),
        _ => None,
    }
}

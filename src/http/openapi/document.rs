//! The document, made once when a server is made.

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web::{Bytes, Data},
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{
        Components, ComponentsBuilder, Content, ContentBuilder, Header, HttpMethod, InfoBuilder, LicenseBuilder,
        ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, Paths, Ref, RefOr, Required, Response, ResponseBuilder,
        Responses, Schema, SchemaFormat, ServerBuilder,
        path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{AllOfBuilder, OneOfBuilder, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
        tag::TagBuilder,
    },
};

use super::doc::{Answer, Tag};
use crate::{
    http::{
        dto,
        error::{Code, Problem},
        table::{Row, Scope},
    },
    view::{PROBLEM_JSON, ProblemView, schema::NAME},
};

/// The document as it is served.
pub(in crate::http) struct Described {
    text: Bytes,
    etag: String,
}

impl Described {
    /// Describes a table, of a daemon that asks for tokens or of one that asks nobody.
    ///
    /// # Errors
    /// The document can't be written as JSON.
    pub(in crate::http) fn of(table: &[Row], asks_for_tokens: bool) -> serde_json::Result<Self> {
        let mut document = describe(table, asks_for_tokens);
        let components = Parts::of(document.components.take().unwrap_or_default(), table)?;
        let text = serde_json::to_vec(&Whole { document, components })?;
        let hex: String = Sha256::digest(&text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { text: text.into(), etag: format!("\"{hex}\"") })
    }
}

/// The document, whose components are of two kinds.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    document: OpenApi,
    components: Parts,
}

/// The components: schemas of our types, and those that are JSON already.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    schemas: BTreeMap<String, Box<RawValue>>,
    security_schemes: Box<RawValue>,
}

impl Parts {
    fn of(components: Components, table: &[Row]) -> serde_json::Result<Self> {
        let mut schemas = BTreeMap::new();
        for (name, schema) in table.iter().flat_map(|row| &row.doc.ready_made) {
            schemas.insert(name.clone(), to_raw_value(schema)?);
        }
        // Of two that have one name, ours has its members in our order.
        for (name, schema) in &components.schemas {
            schemas.insert(name.clone(), to_raw_value(schema)?);
        }
        Ok(Self { schemas, security_schemes: to_raw_value(&components.security_schemes)? })
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

/// What every client should know before it reads on.
const ABOUT: &str = "\
Keeps swarms of AI agents alive. A change of swarms and agents is answered with 202 and the operation that it became, or, with `?wait=`, with 200 once that has ended; \
work that agents share (tasks, locks, messages) with 200 once it is done and written down. \
Every refusal is a problem document (RFC 9457) with a stable `code`; `/api/v1/problems` explains them all. HEAD is answered wherever GET is, save on \
streams without end; any other method is a 405 whose `Allow` names those which are. A daemon that asks for tokens wants one everywhere but on probes \
without a query. Answers may grow members: ignore what you don't know.";
const BEARER: &str = "bearer";

fn describe(table: &[Row], asks_for_tokens: bool) -> OpenApi {
    let license = LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build();
    let info = InfoBuilder::new()
        .title("Hivekeeper")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license));
    let tags = Tag::ALL.map(|tag| TagBuilder::new().name(tag.word()).description(Some(tag.text())).build());
    let here = ServerBuilder::new().url("/").description(Some("The daemon that serves this document."));
    let mut paths = Paths::new();
    let mut schemas = vec![(ProblemView::name().into_owned(), ProblemView::schema())];
    ProblemView::schemas(&mut schemas);
    for row in table {
        let Some(method) = method(&row.method) else { continue };
        row.doc.schemas.iter().for_each(|collect| collect(&mut schemas));
        let item = PathItem::new(method, operation(row, asks_for_tokens));
        match paths.paths.get_mut(&row.path) {
            Some(path) => path.merge_operations(item),
            None => drop(paths.paths.insert(row.path.clone(), item)),
        }
    }
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of the scope `read` may look, one of the scope `control` may do everything."))
        .build();
    schemas.sort_by(|(a, _), (b, _)| a.cmp(b));
    schemas.dedup_by(|(a, _), (b, _)| a == b);
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(BEARER, SecurityScheme::Http(bearer))
        .build();
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([here.build()]))
        .tags(Some(tags))
        .paths(paths)
        .components(Some(components))
        .build()
}

fn operation(row: &Row, asks_for_tokens: bool) -> Operation {
    let doc = &row.doc;
    let token = |scope| SecurityRequirement::new(BEARER, [scope]);
    let security = match row.scope {
        _ if !asks_for_tokens => Vec::new(),
        Scope::Open => vec![SecurityRequirement::default(), token("read")],
        Scope::Read => vec![token("read")],
        Scope::Control => vec![token("control")],
    };
    let names = row.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let body = doc.body.as_ref().map(|(schema, example)| {
        let content = ContentBuilder::new().schema(Some(schema.clone())).example(Some(example.clone())).build();
        RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True)).build()
    });
    let mut responses: BTreeMap<u16, Response> = BTreeMap::new();
    for answer in &doc.answers {
        let response = answer_response(answer);
        match responses.get_mut(&answer.status) {
            Some(before) => merge(before, response),
            None => drop(responses.insert(answer.status, response)),
        }
    }
    for (status, codes) in problems(row) {
        let (text, content) = (refusal_text(&codes), refusal_content(&codes));
        let response = responses.entry(status).or_insert_with(|| Response::new(""));
        response.description = format!("{} {text}", response.description).trim().to_owned();
        response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(content));
        for (header, text) in refusal_headers(status) {
            response.headers.insert((*header).to_owned(), RefOr::T(sent(text)));
        }
    }
    OperationBuilder::new()
        .operation_id(Some(doc.id.as_str()))
        .tag(doc.tag.word())
        .summary(Some(doc.summary.as_str()))
        .description(doc.text)
        .parameters(Some(names.map(path_parameter).chain(doc.parameters.iter().cloned())))
        .request_body(body)
        .responses(responses.into_iter().fold(Responses::new(), |mut all, (status, response)| {
            all.responses.insert(status.to_string(), RefOr::T(response));
            all
        }))
        .securities(Some(security))
        .build()
}

fn path_parameter(name: &str) -> Parameter {
    let (schema, text, example) = match name {
        "swarm" => (super::text(NAME), "The name of a swarm.", "review"),
        "agent" => (super::text(NAME), "The name of an agent within its swarm.", "coder-1"),
        "id" => (uuid(), "The id of what is meant.", "0199a1b2-0000-7000-8000-000000000002"),
        "operation" => (uuid(), "The id of an operation.", "0199a1b2-0000-7000-8000-000000000001"),
        "notifier" => (super::text(NAME), "The name of a notifier.", "oncall"),
        "token" => (super::text("^[0-9a-f]{12}$"), "The id of a token.", "0a1b2c3d4e5f"),
        _ => (super::text("^[^/]+$"), "An id.", "0199a1b2-0000-7000-8000-000000000001"),
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(text))
        .schema(Some(schema))
        .example(Some(example.into()))
        .build()
}

fn uuid() -> Schema {
    let format = SchemaFormat::Custom("uuid".to_owned());
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build().into()
}

fn answer_response(answer: &Answer) -> Response {
    let mut response = ResponseBuilder::new().description(answer.text);
    for (media_type, schema) in &answer.content {
        response = response.content(*media_type, ContentBuilder::new().schema(Some(schema.clone())).build());
    }
    answer.headers.iter().fold(response, |response, (name, text)| response.header(*name, sent(text))).build()
}

/// One status with two answers: what the one holds or what the other does, never both. Headers of one of them alone are not promised.
fn merge(before: &mut Response, other: Response) {
    before.description = format!("{} Or: {}", before.description, other.description);
    before.headers.retain(|name, _| other.headers.contains_key(name));
    for (media_type, content) in other.content {
        let either = match (before.content.get(&media_type), &content) {
            (Some(RefOr::T(Content { schema: Some(one), .. })), RefOr::T(Content { schema: Some(two), .. })) => {
                let schema = OneOfBuilder::new().item(one.clone()).item(two.clone()).build();
                RefOr::T(ContentBuilder::new().schema(Some(Schema::from(schema))).build())
            }
            _ => content,
        };
        before.content.insert(media_type, either);
    }
}

/// A header of an answer.
fn sent(text: &str) -> Header {
    let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
    header.description = Some(text.to_owned());
    header
}

/// What a route may refuse with, by status.
fn problems(row: &Row) -> BTreeMap<u16, Vec<Code>> {
    let mut codes = vec![
        Code::InvalidRequest,
        Code::InvalidQuery,
        Code::Unauthorized,
        Code::InvalidToken,
        Code::OriginRefused,
        Code::HostRefused,
        Code::RateLimited,
        Code::Internal,
    ];
    if row.scope == Scope::Control {
        codes.push(Code::Forbidden);
    }
    if row.path.contains('{') {
        codes.push(Code::NotFound);
    }
    if row.doc.body.is_some() {
        codes.extend([Code::InvalidBody, Code::RequestTimeout, Code::BodyTooLarge, Code::UnsupportedMediaType]);
    }
    codes.extend_from_slice(&row.doc.problems);
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        let of_status = by_status.entry(code.status().as_u16()).or_default();
        if !of_status.contains(&code) {
            of_status.push(code);
        }
    }
    by_status
}

fn refusal_text(codes: &[Code]) -> String {
    codes.iter().map(|code| format!("`{}`: {}", code.word(), code.meaning())).collect::<Vec<_>>().join(" ")
}

fn refusal_content(codes: &[Code]) -> Content {
    let words: Vec<&str> = codes.iter().map(|code| code.word()).collect();
    let ours = ObjectBuilder::new().property("code", super::words(&words)).required("code");
    let schema = AllOfBuilder::new().item(Ref::from_schema_name(ProblemView::name())).item(ours);
    ContentBuilder::new().schema(Some(Schema::from(schema.build()))).build()
}

/// Headers that come with every refusal of a status.
fn refusal_headers(status: u16) -> &'static [(&'static str, &'static str)] {
    match status {
        401 => &[("WWW-Authenticate", "How to identify oneself.")],
        429 | 503 => &[("Retry-After", "Seconds after which it is worth to try again.")],
        426 => &[("Upgrade", "The protocol that is spoken here.")],
        _ => &[],
    }
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

//! What a row of the table of routes is. A route is its method, its path, who may use it, what it does and who serves it; none of these can be left out.

use actix_web::{
    FromRequest, Handler, Responder, Route,
    dev::ResourceDef,
    guard,
    http::Method,
    web::{self, ServiceConfig},
};

use super::{error::Problem, openapi::Doc};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everybody, as long as no details are asked for: with a query it needs what [`Scope::Read`] needs.
    Open,
    /// Whoever may look.
    Read,
    /// Whoever may change something.
    Control,
}

/// One row. The handler is erased; a table is made for each worker.
pub(super) struct Row {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) scope: Scope,
    pub(super) doc: Doc,
    /// The methods that it answers, as `Allow` names them.
    allow: &'static str,
    route: Route,
}

/// Who serves a route.
pub(super) trait Serves<Args>: Handler<Args, Output: Responder + 'static> {}

impl<Args, F: Handler<Args, Output: Responder + 'static>> Serves<Args> for F {}

/// A route that is read. It answers HEAD, too.
pub(super) fn get<Args: FromRequest + 'static>(path: &str, scope: Scope, handler: impl Serves<Args>, doc: Doc) -> Row {
    let reads = guard::Any(guard::Get()).or(guard::Head());
    row(Method::GET, "GET, HEAD", web::route().guard(reads), path, scope, handler, doc)
}

/// A route that is watched: its answer has no end, so there is no HEAD of it.
pub(super) fn watch<Args: FromRequest + 'static>(
    path: &str,
    scope: Scope,
    handler: impl Serves<Args>,
    doc: Doc,
) -> Row {
    row(Method::GET, "GET", web::get(), path, scope, handler, doc)
}

/// A route that is posted to.
pub(super) fn post<Args: FromRequest + 'static>(path: &str, scope: Scope, handler: impl Serves<Args>, doc: Doc) -> Row {
    row(Method::POST, "POST", web::post(), path, scope, handler, doc)
}

/// A route that is put.
pub(super) fn put<Args: FromRequest + 'static>(path: &str, scope: Scope, handler: impl Serves<Args>, doc: Doc) -> Row {
    row(Method::PUT, "PUT", web::put(), path, scope, handler, doc)
}

/// A route that is deleted.
pub(super) fn delete<Args: FromRequest + 'static>(
    path: &str,
    scope: Scope,
    handler: impl Serves<Args>,
    doc: Doc,
) -> Row {
    row(Method::DELETE, "DELETE", web::delete(), path, scope, handler, doc)
}

fn row<Args: FromRequest + 'static>(
    method: Method,
    allow: &'static str,
    route: Route,
    path: &str,
    scope: Scope,
    handler: impl Serves<Args>,
    doc: Doc,
) -> Row {
    Row { method, path: path.to_owned(), scope, doc, allow, route: route.to(handler) }
}

/// Registers every row. A method that no row of a path has is a 405 that names those which are there.
pub(super) fn register(table: Vec<Row>, config: &mut ServiceConfig) {
    let mut paths: Vec<(String, Vec<Row>)> = Vec::new();
    for row in table {
        match paths.iter_mut().find(|(path, _)| *path == row.path) {
            Some((_, rows)) => rows.push(row),
            None => paths.push((row.path.clone(), vec![row])),
        }
    }
    for (path, rows) in paths {
        let allow = rows.iter().map(|row| row.allow).collect::<Vec<_>>().join(", ");
        let refuse = move || {
            let problem = Problem::method_not_allowed(allow.clone());
            async move { Err::<&'static str, _>(problem) }
        };
        let resource = web::resource(path).default_service(web::to(refuse));
        config.service(rows.into_iter().fold(resource, |resource, row| resource.route(row.route)));
    }
}

/// Which scope a request needs, before anything is served.
#[derive(Debug)]
pub(super) struct Scopes(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    slashes: usize,
    path: ResourceDef,
    method: Method,
    scope: Scope,
}

impl Scopes {
    pub(super) fn of(table: &[Row]) -> Self {
        let rules = table.iter().map(|row| Rule {
            slashes: slashes(&row.path),
            path: ResourceDef::new(row.path.as_str()),
            method: row.method.clone(),
            scope: row.scope,
        });
        Self(rules.collect())
    }

    /// The scope for a method on a path, written as the router sees it (`request.match_info().unprocessed()`). Where there is no such route the
    /// answer is a 404 or a 405, which whoever may look may see.
    pub(super) fn needed(&self, method: &Method, path: &str) -> Scope {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let slashes = slashes(path);
        let rule =
            self.0.iter().find(|rule| rule.slashes == slashes && rule.method == *method && rule.path.is_match(path));
        rule.map_or(Scope::Read, |rule| rule.scope)
    }

    /// Whether there is a route with this path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.iter().any(|rule| rule.slashes == slashes(path) && rule.path.is_match(path))
    }
}

/// A parameter never holds a slash, so only paths with as many can match: most rules are told apart by this alone.
fn slashes(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::routes, tools::Effect};

    #[test]
    fn a_request_needs_the_scope_of_its_row() {
        let scopes = Scopes::of(&routes::table());
        for (method, path, scope) in [
            (Method::GET, "/livez", Scope::Open),
            (Method::HEAD, "/readyz", Scope::Open),
            (Method::GET, "/metrics", Scope::Read),
            (Method::GET, "/api/v1/swarms/a", Scope::Read),
            (Method::HEAD, "/api/v1/swarms/a", Scope::Read),
            (Method::POST, "/api/v1/swarms/a/restart", Scope::Control),
            (Method::POST, "/api/v1/swarms/a/agents/b/stop", Scope::Control),
            (Method::POST, "/api/v1/reconcile", Scope::Control),
            (Method::GET, "/ws/hybrid-health", Scope::Read),
            (Method::POST, "/nowhere", Scope::Read),
            (Method::POST, "/livez", Scope::Read),
        ] {
            assert_eq!(scopes.needed(&method, path), scope, "{method} {path}");
        }
    }

    #[test]
    fn nothing_but_probes_and_manual_is_open_and_nothing_that_changes_is_for_readers() {
        for row in routes::table() {
            let open = ["/livez", "/readyz", "/api/v1/problems"].contains(&row.path.as_str());
            assert_eq!(row.scope == Scope::Open, open, "{}", row.path);
            // A ticket lets its holder look, and no more than the token that it was asked for with; MCP's tools ask for the scope themselves.
            let elsewhere = ["/api/v1/tickets", "/mcp"].contains(&row.path.as_str());
            let reads = crate::tools::find(&row.doc.id).is_some_and(|tool| tool.effect == Effect::Reads);
            let changes = row.method != Method::GET && !elsewhere && !reads;
            assert!(row.scope == Scope::Control || !changes, "{} {}", row.method, row.path);
        }
    }

    #[test]
    fn no_row_is_there_twice_and_no_two_operations_have_one_name() {
        let table = routes::table();
        let mut rows: Vec<_> = table.iter().map(|row| (row.path.clone(), row.method.to_string())).collect();
        let mut names: Vec<_> = table.iter().map(|row| row.doc.id.clone()).collect();
        let all = table.len();
        rows.sort();
        rows.dedup();
        names.sort();
        names.dedup();
        assert_eq!((rows.len(), names.len()), (all, all));
    }
}

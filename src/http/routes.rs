//! The whole table. A path that is not here is a 404, a method that is not here is a 405 that names those which are.

use actix_web::{FromRequest, Handler, Responder, guard, web, web::ServiceConfig};

use super::{
    commands::{self, Verb},
    error::{Code, Problem},
    events, history, logs, metrics, operations, probes, reconcile, swarms, tree,
};

/// Registers every route.
pub(super) fn table(config: &mut ServiceConfig) {
    get(config, "/livez", probes::livez);
    get(config, "/readyz", probes::readyz);
    get(config, "/api/v1/health", probes::health);
    get(config, "/metrics", metrics::metrics);

    get(config, "/api/v1/swarms", swarms::list);
    get(config, "/api/v1/swarms/{swarm}", swarms::show);
    get(config, "/api/v1/swarms/{swarm}/agents/{agent}", swarms::agent);
    get(config, "/api/v1/swarms/{swarm}/agents/{agent}/logs", logs::logs);
    get(config, "/api/v1/swarms/{swarm}/history", history::swarm);
    get(config, "/api/v1/swarms/{swarm}/agents/{agent}/history", history::agent);
    for verb in Verb::ALL {
        let word = verb.word();
        post(config, &format!("/api/v1/swarms/{{swarm}}/{word}"), move |request, payload, desk| {
            commands::swarm(verb, request, payload, desk)
        });
        post(config, &format!("/api/v1/swarms/{{swarm}}/agents/{{agent}}/{word}"), move |request, payload, desk| {
            commands::agent(verb, request, payload, desk)
        });
    }

    post(config, "/api/v1/reconcile", reconcile::reconcile);
    get(config, "/api/v1/tree", tree::tree);
    get(config, "/api/v1/events", events::events);
    get(config, "/api/v1/operations", operations::list);
    get(config, "/api/v1/operations/{operation}", operations::show);
}

/// What no route matches.
pub(super) async fn not_found() -> Result<&'static str, Problem> {
    Err(Problem::new(Code::NotFound, "no such route"))
}

fn get<F, Args>(config: &mut ServiceConfig, path: &str, handler: F)
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let reads = guard::Any(guard::Get()).or(guard::Head());
    resource(config, path, web::route().guard(reads).to(handler), "GET, HEAD");
}

fn post<F, Args>(config: &mut ServiceConfig, path: &str, handler: F)
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    resource(config, path, web::post().to(handler), "POST");
}

fn resource(config: &mut ServiceConfig, path: &str, route: actix_web::Route, allow: &'static str) {
    let refuse = move || async move { Err::<&'static str, _>(Problem::method_not_allowed(allow)) };
    config.service(web::resource(path).route(route).default_service(web::to(refuse)));
}

//! For programs of one test: an actor that does nothing, and a sink that does not listen.

use actix::{Actor, Context};
use hivekeeper_actors::{EventSink, SupervisionEvent};

pub(crate) struct Deaf;

impl EventSink for Deaf {
    fn event(&self, _: SupervisionEvent) {}
}

pub(crate) struct Plain;

impl Actor for Plain {
    type Context = Context<Self>;
}

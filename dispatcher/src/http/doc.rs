//! What a route is for, beside its handler in the route table: the source of `/openapi.json`.
//!
//! A route without it does not compile. Path parameters follow from the path, refusals from
//! the declared access; the rest is said here.

use std::collections::BTreeMap;
use std::fmt;

use utoipa::openapi::path::{
    Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{
    KnownFormat, Object, ObjectBuilder, Ref, Schema, SchemaFormat, Type,
};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, RefOr, Required, ResponseBuilder};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::routes::Access;

/// Name of the security scheme of bearer tokens.
pub const BEARER: &str = "bearer";
/// Name of the schema of every error answer.
pub const PROBLEM: &str = "Problem";

/// A schema and its media type.
type Content = (RefOr<Schema>, &'static str);

/// Description of one route.
pub struct Doc {
    summary: &'static str,
    parameters: Vec<Parameter>,
    uuids: Vec<&'static str>,
    texts: Vec<&'static str>,
    body: Option<Content>,
    answers: Vec<(u16, Option<Content>)>,
    refuses: &'static [u16],
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl fmt::Debug for Doc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.summary)
    }
}

impl Doc {
    /// A route that does what this one sentence says.
    pub fn new(summary: &'static str) -> Self {
        Self {
            summary,
            parameters: Vec::new(),
            uuids: Vec::new(),
            texts: Vec::new(),
            body: None,
            answers: Vec::new(),
            refuses: &[],
            schemas: Vec::new(),
        }
    }

    /// This path parameter is a UUID; they are integers otherwise.
    pub fn uuid(mut self, name: &'static str) -> Self {
        self.uuids.push(name);
        self
    }

    /// This path parameter is text.
    pub fn text(mut self, name: &'static str) -> Self {
        self.texts.push(name);
        self
    }

    /// Takes these query parameters.
    pub fn query<T: IntoParams>(mut self) -> Self {
        self.parameters
            .extend(T::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// Takes a JSON body.
    pub fn body<T: ToSchema>(mut self) -> Self {
        self.body = Some((self.reference::<T>(), "application/json"));
        self
    }

    /// Takes a JSON object whose fields API.md lists.
    pub fn any_body(mut self) -> Self {
        self.body = Some((anything(), "application/json"));
        self
    }

    /// Answers with this status and JSON.
    pub fn gives<T: ToSchema>(mut self, status: u16) -> Self {
        let schema = self.reference::<T>();
        self.answers
            .push((status, Some((schema, "application/json"))));
        self
    }

    /// Answers with JSON whose fields API.md lists.
    pub fn gives_any(self, status: u16) -> Self {
        self.gives_as(status, "application/json")
    }

    /// Answers with this media type.
    pub fn gives_as(mut self, status: u16, media_type: &'static str) -> Self {
        self.answers.push((status, Some((anything(), media_type))));
        self
    }

    /// Answers with server-sent events.
    pub fn streams(self) -> Self {
        self.gives_as(200, "text/event-stream")
    }

    /// Answers with a status alone.
    pub fn gives_nothing(mut self, status: u16) -> Self {
        self.answers.push((status, None));
        self
    }

    /// Refuses with these statuses too, beside those that follow from path and access.
    pub fn refuses(mut self, statuses: &'static [u16]) -> Self {
        self.refuses = statuses;
        self
    }

    /// A reference to a named schema, or the schema itself where it has no name of its own.
    fn reference<T: ToSchema>(&mut self) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        let schema = <T as PartialSchema>::schema();
        match &schema {
            RefOr::T(Schema::Object(object)) if !object.properties.is_empty() => {
                let name = T::name().into_owned();
                let reference = RefOr::Ref(Ref::from_schema_name(&name));
                self.schemas.push((name, schema));
                reference
            }
            _ => schema,
        }
    }

    /// The operation, and the schemas it refers to.
    pub(super) fn operation(
        &self,
        path: &str,
        access: Access,
    ) -> (Operation, &[(String, RefOr<Schema>)]) {
        let tag = path
            .split('/')
            .find(|part| !part.is_empty() && *part != "api");
        let mut operation = OperationBuilder::new()
            .summary(Some(self.summary))
            .tag(tag.unwrap_or("system"));
        for name in parameters(path) {
            operation = operation.parameter(self.path_parameter(name));
        }
        for parameter in &self.parameters {
            operation = operation.parameter(parameter.clone());
        }
        if let Some((schema, media_type)) = &self.body {
            let content = ContentBuilder::new().schema(Some(schema.clone())).build();
            let body = RequestBodyBuilder::new().content(*media_type, content);
            operation = operation.request_body(Some(body.build()));
        }
        let mut by_status = BTreeMap::new();
        for (status, content) in &self.answers {
            let mut answer = by_status
                .remove(status)
                .unwrap_or_else(|| ResponseBuilder::new().description("As asked."));
            if let Some((schema, media_type)) = content {
                let content = ContentBuilder::new().schema(Some(schema.clone())).build();
                answer = answer.content(*media_type, content);
            }
            by_status.insert(*status, answer);
        }
        for (status, answer) in by_status {
            operation = operation.response(status.to_string(), answer.build());
        }
        for (status, why) in refusals(path, access, self.refuses) {
            if self.answers.iter().any(|(known, _)| *known == status) {
                continue;
            }
            let schema = RefOr::Ref(Ref::from_schema_name(PROBLEM));
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let answer = ResponseBuilder::new()
                .description(why)
                .content(clawlink_shared::problem::MEDIA_TYPE, content);
            operation = operation.response(status.to_string(), answer.build());
        }
        if access != Access::Public {
            let none: [&str; 0] = [];
            operation = operation.security(SecurityRequirement::new(BEARER, none));
        }
        (operation.build(), &self.schemas)
    }

    fn path_parameter(&self, name: &str) -> Parameter {
        let schema = if self.uuids.contains(&name) {
            ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
                .into()
        } else if self.texts.contains(&name) {
            <String as PartialSchema>::schema()
        } else {
            <i64 as PartialSchema>::schema()
        };
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(schema))
            .build()
    }
}

/// What any route may refuse a caller with.
fn refusals(path: &str, access: Access, more: &[u16]) -> Vec<(u16, &'static str)> {
    let mut list = vec![
        (400, "The request is malformed; every fault is named."),
        (408, "The body did not arrive in time."),
        (409, "It contradicts what is stored."),
        (413, "The body is too large."),
        (415, "The body is not JSON."),
        (
            429,
            "Too many requests; wait as long as `Retry-After` says.",
        ),
        (500, "A fault on our side."),
        (503, "A part that is needed cannot be reached; try again."),
    ];
    let has = |status| more.contains(&status);
    if access != Access::Public || has(401) {
        list.push((401, "The credential is missing, wrong, expired or revoked."));
    }
    if access != Access::Public || has(403) {
        list.push((403, "The caller may not do this."));
    }
    // Also what a body or a query names may be missing.
    if path.contains('{') || access != Access::Public || has(404) {
        list.push((404, "There is no such thing that the caller may see."));
    }
    list
}

/// Names of the parameters in a path.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn anything() -> RefOr<Schema> {
    RefOr::T(Schema::Object(Object::new()))
}

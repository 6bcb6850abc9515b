//! Requests for every route, with ids of one's own and of the other workspace.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clawlink::http::routes::{Access, Route};
use clawlink::workspaces::role::Permission;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use reqwest::Method;
use serde_json::{Value, json};

use super::side::Side;

/// What everything else needs to be there, in this order.
pub(super) const FIRST: [&str; 12] = [
    "POST /api/projects",
    "POST /api/tasks",
    "POST /api/agents",
    "POST /api/agents/{id}/skills",
    "PUT /api/secrets/{name}",
    "POST /api/runtime/sessions",
    "POST /execute",
    "POST /api/devices",
    "POST /api/policies",
    "POST /api/tenants/{id}/keys",
    "POST /api/tenants/{id}/members",
    "GET /api/events",
];

/// How often an id is the other's.
const FOREIGN: f64 = 0.4;

/// Whose ids an operation may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Own,
    Mixed,
}

/// A request.
#[derive(Debug)]
pub(super) struct Operation {
    /// The route.
    pub(super) name: String,
    pub(super) access: Access,
    pub(super) method: Method,
    /// With its query.
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) accept: &'static str,
    pub(super) once: Option<String>,
    /// With the owner's token instead of the admin key.
    pub(super) as_owner: bool,
    /// Whether its path names something of the other's.
    pub(super) is_at_foreign: bool,
    /// Foreign ids in path, query and body: the answer may repeat them.
    pub(super) named: Vec<String>,
    /// Those in the body: later answers may, too.
    pub(super) said: Vec<String>,
}

impl Operation {
    /// One that names nobody's ids.
    pub(super) fn simple(method: Method, path: &str, body: Value) -> Self {
        Self {
            name: format!("{method} {path}"),
            access: Access::Needs(Permission::WorkspaceRead),
            method,
            path: path.to_owned(),
            body: Some(body),
            accept: "application/json",
            once: None,
            as_owner: false,
            is_at_foreign: false,
            named: Vec::new(),
            said: Vec::new(),
        }
    }
}

/// Method and path.
pub(super) fn name(route: &Route) -> String {
    format!("{} {}", route.method, route.path)
}

/// Whether a workspace's people and keys call it: what ends their own sign-in, and what makes
/// further workspaces of a person, is left out.
pub(super) fn is_played(route: &Route) -> bool {
    let is_theirs = matches!(route.access, Access::Needs(_) | Access::Person);
    let path = route.path;
    let is_left_out = path.starts_with("/api/auth/logout")
        || path == "/api/auth/password"
        || (route.method == Method::POST && matches!(path, "/api/tenants" | "/api/tenants/create"));
    is_theirs && !is_left_out
}

/// A request for this route.
pub(super) fn draw(
    route: &Route,
    mine: &Side,
    theirs: &Side,
    reach: Reach,
    random: &mut StdRng,
) -> Operation {
    let mut draw = Draw {
        mine,
        theirs,
        reach,
        random,
        foreign: Vec::new(),
    };
    let name = name(route);
    let mut path = draw.path(route.path);
    let is_at_foreign = !draw.foreign.is_empty();
    if let Some(query) = draw.query(&name) {
        path = format!("{path}?{query}");
    }
    let before_body = draw.foreign.len();
    let body = (route.method != Method::GET).then(|| draw.body(&name));
    let said = draw.foreign[before_body..].to_vec();
    let named = std::mem::take(&mut draw.foreign);
    let is_once = matches!(
        name.as_str(),
        "POST /execute" | "POST /api/tasks" | "POST /api/projects"
    );
    Operation {
        access: route.access,
        method: route.method.clone(),
        path,
        body,
        accept: match random.random_ratio(1, 4) {
            true => "*/*",
            false => "application/json",
        },
        // Both use the same keys.
        once: (is_once && random.random_ratio(1, 5))
            .then(|| format!("again-{}", random.random_range(0..3))),
        as_owner: random.random(),
        is_at_foreign,
        named,
        said,
        name,
    }
}

struct Draw<'a> {
    mine: &'a Side,
    theirs: &'a Side,
    reach: Reach,
    random: &'a mut StdRng,
    /// Foreign ids drawn so far.
    foreign: Vec<String>,
}

impl Draw<'_> {
    /// An id of a kind: one's own, or the other's.
    fn id(&mut self, kind: &str) -> String {
        let is_foreign = self.reach == Reach::Mixed && self.random.random_bool(FOREIGN);
        let side = if is_foreign { self.theirs } else { self.mine };
        let ids: Vec<&String> = side.ids(kind).collect();
        let Some(id) = ids.choose(self.random) else {
            return "99".to_owned();
        };
        if is_foreign {
            self.foreign.push((*id).clone());
        }
        (*id).clone()
    }

    /// The same as a number.
    fn number(&mut self, kind: &str) -> Value {
        self.id(kind)
            .parse::<i64>()
            .map_or(Value::Null, Value::from)
    }

    fn workspace(&mut self) -> String {
        if self.reach == Reach::Mixed && self.random.random_bool(FOREIGN) {
            let id = self.theirs.workspace.to_string();
            self.foreign.push(id.clone());
            return id;
        }
        self.mine.workspace.to_string()
    }

    fn one_of(&mut self, names: &[&'static str]) -> &'static str {
        names.choose(self.random).expect("some names")
    }

    fn is(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    /// A text of this side.
    fn text(&mut self) -> String {
        format!("{} {}", self.mine.marker, self.random.random_range(0..1000))
    }

    /// The path with ids for its parameters.
    fn path(&mut self, path: &str) -> String {
        let id = match path {
            _ if !path.contains("{id}") => String::new(),
            _ if path.starts_with("/executions") => {
                let kind = self.one_of(&["execution", "uuid"]);
                self.id(kind)
            }
            _ if path.starts_with("/sessions") => self.id("session"),
            _ if path.starts_with("/api/runtime/executions") => self.id("execution"),
            _ if path.starts_with("/api/runtime/sessions") => self.id("client"),
            "/api/runtime/tasks/{id}/executions" => self.id("task"),
            _ if path.starts_with("/api/runtime/tasks") => self.id("uuid"),
            _ if path.starts_with("/api/agents") => self.id("agent"),
            _ if path.starts_with("/api/projects") => self.id("project"),
            _ if path.starts_with("/api/tasks") => self.id("task"),
            _ if path.starts_with("/api/tenants") => self.workspace(),
            _ if path.starts_with("/api/devices") => self.id("device"),
            _ if path.starts_with("/api/policies") => self.id("policy"),
            _ => self.id("execution"),
        };
        let mut path = path.replace("{id}", &id);
        // Only what the path has is drawn, so that it counts as named.
        for (parameter, kind) in [
            ("{userId}", "member"),
            ("{user}", "member"),
            ("{session}", "client"),
            ("{invitationId}", "invitation"),
            ("{keyId}", "key"),
            ("{other}", "task"),
        ] {
            if path.contains(parameter) {
                path = path.replace(parameter, &self.id(kind));
            }
        }
        let secret = self.secret();
        let relation = self.one_of(&["relates", "blocks", "child", "parent"]);
        path.replace("{name}", &secret)
            .replace("{slug}", "shared")
            .replace("{provider}", "none")
            .replace("{kind}", relation)
    }

    /// A secret's name: one that both have, or one's own.
    fn secret(&mut self) -> String {
        match self.is(2) {
            true => "TOKEN".to_owned(),
            false => format!("OWN_{}", self.mine.marker),
        }
    }

    /// A query that asks for the other's things where the route has one.
    fn query(&mut self, name: &str) -> Option<String> {
        let theirs = self.theirs.marker.clone();
        let query = match name {
            "GET /api/tasks" => match self.random.random_range(0..5) {
                0 => format!("projectId={}", self.id("project")),
                1 if self.reach == Reach::Mixed => format!("q={theirs}"),
                2 => format!("parentId={}", self.id("task")),
                3 => format!("assigneeId={}&archived=any", self.id("member")),
                _ => "archived=any".to_owned(),
            },
            "GET /api/runtime/executions" => match self.is(2) {
                true => format!("taskId={}", self.id("task")),
                false => format!("agentId={}", self.id("agent")),
            },
            "GET /api/audit/events" | "GET /api/audit/export" => {
                match self.random.random_range(0..4) {
                    0 => format!("resourceId={}", self.id("task")),
                    1 => format!("userId={}", self.id("member")),
                    2 => format!("actor=key:{}", self.id("credential")),
                    _ => return None,
                }
            }
            "GET /api/runtime/agents" | "GET /api/runtime/skills" => {
                format!("session_id={}", self.id("client"))
            }
            "PUT /api/secrets/{name}" | "DELETE /api/secrets/{name}" if self.is(3) => {
                format!("agent={}", self.id("agent"))
            }
            "DELETE /sessions/{id}" | "DELETE /api/tasks/{id}" | "DELETE /api/projects/{id}"
                if self.is(2) =>
            {
                "force=true".to_owned()
            }
            "GET /api/events" if self.is(2) => "after=0".to_owned(),
            _ => return None,
        };
        Some(query)
    }

    /// A body that may be right.
    fn body(&mut self, name: &str) -> Value {
        let text = self.text();
        match name {
            "POST /execute" => self.request(&text),
            "PATCH /sessions/{id}" => json!({"sessionBudgetUsd": 1000}),
            "POST /executions/{id}/cancel" => json!({"reason": text}),
            "POST /api/runtime/executions" | "POST /api/tasks/execute" => {
                let mut body = json!({"taskId": self.number("task"), "payload": text,
                    "clawId": text, "agentId": "shell"});
                match self.random.random_range(0..4) {
                    0 => body["agentId"] = self.number("agent"),
                    1 => body["sessionId"] = json!(self.id("session")),
                    _ => {}
                }
                body
            }
            "PATCH /api/runtime/executions/{id}/state" => {
                let status = self.one_of(&["running", "completed", "failed", "cancelled"]);
                json!({"status": status, "result": text, "errorMessage": text})
            }
            "POST /api/runtime/sessions" => json!({"user_id": text, "device_id": text}),
            "POST /api/runtime/tasks/submit" => {
                let mut body =
                    json!({"prompt": text, "agent_type": "shell", "context": {"a": text}});
                match self.random.random_range(0..3) {
                    0 => body["task_id"] = self.number("task"),
                    1 => body["session_id"] = json!(self.id("client")),
                    _ => {}
                }
                body
            }
            "POST /api/runtime/tasks/{id}/cancel" if self.is(2) => {
                json!({"session_id": self.id("client")})
            }
            "POST /api/agents" => json!({"name": text, "type": "shell", "apiKey": text,
                "endpoint": "https://agent.example", "config": {"a": text}}),
            "PATCH /api/agents/{id}" => json!({"description": text, "isActive": true}),
            "POST /api/agents/{id}/skills" => {
                json!({"name": text, "description": text, "inputSchema": {"a": text}})
            }
            "POST /api/skill-assignments/tenant" => match self.is(2) {
                true => json!({"skillSlug": "shared"}),
                false => json!({"skillSlug": self.mine.marker}),
            },
            "PUT /api/secrets/{name}" => match self.is(3) {
                true => json!({"value": text, "allowedAgents": [self.id("agent")]}),
                false => json!({"value": text}),
            },
            "POST /api/projects" | "POST /api/projects/upsert" => {
                let key = format!("APP{}", self.random.random_range(0..30));
                json!({"name": text, "key": key, "description": text, "defaultAgent": "shell"})
            }
            "PATCH /api/projects/{id}" | "PUT /api/projects/{id}" => json!({"description": text}),
            "POST /api/tasks" => {
                let mut body = json!({"projectId": self.number("project"), "title": text,
                    "description": text, "labels": [self.mine.marker]});
                self.relate(&mut body);
                body
            }
            "PATCH /api/tasks/{id}" | "PUT /api/tasks/{id}" => {
                let mut body = json!({"title": text});
                self.relate(&mut body);
                body
            }
            "POST /api/tasks/next" if self.is(2) => json!({"projectId": self.number("project")}),
            "POST /api/tasks/{id}/relations" => {
                let kind = self.one_of(&["relates", "blocks", "child", "parent"]);
                json!({"kind": kind, "taskId": self.number("task")})
            }
            "POST /api/tasks/{id}/create_pr" => json!({"title": text}),
            "PATCH /api/tenants/{id}" => json!({"name": text}),
            "DELETE /api/tenants/{id}" => json!({"confirm": self.theirs.slug, "force": true}),
            "POST /api/tenants/{id}/members" => {
                let email = format!(
                    "{}-{}@example.org",
                    self.mine.marker,
                    self.random.random::<u32>()
                );
                json!({"email": email, "role": "viewer"})
            }
            "PATCH /api/tenants/{id}/members/{userId}" => {
                json!({"role": self.one_of(&["viewer", "developer"])})
            }
            "POST /api/tenants/{id}/keys" => json!({"name": text, "role": "readonly"}),
            "POST /api/auth/register" => {
                json!({"email": format!("{}@example.org", self.mine.marker)})
            }
            "POST /api/auth/tenant-token" => json!({"tenantId": self.workspace()}),
            "POST /api/devices" => {
                let key: [u8; 32] = self.random.random();
                json!({"name": text, "publicKey": BASE64_STANDARD.encode(key)})
            }
            "PATCH /api/devices/{id}" => json!({"trust": self.one_of(&["verified", "trusted"])}),
            "POST /api/policies" | "PUT /api/policies/{id}" => json!({
                "resourceKind": "session", "resource": self.id("session"), "description": text,
                "deniedRoles": ["viewer"], "deniedUsers": [format!("key:{}", self.id("credential"))],
            }),
            _ => json!({}),
        }
    }

    /// A request for `POST /execute`.
    fn request(&mut self, text: &str) -> Value {
        let mut body = json!({"userRequest": text, "codingAssistantProvider": "shell",
            "sessionName": self.mine.marker});
        match self.random.random_range(0..4) {
            0 => body["resumeSessionId"] = json!(self.id("session")),
            1 => {
                let secret = self.secret();
                body["providerOptions"] = json!({"env": {"SECRET": {"secret": secret}}});
            }
            _ => {}
        }
        body
    }

    /// Puts a task beside, below or into something, or gives it to somebody.
    fn relate(&mut self, body: &mut Value) {
        match self.random.random_range(0..6) {
            0 => body["parentId"] = self.number("task"),
            1 => body["assigneeId"] = json!(self.id("member")),
            2 => body["projectId"] = self.number("project"),
            3 => body["afterId"] = self.number("task"),
            _ => {}
        }
    }
}
